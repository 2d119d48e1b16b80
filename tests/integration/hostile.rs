//! Clients that mean harm or are broken: each gets an error or is let go, and the others are served promptly all the
//! while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::daemon::{DEADLINE, Daemon, Setup, until};
use crate::http1::{Http1, check_bytes, request};

/// In debug builds on a busy machine a check takes a few milliseconds; who waits for a hostile client waits for seconds.
const PROMPT: Duration = Duration::from_secs(2);
/// How long the daemon waits for a request's head, or for its body.
const PATIENCE: Duration = Duration::from_secs(10);

async fn start() -> Daemon {
    let limit = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 1000000\n";
    Daemon::start(&Arc::new(TempDir::new().unwrap()), Setup::single(limit)).await
}

/// A polite client beside: asks all the time, on a connection of its own each time, and notes the longest answer.
struct Polite {
    task: JoinHandle<()>,
    asked: Arc<AtomicU64>,
    longest_ms: Arc<AtomicU64>,
}

impl Polite {
    fn start(daemon: &Daemon) -> Self {
        let address = daemon.http;
        let (asked, longest_ms) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count, longest) = (asked.clone(), longest_ms.clone());
        let task = tokio::spawn(async move {
            loop {
                let start = Instant::now();
                let mut connection = Http1::tcp(address).await;
                connection.send(check_bytes("polite")).await;
                assert_eq!(connection.answer().await.json()["allowed"], true);
                longest.fetch_max(u64::try_from(start.elapsed().as_millis()).unwrap(), Relaxed);
                count.fetch_add(1, Relaxed);
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { task, asked, longest_ms }
    }

    /// Ends it; that it was served all the while, and promptly, and that every answer counted once.
    async fn finish(self, daemon: &Daemon, at_least: u64) {
        until("the polite client was served", async || self.asked.load(Relaxed) >= at_least || self.task.is_finished())
            .await;
        self.task.abort();
        let ended = self.task.await.unwrap_err();
        assert!(ended.is_cancelled(), "a polite client was not served: {ended}");
        let longest = Duration::from_millis(self.longest_ms.load(Relaxed));
        assert!(longest < PROMPT, "an answer took {longest:?}");
        let asked = self.asked.load(Relaxed);
        let used = 1_000_000 - daemon.check("polite", 0).await["remaining"].as_u64().unwrap();
        // the last one may have been cut off between its request and its answer
        assert!(used == asked || used == asked + 1, "{used} used, {asked} asked");
    }
}

#[tokio::test]
async fn the_silent_and_the_slow_are_let_go() {
    let mut daemon = start().await;
    let polite = Polite::start(&daemon);
    let start = Instant::now();
    let mut clients = JoinSet::new();
    let body = br#"{"limit":"api","key":"slow"}"#;
    let head = String::from_utf8(request("POST", "/v1/check", &[("content-length", "28")], b"")).unwrap();
    for kind in ["silent", "slow head", "slow second head", "no body", "slow body"] {
        let (mut connection, head) = (daemon.connect().await, head.clone());
        clients.spawn(async move {
            match kind {
                "silent" => {}
                "slow head" => connection.send("GET /healthz HTTP/1.1\r\nhost: x\r\n").await,
                "slow second head" => {
                    assert_eq!(connection.ask("GET", "/healthz", &[], b"").await.status, 200);
                    connection.send("GET /healthz HTTP/1.1\r\nhost: x\r\n").await;
                }
                "no body" => connection.send(&head).await,
                _ => connection.send([head.as_bytes(), &body[..10]].concat()).await,
            }
            let trickles = kind.starts_with("slow");
            for i in 0.. {
                let bytes: &[u8] = match kind {
                    "slow body" => &body[10..11],
                    _ if i == 0 => b"x-slow: y",
                    _ => b"y",
                };
                if trickles && (kind != "slow body" || i < 17) {
                    let _ = connection.stream.write_all(bytes).await;
                }
                if let Ok(end) = timeout(Duration::from_secs(1), connection.answer_or_end()).await {
                    return (kind, end, start.elapsed());
                }
            }
            unreachable!()
        });
    }
    while let Some(client) = timeout(3 * PATIENCE, clients.join_next()).await.expect("one is still connected") {
        let (kind, answer, after) = client.unwrap();
        assert!(after < 2 * PATIENCE && after > PATIENCE / 2, "{kind}: let go after {after:?}");
        match answer {
            Some(answer) => answer.assert_problem(408, "body-timeout", &["within 10 s"]),
            None => assert!(!kind.ends_with("body"), "{kind}: closed without a word"),
        }
    }
    polite.finish(&daemon, 50).await;
    assert_eq!(daemon.check("slow", 0).await["remaining"], 1_000_000);
    daemon.stop().await;
}

/// The end of what a client sends means that it is gone: what it waits for is given up, and takes no tokens. One that
/// only half closes is answered if the answer was there already.
#[tokio::test]
async fn a_client_that_half_closes_is_let_go_at_once() {
    let daemon = start().await;
    let start = Instant::now();
    let all = r#"{"limit":"api","key":"full","cost":1000000}"#;
    assert_eq!(daemon.post_raw("/v1/check", all).await.json()["allowed"], true);
    let waiting = br#"{"limit":"api","key":"full","wait_ms":60000}"#;
    let waiting = request("POST", "/v1/check", &[("content-type", "application/json")], waiting);
    let whole = check_bytes("half");
    for bytes in [&b""[..], b"GET /he", &whole[..whole.len() - 5], &whole, &waiting] {
        let mut connection = daemon.connect().await;
        connection.send(bytes).await;
        connection.stream.shutdown().await.unwrap();
        if let Some(answer) = connection.answer_or_end().await {
            assert_eq!(answer.status, if bytes == whole { 200 } else { 400 }, "{}", answer.text());
            connection.assert_end().await;
        }
    }
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    let left = daemon.check("half", 0).await["remaining"].as_u64().unwrap();
    assert!((999_999..=1_000_000).contains(&left), "{left}");
    // tokens that come back are there for others
    let reset = r#"{"limit":"api","key":"full"}"#;
    assert_eq!(daemon.post_raw("/v1/reset", reset).await.json()["remaining"], 1_000_000);
    assert_eq!(daemon.check("full", 1_000_000).await["allowed"], true);
}

#[tokio::test]
async fn resets_in_the_midst_of_requests_harm_nobody() {
    let mut daemon = start().await;
    let polite = Polite::start(&daemon);
    let whole = check_bytes("reset");
    let mut most = 0;
    for round in 0..300 {
        let mut connection = daemon.connect().await;
        // anywhere in the request, or right behind it, before the answer
        let cut = (round * 7) % (whole.len() + 1);
        connection.send(&whole[..cut]).await;
        most += u64::from(cut == whole.len());
        // a reset instead of a goodbye
        connection.stream.set_zero_linger().unwrap();
    }
    polite.finish(&daemon, 20).await;
    let used = 1_000_000 - daemon.check("reset", 0).await["remaining"].as_u64().unwrap();
    assert!(used <= most, "{used} used, {most} requests were whole");
    daemon.stop().await;
}

#[tokio::test]
async fn garbage_is_refused() {
    let mut daemon = start().await;
    let polite = Polite::start(&daemon);
    let noise: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let many_headers: String = (0..5000).map(|i| format!("x-{i}: y\r\n")).collect();
    let cases: [(&str, Vec<u8>); 13] = [
        ("noise", noise),
        ("zeros", vec![0; 4096]),
        ("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50)),
        ("another protocol", b"*1\r\n$4\r\nPING\r\n".to_vec()),
        ("a mail greeting", b"EHLO there\r\n\r\n".to_vec()),
        ("half of an HTTP/2 greeting", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()),
        ("HTTP/2 garbage", [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 1000]].concat()),
        ("a later version", b"GET /healthz HTTP/7.3\r\nhost: x\r\n\r\n".to_vec()),
        ("a huge path", [b"GET /", &[b'a'; 200_000][..], b" HTTP/1.1\r\n\r\n"].concat()),
        ("a huge header", [b"GET /healthz HTTP/1.1\r\nx: ", &[b'a'; 200_000][..], b"\r\n\r\n"].concat()),
        ("many headers", format!("GET /healthz HTTP/1.1\r\n{many_headers}\r\n").into_bytes()),
        ("a header without a name", b"GET /healthz HTTP/1.1\r\n: y\r\n\r\n".to_vec()),
        ("a header that is folded", b"GET /healthz HTTP/1.1\r\nx: y\r\n z\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let mut connection = daemon.connect().await;
        connection.send_or_fail(&bytes).await;
        // HTTP/2 is answered in its own frames; all else with an error or not at all
        let mut answer = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut connection.stream, &mut answer);
        let _ = timeout(DEADLINE, read).await.unwrap_or_else(|_| panic!("{what}: still connected"));
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains(" 200 ") && answer.len() < 1000, "{what}: {answer}");
    }
    polite.finish(&daemon, 20).await;
    daemon.stop().await;
}

/// What tells two servers in a row different things about where a request ends: each such shape is refused, or read as
/// the standard says and the connection closed (RFC 9112, 6.1 and 6.3).
#[tokio::test]
async fn no_second_request_is_smuggled_in() {
    let daemon = start().await;
    let hidden = String::from_utf8(check_bytes("smuggled")).unwrap();
    let outer = r#"{"limit":"api","key":"outer"}"#;
    let chunked = format!("{:x}\r\n{outer}\r\n0\r\n\r\n", outer.len());
    let both = |first: &str, second: &str| {
        format!("POST /v1/check HTTP/1.1\r\nhost: x\r\n{first}\r\n{second}\r\n\r\n{chunked}{hidden}")
    };
    let length = format!("content-length: {}", chunked.len() + hidden.len());
    let encoding = "transfer-encoding: chunked";
    let shapes = [
        both(&length, encoding),
        both(encoding, &length),
        both("content-length: 5", encoding),
        both(encoding, "transfer-encoding: identity"),
        both("transfer-encoding: chunked, identity", &length),
        both("transfer-encoding: xchunked", &length),
        both("transfer-encoding : chunked", &length),
        both("content-length: 29", "content-length: 30"),
        both("content-length: 29, 30", "x: y"),
        both("content-length: +29", "x: y"),
        both("content-length: 0x1d", "x: y"),
        both("content-length: -1", "x: y"),
        both("content-length: 99999999999999999999", "x: y"),
        format!("POST /v1/check HTTP/1.1\r\nhost: x\r\n{encoding}\r\n\r\nzz\r\n{outer}\r\n0\r\n\r\n{hidden}"),
        format!(
            "POST /v1/check HTTP/1.1\r\nhost: x\r\n{encoding}\r\n\r\nfffffffffffffffff\r\n{outer}\r\n0\r\n\r\n{hidden}"
        ),
        format!("POST /v1/check HTTP/1.0\r\n{encoding}\r\n\r\n{chunked}{hidden}"),
    ];
    for shape in &shapes {
        let mut connection = daemon.connect().await;
        connection.send_or_fail(shape).await;
        connection.stream.shutdown().await.ok();
        let mut answers = Vec::new();
        while let Some(answer) = connection.answer_or_end().await {
            answers.push(answer.status);
        }
        assert!(answers.len() <= 1, "{answers:?} to\n{shape}");
        let used = 1_000_000 - daemon.check("smuggled", 0).await["remaining"].as_u64().unwrap();
        assert_eq!(used, 0, "{answers:?} to\n{shape}");
    }
    // where a proxy counts a bare length, a chunked body is still only a body
    let body = request("POST", "/v1/check", &[("content-type", "application/json")], chunked.as_bytes());
    let mut connection = daemon.connect().await;
    connection.send(body).await;
    connection.answer().await.assert_problem(400, "malformed", &[]);
    connection.send(check_bytes("after")).await;
    assert_eq!(connection.answer().await.status, 200);
}

/// Thirty thousand keys against a table of a thousand: memory stays bounded, and who counts goes on counting.
#[tokio::test]
async fn a_flood_of_keys_pushes_out_none_that_is_used() {
    let limit = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 1000\n";
    let setup = Setup { node: "max_keys = 1000".to_owned(), ..Setup::single(limit) };
    let daemon = Daemon::start(&Arc::new(TempDir::new().unwrap()), setup).await;
    let mut connection = daemon.connect().await;
    for round in 1..=30 {
        assert_eq!(daemon.check("used", 10).await["remaining"], 1000 - 10 * round);
        let checks: Vec<_> = (0..1000).map(|i| json!({"limit": "api", "key": format!("{round}-{i}")})).collect();
        let answer = connection.post("/v1/checks", json!({"checks": checks}).to_string()).await;
        assert_eq!(answer.json()["allowed"], true);
    }
    let metrics = daemon.get_raw("/metrics").await;
    let value = |name: &str| {
        let line = metrics.text().lines().find_map(|l| l.strip_prefix(name)).expect(name);
        line.trim().parse::<u64>().unwrap()
    };
    let keys = value("spillgate_keys{limit=\"api\"}");
    assert!((900..=1000).contains(&keys), "{keys} keys");
    assert_eq!(value("spillgate_evictions_total"), 30_001 - keys);
    assert_eq!(daemon.check("used", 0).await["remaining"], 700);
}

/// Both ends are on this machine, each a process with its own limit of open files.
#[tokio::test]
async fn ten_thousand_idle_connections_hold_nobody_up() {
    // room for the listeners of this process' other tests, their pipes and files
    const KEPT: u64 = 1000;
    let allowed = spillgate::api::raise_file_limit().unwrap();
    let wanted = 10_000.min(usize::try_from(allowed.saturating_sub(KEPT)).unwrap());
    let mut daemon = start().await;
    let before = daemon.resident_bytes();
    let mut idle = Vec::with_capacity(wanted);
    while idle.len() < wanted {
        // in groups, since the system's queue of a listener is finite
        let mut group = JoinSet::new();
        for _ in 0..200.min(wanted - idle.len()) {
            let address = daemon.http;
            group.spawn(async move {
                let mut connection = Http1::tcp(address).await;
                // every one has been served once, so that it is idle and not merely silent
                assert_eq!(connection.ask("GET", "/healthz", &[], b"").await.status, 200);
                connection
            });
        }
        idle.extend(group.join_all().await);
    }
    let polite = Polite::start(&daemon);
    polite.finish(&daemon, 100).await;
    // each of them can still ask, and is answered at once
    let start = Instant::now();
    for connection in idle.iter_mut().step_by(wanted / 100) {
        connection.send(check_bytes("idle")).await;
        assert_eq!(connection.answer().await.json()["allowed"], true);
    }
    assert!(start.elapsed() < 10 * PROMPT, "100 checks took {:?}", start.elapsed());
    let grown = daemon.resident_bytes().saturating_sub(before);
    println!("{wanted} idle connections ({allowed} files allowed): {} bytes each", grown / wanted as u64);
    // hyper reads into 8 KiB a connection, and keeps as much again for what it writes
    assert!(grown < wanted as u64 * 32_768 + (64 << 20), "{grown} bytes for {wanted} connections");
    drop(idle);
    until("it has let go of them", async || open_files(&daemon) < 200).await;
    assert_eq!(daemon.check("idle", 0).await["remaining"], 1_000_000 - wanted.div_ceil(wanted / 100));
    daemon.stop().await;
}

fn open_files(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}
