//! The load of `tests/bench` where other programs have none: HTTP over a Unix socket, and pipelines of it.
//!
//! `load TARGET CONNECTIONS PIPELINE SECONDS PATH BODY...`: sends the bodies in turn with POST, so many at once on each
//! connection, and prints how many were answered with 200 and how many were not, and the median, 99th and 99.9th part of
//! a hundred of their times in microseconds.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

/// What one connection came to.
#[derive(Default)]
struct Tally {
    good: u64,
    bad: u64,
    micros: Vec<u32>,
}

struct Job {
    requests: Vec<String>,
    pipeline: usize,
    until: Instant,
}

/// The length of the answer at the start of `bytes`, and whether it is a 200; `None` while it is not whole.
fn answer(bytes: &[u8]) -> Option<(usize, bool)> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let lengths =
        text.lines().filter_map(|l| l.split_once(':')).filter(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    let length: usize = lengths.map(|(_, v)| v).next_back().and_then(|v| v.trim().parse().ok()).unwrap_or(0);
    let whole = head + 4 + length;
    (bytes.len() >= whole).then(|| (whole, text.starts_with("HTTP/1.1 200")))
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, job: &Job, start: usize) -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    let mut next = start;
    let mut input = vec![0; 256 << 10];
    let mut filled = 0;
    let mut sent: VecDeque<Instant> = VecDeque::new();
    let mut out = String::new();
    while Instant::now() < job.until {
        out.clear();
        for _ in 0..job.pipeline {
            out.push_str(&job.requests[next % job.requests.len()]);
            next += 1;
            sent.push_back(Instant::now());
        }
        stream.write_all(out.as_bytes()).await?;
        while !sent.is_empty() {
            let n = stream.read(&mut input[filled..]).await?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += n;
            let mut at = 0;
            while let Some((length, good)) = answer(&input[at..filled]) {
                at += length;
                *(if good { &mut tally.good } else { &mut tally.bad }) += 1;
                let took = sent.pop_front().map_or(Duration::ZERO, |s| s.elapsed());
                tally.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            }
            input.copy_within(at..filled, 0);
            filled -= at;
        }
    }
    Ok(tally)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [target, connections, pipeline, seconds, path, bodies @ ..] = args.as_slice() else {
        return Err("load TARGET CONNECTIONS PIPELINE SECONDS PATH BODY...".into());
    };
    let mut requests = Vec::new();
    for body in bodies {
        let mut request = String::new();
        let length = body.len();
        write!(
            request,
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        requests.push(request);
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
    let job: &'static Job = Box::leak(Box::new(Job { requests, pipeline: pipeline.parse()?, until }));
    let mut running = JoinSet::new();
    for i in 0..connections.parse::<usize>()? {
        let target = target.clone();
        running.spawn(async move {
            // every connection begins elsewhere among the keys
            let start = i * 7919;
            if target.contains('/') {
                run(UnixStream::connect(target).await?, job, start).await
            } else {
                let stream = TcpStream::connect(target).await?;
                stream.set_nodelay(true)?;
                run(stream, job, start).await
            }
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = running.join_next().await {
        let tally = tally??;
        all.good += tally.good;
        all.bad += tally.bad;
        all.micros.extend(tally.micros);
    }
    all.micros.sort_unstable();
    let at =
        |part: f64| all.micros.get(((all.micros.len() as f64 * part) as usize).min(all.micros.len().saturating_sub(1)));
    let at = |part| at(part).copied().unwrap_or(0);
    println!("{} {} {} {} {}", all.good, all.bad, at(0.5), at(0.99), at(0.999));
    Ok(())
}
