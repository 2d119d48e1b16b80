//! The Redis protocol through the programs and libraries that people use it with, and against clients that mean harm.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::command::run;
use crate::daemon::{DEADLINE, Daemon, Setup, meet, until};
use crate::nodes::member;

const LIMITS: &str = "[resp]\nlisten = \"127.0.0.1:0\"\n[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 1000\n";

async fn start(http: &str) -> Daemon {
    let directory = Arc::new(TempDir::new().unwrap());
    std::fs::write(directory.path().join("token"), "s3cret-s3cret").unwrap();
    Daemon::start(&directory, Setup { http: http.to_owned(), ..Setup::single(LIMITS) }).await
}

/// Runs a program that tests/run installs: what it printed, of which nothing is an error.
async fn program(name: &str, args: &[&str], library: Option<(&str, PathBuf)>) -> String {
    let mut command = Command::new(name);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true).envs(library);
    let ended = timeout(DEADLINE * 2, command.output()).await.unwrap_or_else(|_| panic!("{name} does not end"));
    let output = ended.unwrap_or_else(|e| panic!("cannot run {name}: {e}; tests/run installs it"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name} {args:?} ended with {}: {out}{err}", output.status);
    out
}

/// What redis-cli makes of the answers to a command.
async fn cli(daemon: &Daemon, args: &[&str]) -> String {
    let port = daemon.resp.unwrap().port().to_string();
    program("redis-cli", &[&["-p", &port][..], args].concat(), None).await
}

/// Where tests/run puts the clients of other languages.
fn clients(language: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients").join(language);
    assert!(directory.is_dir(), "{} is missing; tests/run installs it", directory.display());
    directory
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration").join(name).to_string_lossy().into_owned()
}

/// A connection that speaks the bytes themselves.
struct Raw(TcpStream);

impl Raw {
    async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends lines, and waits for exactly this answer.
    async fn ask(&mut self, lines: &str, answer: &str) {
        self.0.write_all(lines.as_bytes()).await.unwrap();
        let mut seen = vec![0; answer.len()];
        timeout(DEADLINE, self.0.read_exact(&mut seen)).await.expect("no answer").unwrap();
        assert_eq!(String::from_utf8_lossy(&seen), answer);
    }

    /// Waits for the end; what came before it.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // a reset is an end as well
        let _ = timeout(DEADLINE, self.0.read_to_end(&mut rest)).await.expect("still open");
        String::from_utf8_lossy(&rest).into_owned()
    }
}

#[tokio::test]
async fn redis_cli_asks_in_either_version() {
    let daemon = start("").await;
    assert_eq!(cli(&daemon, &["PING"]).await, "PONG\n");
    assert_eq!(cli(&daemon, &["CL.THROTTLE", "user:42", "15", "30", "60"]).await, "0\n16\n15\n-1\n2\n");
    assert_eq!(
        cli(&daemon, &["-3", "CL.THROTTLE", "user:42", "15", "30", "60", "17"]).await.lines().nth(3),
        Some("-1")
    );
    assert_eq!(cli(&daemon, &["THROTTLE", "user:42", "15", "30", "60"]).await, "1\n15\n14\n2\n0\n");
    let answer = cli(&daemon, &["-3", "--json", "SPILLGATE.CHECK", "api", "user 42", "5"]).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["allowed"], true, "{answer}");
    let by_http = daemon.check("user 42", 0).await;
    assert_eq!((&answer["remaining"], &answer["capacity"]), (&by_http["remaining"], &by_http["capacity"]));
    assert_eq!(by_http["remaining"], 995, "one count, whichever way it is asked");
    let members = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&answer).len(), members(&by_http).len());
    assert!(members(&by_http).iter().all(|name| answer.get(name).is_some()), "{answer} has not all of {by_http}");
    // what it asks for its help at a terminal
    let docs = cli(&daemon, &["-3", "--json", "COMMAND", "DOCS"]).await;
    let docs: serde_json::Value = serde_json::from_str(&docs).unwrap();
    assert!(docs["cl.throttle"]["summary"].as_str().unwrap().contains("redis-cell"), "{docs}");
    assert!(
        cli(&daemon, &["SPILLGATE.CHECK", "nowhere", "k"])
            .await
            .starts_with("ERR unknown limit \"nowhere\"; known are api")
    );
}

