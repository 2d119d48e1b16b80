//! The commands that ask a daemon, and those that need none: exit codes, text and JSON.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{Outcome, run, run_in};
use crate::daemon::{Daemon, Setup, start_cluster, until};

const LIMITS: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\nreserve = { low = 0.2 }\n\
                      [[limit]]\nname = \"quick\"\nrate = \"20/s\"\nburst = 1\n";

/// Runs commands against one daemon, by its address.
struct Subject {
    daemon: Daemon,
    address: String,
}

impl Subject {
    async fn start() -> Self {
        let daemon = Daemon::start(&Arc::new(TempDir::new().unwrap()), Setup::single(LIMITS)).await;
        let address = format!("http://{}", daemon.http);
        Self { daemon, address }
    }

    async fn run(&self, args: &[&str]) -> Outcome {
        run(&[args, &["--addr", &self.address]].concat()).await
    }
}

#[tokio::test]
async fn the_exit_code_of_a_check_is_its_answer() {
    let subject = Subject::start().await;
    let allowed = subject.run(&["check", "api", "user:42", "--cost", "30"]).await.good();
    assert_eq!(allowed, "allowed: 70 of 100 left, all of it again in 30.0 h\n");
    let denied = subject.run(&["check", "api", "user:42", "--cost=71"]).await;
    assert_eq!((denied.code, denied.err.as_str()), (1, ""));
    assert_eq!(denied.out, "denied (over_limit), retry in 60 min: 70 of 100 left, all of it again in 30.0 h\n");
    let low = subject.run(&["check", "api", "user:42", "--cost", "51", "--priority", "low"]).await;
    assert_eq!((low.code, low.out.starts_with("denied (over_limit)")), (1, true), "{}", low.out);
    // one that waits for its token gets it
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(subject.run(&["check", "quick", "k", "--wait", "10s"]).await.code);
    }
    assert_eq!(codes, [0, 0, 0]);
    for (args, parts) in [
        (&["check", "apii", "k"][..], &["unknown limit \"apii\"", "known are api, quick", "404"][..]),
        (&["check", "api", ""], &["the key has 0 bytes"]),
        (&["check", "api", "k", "--cost", "101"], &["can never be granted", "422"]),
        (&["check", "api", "k", "--cost", "1000000001"], &["--cost", "1000000001"]),
        (&["check", "api", "k", "--wait", "61s"], &["wait_ms 61000"]),
        (&["check", "api", "k", "--wait", "soon"], &["--wait", "soon"]),
        (&["check", "api", "k", "--priority", "lowest"], &["no priority \"lowest\""]),
        (&["check", "api"], &["<KEY>"]),
    ] {
        subject.run(args).await.assert_fails(2, parts);
    }
    assert_eq!(subject.daemon.check("user:42", 0).await["remaining"], 70);
}

#[tokio::test]
async fn looking_giving_back_and_starting_afresh() {
    let subject = Subject::start().await;
    subject.daemon.check("k", 60).await;
    let peek = || async { subject.run(&["peek", "api", "k"]).await.good() };
    assert_eq!(peek().await, "40 of 100 left, all of it again in 2.5 d\n");
    assert_eq!(peek().await, "40 of 100 left, all of it again in 2.5 d\n");
    let refund = subject.run(&["refund", "api", "k", "--cost", "10"]).await.good();
    assert_eq!(refund, "gave back 10: 50 of 100 left\n");
    assert_eq!(subject.run(&["refund", "api", "k"]).await.good(), "gave back 1: 51 of 100 left\n");
    assert_eq!(subject.run(&["reset", "api", "k"]).await.good(), "gave back 49: 100 of 100 left\n");
    subject.run(&["refund", "api", "k", "--cost", "0"]).await.assert_fails(2, &["--cost"]);
    subject.run(&["reset", "apii", "k"]).await.assert_fails(2, &["unknown limit"]);
}

