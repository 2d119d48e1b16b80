//! A central store: a real redis-server with a token bucket as one script, and clients at a distance from it. It must
//! not know what the answers are held against.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use spillgate_sim::observe::Reason;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::arrivals::{Answered, Planned};
use crate::daemon::until;

/// Refills, decides and charges at once, by the store's own clock; 1 or 0.
const SCRIPT: &str = r"
local rate, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = tonumber(kept[1]) or burst
level = math.min(burst, level + (now - (tonumber(kept[2]) or now)) * rate / 1000000)
local allowed = 0
if level >= cost then
  level, allowed = level - cost, 1
end
redis.call('HSET', KEYS[1], 'level', string.format('%.9f', level), 'at', string.format('%d', now))
return allowed
";

/// A running redis-server on a socket of its own; killed when dropped.
pub struct Store {
    socket: PathBuf,
    /// What the script is called by.
    sha: String,
    _child: Child,
    _directory: TempDir,
}

impl Store {
    pub async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--unixsocket").arg(&socket).arg("--dir").arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "cannot run `redis-server`: {error} (tests/run installs it; by hand: \
                 apt-get install --no-install-recommends redis-server)"
            )
        });
        until("the store listens", async || UnixStream::connect(&socket).await.is_ok()).await;
        let mut stream = BufReader::new(UnixStream::connect(&socket).await.unwrap());
        stream.write_all(&command_bytes(&["SCRIPT", "LOAD", SCRIPT])).await.unwrap();
        let sha = reply(&mut stream).await;
        Self { socket, sha, _child: child, _directory: directory }
    }

    /// Makes the requests of the plan, each over its node's connection when it is due, from `start` on. What a node
    /// says and hears takes `distances[node]` each way.
    pub async fn offer(
        &self,
        (rate, burst): (u64, u64),
        distances: &[Duration],
        planned: &[Planned],
        start: Instant,
    ) -> Vec<Answered> {
        let mut asking = JoinSet::new();
        for (node, distance) in distances.iter().copied().enumerate() {
            let mine: Vec<Planned> = planned.iter().filter(|p| p.node == node).copied().collect();
            let (listen, speak) = UnixStream::connect(&self.socket).await.unwrap().into_split();
            let ((ask, asked), (hear, heard)) = (unbounded_channel(), unbounded_channel());
            let (sha, questions) = (self.sha.clone(), mine.len());
            asking.spawn(async move {
                let words = move |p: &Planned| {
                    let numbers = [rate, burst, p.cost].map(|n| n.to_string());
                    command_bytes(&["EVALSHA", &sha, "1", "{api}:k", &numbers[0], &numbers[1], &numbers[2]])
                };
                let (sent, (), (), answers) = tokio::join!(
                    send(&mine, start, distance, ask, words),
                    carry(asked, speak),
                    listen_for(questions, distance, BufReader::new(listen), hear),
                    collect(heard, start),
                );
                let pairs = mine.iter().zip(sent).zip(answers);
                let made = |((p, sent), (answered, reason)): ((&Planned, _), _)| Answered {
                    node,
                    cost: p.cost,
                    sent,
                    answered,
                    reason,
                };
                pairs.map(made).collect::<Vec<_>>()
            });
        }
        asking.join_all().await.concat()
    }
}

/// Sends each request off when it is due; says when each was.
async fn send(
    planned: &[Planned],
    start: Instant,
    distance: Duration,
    ask: UnboundedSender<(Instant, Vec<u8>)>,
    words: impl Fn(&Planned) -> Vec<u8>,
) -> Vec<Duration> {
    let mut sent = Vec::new();
    for one in planned {
        sleep_until(start + one.at).await;
        let now = Instant::now();
        sent.push(now - start);
        ask.send((now + distance, words(one))).unwrap();
    }
    sent
}

/// Hands what is under way to the store, in order, when it arrives.
async fn carry(mut asked: UnboundedReceiver<(Instant, Vec<u8>)>, mut speak: impl tokio::io::AsyncWrite + Unpin) {
    while let Some((due, bytes)) = asked.recv().await {
        sleep_until(due).await;
        speak.write_all(&bytes).await.unwrap();
    }
}

/// Reads the answers as the store gives them.
async fn listen_for<S: tokio::io::AsyncRead + Unpin>(
    answers: usize,
    distance: Duration,
    mut stream: BufReader<S>,
    hear: UnboundedSender<(Instant, Reason)>,
) {
    for _ in 0..answers {
        let reason = match reply(&mut stream).await.as_str() {
            "1" => Reason::Granted,
            "0" => Reason::OverLimit,
            other => panic!("the store says {other:?}"),
        };
        hear.send((Instant::now() + distance, reason)).unwrap();
    }
}

/// Takes each answer when it has come back; says when each had.
async fn collect(mut heard: UnboundedReceiver<(Instant, Reason)>, start: Instant) -> Vec<(Duration, Reason)> {
    let mut answers = Vec::new();
    while let Some((due, reason)) = heard.recv().await {
        sleep_until(due).await;
        answers.push((start.elapsed(), reason));
    }
    answers
}

/// A command in RESP.
fn command_bytes(words: &[&str]) -> Vec<u8> {
    let said: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    format!("*{}\r\n{said}", words.len()).into_bytes()
}

/// The next reply: a number, a line or a string.
async fn reply<S: tokio::io::AsyncRead + Unpin>(stream: &mut BufReader<S>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let line = line.trim_end();
    match line.split_at_checked(1) {
        Some((":" | "+", text)) => text.to_owned(),
        Some(("$", length)) => {
            let mut bytes = vec![0; length.parse::<usize>().unwrap() + 2];
            stream.read_exact(&mut bytes).await.unwrap();
            String::from_utf8(bytes).unwrap().trim_end().to_owned()
        }
        _ => panic!("the store says {line:?}"),
    }
}