#[tokio::test]
async fn redis_benchmark_runs_and_every_check_counts_once() {
    let daemon = start("").await;
    let port = daemon.resp.unwrap().port().to_string();
    for (pipeline, key) in [("1", "one"), ("16", "sixteen"), ("300", "many")] {
        let args = ["-p", &port, "-q", "-n", "6000", "-c", "20", "-P", pipeline];
        let out =
            program("redis-benchmark", &[&args[..], &["CL.THROTTLE", key, "99999", "1", "86400"]].concat(), None).await;
        assert!(out.contains("requests per second"), "{out}");
        let left = cli(&daemon, &["CL.THROTTLE", key, "99999", "1", "86400", "0"]).await;
        // it asks once more where the last pipeline is not full
        let left: u64 = left.lines().nth(2).unwrap().parse().unwrap();
        let asked = 100_000 - left;
        let most = 6000_u64.next_multiple_of(20 * pipeline.parse::<u64>().unwrap());
        assert!((6000..=most).contains(&asked), "{asked} were counted at pipeline {pipeline}");
    }
    let out =
        program("redis-benchmark", &["-p", &port, "-q", "-n", "2000", "-t", "ping_inline,ping_mbulk"], None).await;
    assert_eq!(out.matches("requests per second").count(), 2, "{out}");
}

#[tokio::test]
async fn the_clients_of_python_work_as_they_are() {
    let library = || Some(("PYTHONPATH", clients("python")));
    for (http, token) in [("", ""), ("token_file = \"token\"", "s3cret-s3cret")] {
        let daemon = start(http).await;
        let (script, port) = (script("resp_client.py"), daemon.resp.unwrap().port().to_string());
        let args: Vec<&str> = [script.as_str(), &port, token].into_iter().filter(|a| !a.is_empty()).collect();
        assert_eq!(program("python3", &args, library()).await, "ok\n");
    }
}

#[tokio::test]
async fn the_clients_of_node_work_as_they_are() {
    let library = || Some(("NODE_PATH", clients("node").join("node_modules")));
    for (http, token) in [("", ""), ("token_file = \"token\"", "s3cret-s3cret")] {
        let daemon = start(http).await;
        let (script, port) = (script("resp_client.js"), daemon.resp.unwrap().port().to_string());
        let args: Vec<&str> = [script.as_str(), &port, token].into_iter().filter(|a| !a.is_empty()).collect();
        assert_eq!(program("node", &args, library()).await, "ok\n");
    }
}

#[tokio::test]
async fn a_callers_rule_is_one_over_the_cluster() {
    let directory = Arc::new(TempDir::new().unwrap());
    let mut daemons: Vec<Daemon> = Vec::new();
    for name in ["a", "b"] {
        let seeds = daemons.iter().filter_map(|d| d.cluster).map(|c| c.to_string()).collect();
        daemons.push(Daemon::start(&directory, Setup { seeds, ..member(&directory, name, LIMITS) }).await);
    }
    meet(&daemons).await;
    let throttle = |cost: &'static str| ["CL.THROTTLE", "k", "99", "1", "86400", cost];
    let mut granted = 0;
    until("one node has spent all", async || {
        let answer = cli(&daemons[0], &throttle("5")).await;
        granted += u64::from(answer.starts_with("0\n")) * 5;
        answer.lines().nth(2) == Some("0")
    })
    .await;
    assert_eq!(granted, 100);
    until("the other sees it", async || cli(&daemons[1], &throttle("0")).await.lines().nth(2) == Some("0")).await;
    assert!(cli(&daemons[1], &throttle("1")).await.starts_with("1\n"));
}

#[tokio::test]
async fn a_wait_ends_when_the_peers_have_confirmed() {
    let directory = Arc::new(TempDir::new().unwrap());
    let limits = LIMITS.replace("burst = 1000", "burst = 1000\nconfirm_wait = \"0s\"\naccuracy = \"strict\"");
    let mut daemons: Vec<Daemon> = Vec::new();
    for name in ["a", "b"] {
        let seeds = daemons.iter().filter_map(|d| d.cluster).map(|c| c.to_string()).collect();
        daemons.push(Daemon::start(&directory, Setup { seeds, ..member(&directory, name, &limits) }).await);
    }
    meet(&daemons).await;
    // each is most of what a node may grant in doubt, so all but the first wait; the answers keep their order
    let mut raw = Raw::connect(daemons[0].resp.unwrap()).await;
    let asked: String = (0..8).map(|i| format!("SPILLGATE.CHECK api k 100 WAIT 20000\r\nECHO {i}\r\n")).collect();
    raw.0.write_all(asked.as_bytes()).await.unwrap();
    for i in 0..8 {
        raw.ask(
            "",
            "*20\r\n$7\r\nallowed\r\n:1\r\n$5\r\nlimit\r\n$3\r\napi\r\n$3\r\nkey\r\n$1\r\nk\r\n$4\r\ncost\r\n:100\r\n",
        )
        .await;
        let end = format!("$6\r\nreason\r\n$-1\r\n$1\r\n{i}\r\n");
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            seen.push(timeout(DEADLINE, raw.0.read_u8()).await.expect("no answer").unwrap());
        }
    }
    assert_eq!(daemons[0].check("k", 0).await["remaining"], 200);
}