#[tokio::test]
async fn json_is_the_daemons_own_on_one_line() {
    let subject = Subject::start().await;
    let printed = subject.run(&["check", "api", "k", "--cost", "30", "--json"]).await.good();
    let expected = r#"{"allowed":true,"limit":"api","key":"k","cost":30,"capacity":100,"remaining":70,"retry_after_ms":0,"reset_after_ms":108000000,"delay_ms":0,"reason":null}"#;
    assert_eq!(printed, format!("{expected}\n"));
    let denied = subject.run(&["check", "api", "k", "--cost", "71", "--json"]).await;
    let json: Value = serde_json::from_str(&denied.out).unwrap();
    assert_eq!((denied.code, &json["reason"]), (1, &json!("over_limit")));
    for (args, member) in [
        (&["peek", "api", "k"][..], "remaining"),
        (&["refund", "api", "k"], "refunded"),
        (&["reset", "api", "k"], "refunded"),
        (&["status"], "cluster"),
    ] {
        let printed = subject.run(&[args, &["--json"]].concat()).await.good();
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(!serde_json::from_str::<Value>(&printed).unwrap()[member].is_null(), "{printed}");
    }
}

#[tokio::test]
async fn a_daemon_is_found_by_url_socket_and_variable_and_let_in_by_its_token() {
    let directory = Arc::new(TempDir::new().unwrap());
    std::fs::write(directory.path().join("token"), "s3cret-s3cret\n").unwrap();
    std::fs::write(directory.path().join("wrong"), "other\n").unwrap();
    let http = "unix = \"api.sock\"\ntoken_file = \"token\"".to_owned();
    let daemon = Daemon::start(&directory, Setup { http, ..Setup::single(LIMITS) }).await;
    let tcp = daemon.http.to_string();
    let by_path = format!("unix:{}", directory.path().join("api.sock").display());
    for address in [&*format!("http://{tcp}"), &tcp, "unix:api.sock", &by_path] {
        let args = ["check", "api", "k", "--token-file", "token", "--addr", address];
        assert!(run_in(directory.path(), &args).await.good().starts_with("allowed: "), "{address}");
    }
    assert_eq!(run_in(directory.path(), &["check", "api", "k", "--addr", &tcp]).await.code, 2);
    let args = ["check", "api", "k", "--addr", &tcp, "--token-file"];
    for (file, part) in [("wrong", "token is wrong"), ("absent", "cannot read token file \"absent\"")] {
        run_in(directory.path(), &[&args[..], &[file]].concat()).await.assert_fails(2, &[part]);
    }
    let mut by_variable = crate::command::command(&["peek", "api", "k"]);
    by_variable.env("SPILLGATE_ADDR", &tcp).env("SPILLGATE_TOKEN_FILE", directory.path().join("token"));
    let ended = by_variable.output().await.unwrap();
    assert_eq!((ended.status.code(), ended.stdout.starts_with(b"96 of 100 left")), (Some(0), true), "{ended:?}");
    let nobody = ["peek", "api", "k", "--addr", "unix:nobody.sock"];
    run_in(directory.path(), &nobody).await.assert_fails(2, &["unix:nobody.sock", "is `spillgate serve` running?"]);
    run(&["peek", "api", "k", "--addr", "https://x"]).await.assert_fails(2, &["https://x", "is not like http://"]);
}

#[tokio::test]
async fn status_shows_the_cluster_the_limits_and_the_keys() {
    let daemons = start_cluster(2, LIMITS).await;
    for _ in 0..2 {
        // more than a node's share is granted once the other has heard of its demand
        let body = json!({"limit": "api", "key": "much", "cost": 45, "wait_ms": 10_000});
        assert_eq!(daemons[0].post("/v1/check", body).await.unwrap()["allowed"], true);
    }
    daemons[0].check("steer\u{1b}[2Jing", 1).await;
    until("one was denied", async || daemons[0].check("much", 50).await["allowed"] == false).await;
    let shown = run(&["status", "--addr", &format!("http://{}", daemons[0].http)]).await.good();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let has = |start: &[&str]| {
        shown.lines().any(|l| words(l).iter().zip(start).filter(|(a, b)| a == b).count() == start.len())
    };
    assert!(shown.starts_with("node a, cluster test, ready, up "), "{shown}");
    for line in [
        &["MEMBER", "STATE", "ADDRESS"][..],
        &["a", "(this)", "alive"],
        &["b", "alive", &daemons[1].cluster.unwrap().to_string()],
        &["LIMIT", "ALGORITHM", "RATE", "CAPACITY", "ACCURACY"],
        &["api", "token-bucket", "1/h", "100", "bounded", "5%"],
        &["quick", "token-bucket", "20/s", "1", "bounded", "5%"],
        &["HOTTEST", "KEYS"],
        &["much", "api", "90"],
        &["MOST", "DENIED", "KEYS"],
    ] {
        assert!(has(line), "{line:?} is not in\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[tokio::test]
async fn configurations_are_checked_and_described() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("good.toml");
    std::fs::write(&file, "node.id = \"a\"\n[[limit]]\nname = \"api\"\nrate = \"100/s\"\n").unwrap();
    let shown = run_in(directory.path(), &["config", "check", "good.toml"]).await.good();
    assert!(shown.contains("limit    api: token-bucket 100/s, burst 100, bounded 5%"), "{shown}");
    std::fs::write(&file, "node.id = \"a\"\n[[limit]]\nname = \"api\"\nrat = \"100/s\"\n").unwrap();
    let parts = ["good.toml:4: ", "rat is not a known key; did you mean \"rate\"?", "good.toml:2: ", "rate is missing"];
    run_in(directory.path(), &["config", "check", "good.toml"]).await.assert_fails(2, &parts);
    run_in(directory.path(), &["config", "check", "absent.toml"]).await.assert_fails(2, &["absent.toml: cannot read"]);
    let schema: Value = serde_json::from_str(&run(&["config", "schema"]).await.good()).unwrap();
    assert_eq!(schema["type"], "object");
    for section in ["node", "http", "cluster", "limit"] {
        assert!(!schema["properties"][section].is_null(), "{section}");
    }
}

#[tokio::test]
async fn a_secret_is_new_each_time_and_good_enough() {
    let (one, two) = (run(&["secret"]).await.good(), run(&["secret"]).await.good());
    assert_ne!(one, two);
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("secret"), one).unwrap();
    let config = "[cluster]\nsecret_file = \"secret\"\n";
    std::fs::write(directory.path().join("a.toml"), config).unwrap();
    assert!(run_in(directory.path(), &["config", "check", "a.toml"]).await.good().contains("cluster  spillgate on"));
}

#[tokio::test]
async fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).await.good();
        for word in ["serve", "demo", "check", "peek", "refund", "reset", "status", "config", "secret", "token-file"] {
            assert!(script.contains(word), "{word} in {shell}");
        }
    }
    // where the shells are there, they must take the scripts
    for (shell, check) in [("bash", &["-n"][..]), ("zsh", &["-n"]), ("fish", &["--no-execute"])] {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("script");
        std::fs::write(&file, run(&["completions", shell]).await.good()).unwrap();
        let Ok(checked) = std::process::Command::new(shell).args(check).arg(&file).output() else { continue };
        assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    run(&["completions", "tcsh"]).await.assert_fails(2, &["tcsh", "bash"]);
}

#[tokio::test]
async fn every_command_explains_itself() {
    let commands = ["serve", "demo", "check", "peek", "refund", "reset", "status", "config", "secret", "completions"];
    let all = run(&["--help"]).await.good();
    for command in commands {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in\n{all}");
        let help = run(&[command, "--help"]).await.good();
        assert!(help.contains(&format!("Usage: spillgate {command}")), "{help}");
        assert!(help.lines().all(|l| l.chars().count() <= 120), "{help}");
        if command != "config" {
            assert!(help.contains("Example"), "{help}");
        }
    }
    for command in ["check", "schema"] {
        assert!(run(&["config", command, "--help"]).await.good().contains("Example"));
    }
    assert_eq!(run(&["--version"]).await.good(), format!("spillgate {}\n", env!("CARGO_PKG_VERSION")));
    for (args, parts) in [
        (&[][..], &["Usage: spillgate"][..]),
        (&["chekc"], &["unrecognized subcommand 'chekc'", "check"]),
        (&["check", "api", "k", "--costs", "1"], &["--costs", "--cost"]),
        (&["serve", "--http", "localhost"], &["--http", "localhost"]),
        (&["demo", "--nodes", "0"], &["--nodes", "0"]),
        (&["status", "extra"], &["extra"]),
    ] {
        run(args).await.assert_fails(2, parts);
    }
}