// on threads of their own, or the test would measure its own slowness
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_are_let_go_and_cost_no_memory_while_others_are_served() {
    let daemon = start("").await;
    let address = daemon.resp.unwrap();
    let mut polite = Raw::connect(address).await;
    polite.ask("PING\r\n", "+PONG\r\n").await;
    let before = daemon.resident_bytes();
    let mut clients = JoinSet::new();
    for i in 0..200 {
        clients.spawn(async move {
            let mut raw = Raw::connect(address).await;
            let bytes = match i % 5 {
                // nests, claims, trickles, asks and never listens, babbles
                0 => b"*1\r\n".repeat(100_000),
                1 => b"*2\r\n$4\r\nECHO\r\n$2147483647\r\n".to_vec(),
                2 => b"*2\r\n$4\r\nECHO\r\n$10000\r\n".to_vec(),
                3 => b"COMMAND DOCS\r\n".repeat(100_000),
                _ => (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> (i % 24)) as u8).collect(),
            };
            // as much of it as is taken
            let _ = timeout(Duration::from_secs(2), raw.0.write_all(&bytes)).await;
            if i % 5 < 2 {
                assert!(raw.rest().await.starts_with("-ERR Protocol error: "));
            }
            raw
        });
    }
    let start = Instant::now();
    let mut open = Vec::new();
    while !clients.is_empty() {
        tokio::select! {
            client = clients.join_next() => open.extend(client.map(Result::unwrap)),
            () = sleep(Duration::from_millis(20)) => {
                let asked = Instant::now();
                polite.ask("CL.THROTTLE polite 100000 1 86400\r\n", "*5\r\n:0\r\n").await;
                let mut rest = [0; 64];
                assert!(timeout(DEADLINE, polite.0.read(&mut rest)).await.unwrap().unwrap() > 0);
                assert!(asked.elapsed() < Duration::from_secs(2), "an answer took {:?}", asked.elapsed());
            }
        }
        assert!(start.elapsed() < DEADLINE * 2, "the hostile ones do not end");
    }
    // forty that never listen hold an answer of the bound each, and the others less than that
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    assert_eq!(daemon.logged("panicked"), 0);
    drop(open);
    until("all but one are gone", async || daemon.text("/metrics").await.contains("\nspillgate_resp_connections 1\n"))
        .await;
}

#[tokio::test]
async fn a_token_keeps_strangers_out_and_a_stop_ends_idle_clients() {
    let mut daemon = start("token_file = \"token\"").await;
    let mut raw = Raw::connect(daemon.resp.unwrap()).await;
    raw.ask("CL.THROTTLE k 1 1 60\r\n", "-NOAUTH Authentication required").await;
    let mut raw = Raw::connect(daemon.resp.unwrap()).await;
    raw.ask("AUTH s3cret-s3cret\r\nCL.THROTTLE k 1 1 60\r\n", "+OK\r\n*5\r\n:0\r\n:2\r\n:1\r\n:-1\r\n:60\r\n").await;
    daemon.stop().await;
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn a_draining_node_says_so_and_metrics_tell_what_was_asked() {
    let daemon = start("").await;
    let mut raw = Raw::connect(daemon.resp.unwrap()).await;
    raw.ask("CL.THROTTLE k 1 1 60\r\nTHROTTLE k 1 1\r\n", "*5\r\n:0\r\n:2\r\n:1\r\n:-1\r\n:60\r\n-ERR wrong number")
        .await;
    let metrics = daemon.text("/metrics").await;
    for line in [
        "spillgate_resp_connections 1",
        "spillgate_resp_commands_total{command=\"cl.throttle\"} 1",
        "spillgate_resp_commands_total{command=\"throttle\"} 1",
        "spillgate_resp_errors_total 1",
        "spillgate_checks_total{limit=\"(other)\",outcome=\"allowed\"} 1",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "no {line} in {metrics}");
    }
    daemon.post("/v1/drain", json!({})).await.unwrap();
    let mut raw = Raw::connect(daemon.resp.unwrap()).await;
    raw.ask("CL.THROTTLE k 1 1 60\r\n", "-DRAINING this node is draining").await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let outcome = run(&["serve", "--http", "127.0.0.1:0", "--resp", &address, "--limit", "api=1/s"]).await;
    outcome.assert_fails(3, &["could not start", &address, "in use", "--resp or [resp] listen"]);
}
