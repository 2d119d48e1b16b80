//! Redis slow, paused, gone, full, locked or full of nonsense: the node answers in time by itself and says why, and when
//! Redis is well again no charge was lost or doubled.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::command::run;
use crate::daemon::{DEADLINE, Daemon, Setup, until};
use crate::redis::{ALWAYS, check, mode, outcome, start, start_with};
use crate::redis_server::{Redis, RedisCluster};

/// As an operator would have it.
const SHORT: &str = "mode = \"always\"\ntimeout = \"50ms\"";
/// An answer within this was not held by a Redis that is paused for ever.
const PROMPT: Duration = Duration::from_secs(5);

const LIMITS: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\n";

async fn status(daemon: &Daemon) -> Value {
    daemon.get("/v1/cluster").await["redis"].clone()
}

async fn says(daemon: &Daemon, part: &str) {
    until(&format!("the status says {part:?}"), async || {
        status(daemon).await["last_error"].as_str().is_some_and(|e| e.contains(part))
    })
    .await;
}

/// Grants ten tokens of `key`, each answered at once.
async fn ten_granted(daemon: &Daemon, key: &str) {
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(check(daemon, "api", key, 1).await["allowed"], true);
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    }
}

/// Redis and the node have counted the same of `key`.
async fn agree(daemon: &Daemon, redis: &Redis, key: &str, used: f64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        check(daemon, "api", key, 0).await;
        let there = redis.used(key, "api").await;
        if (there - used).abs() < 0.05 {
            break;
        }
        let here = daemon.level(key).await;
        assert!(Instant::now() < deadline, "not {used}: Redis has counted {there}, here {here} are left");
        sleep(Duration::from_millis(20)).await;
    }
    assert!((daemon.level(key).await - (100.0 - used)).abs() < 0.05, "{}", daemon.level(key).await);
}

#[tokio::test]
async fn a_stopped_redis_delays_nobody_and_learns_what_was_granted_without_it() {
    let redis = Redis::start().await;
    let daemon = start_with("a", &format!("{LIMITS}{}", redis.section(SHORT))).await;
    ten_granted(&daemon, "k").await;
    redis.signal("STOP");
    ten_granted(&daemon, "k").await;
    until("it is not asked any more", async || mode(&daemon).await == "degraded").await;
    ten_granted(&daemon, "k").await;
    assert!(outcome(&daemon, "timeout").await >= 1 && outcome(&daemon, "skipped").await >= 10);
    says(&daemon, "no reply within 50ms").await;
    redis.signal("CONT");
    until("it is asked again", async || mode(&daemon).await == "redis").await;
    ten_granted(&daemon, "k").await;
    agree(&daemon, &redis, "k", 40.0).await;
    assert_eq!(daemon.logged("Redis fails: not asked until"), 1, "{}", daemon.log());
}

#[tokio::test]
async fn a_late_grant_that_the_node_did_not_need_is_given_back() {
    let redis = Redis::start().await;
    let daemon = start_with("a", &format!("{LIMITS}{}", redis.section(SHORT))).await;
    // Redis has the whole hundred, the node has none left: 100 spent without Redis' knowing
    let spent = json!({"limit": "api", "key": "k", "cost": 100});
    redis.ask::<()>(&["CLIENT", "PAUSE", "700", "ALL"]).await;
    assert_eq!(daemon.post("/v1/check", spent).await.unwrap()["allowed"], true);
    assert_eq!(daemon.level("k").await.round(), 0.0);
    // granted by the node while Redis was paused, and by Redis when it went on: counted once
    until("the reply has come late", async || outcome(&daemon, "late").await >= 1).await;
    until("Redis decides", async || mode(&daemon).await == "redis").await;
    agree(&daemon, &redis, "k", 100.0).await;
}

#[tokio::test]
async fn a_redis_that_is_gone_and_comes_back_empty_learns_all_again() {
    let mut redis = Redis::start().await;
    let daemon = start_with("a", &format!("{LIMITS}{}", redis.section(SHORT))).await;
    ten_granted(&daemon, "k").await;
    redis.kill().await;
    ten_granted(&daemon, "k").await;
    until("it is known to be gone", async || mode(&daemon).await == "degraded").await;
    ten_granted(&daemon, "k").await;
    redis.start_again().await;
    until("Redis decides again", async || mode(&daemon).await == "redis").await;
    ten_granted(&daemon, "k").await;
    agree(&daemon, &redis, "k", 40.0).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_of_and_shown_nowhere() {
    let redis = Redis::start_with(&["--requirepass", "right"], Some("right"), None).await;
    let section = redis.section(SHORT).replace("right", "hunter2");
    let directory = Arc::new(TempDir::new().unwrap());
    let daemon = Daemon::start(&directory, Setup::single(&format!("{LIMITS}{section}"))).await;
    says(&daemon, "does not let this node in").await;
    ten_granted(&daemon, "k").await;
    assert_eq!(mode(&daemon).await, "degraded");
    let file = directory.path().join("a.toml").display().to_string();
    let summary = run(&["config", "check", &file]).await;
    let addr = format!("http://{}", daemon.http);
    let shown = run(&["status", "--addr", &addr]).await;
    assert!(shown.out.contains("degraded") && shown.out.contains("does not let this node in"), "{shown:?}");
    // a mistake beside it is told of without it
    let broken = directory.path().join("broken.toml");
    std::fs::write(&broken, section.replace("redis://", "http://")).unwrap();
    let wrong = run(&["config", "check", &broken.display().to_string()]).await;
    assert!(wrong.err.contains("redis.url must be like"), "{wrong:?}");
    std::fs::write(&broken, section.replace("url = \"", "url = [\"").replacen("\"\n", "\"]\n", 1)).unwrap();
    let odd = run(&["config", "check", &broken.display().to_string()]).await;
    assert!(odd.err.contains("redis.url [\"redis://...@") && odd.err.contains("must be text in quotes"), "{odd:?}");
    let texts = [daemon.log(), daemon.get("/v1/cluster").await.to_string(), daemon.text("/metrics").await];
    let outcomes = [summary, shown, wrong, odd].map(|o| o.out + &o.err);
    for text in texts.iter().chain(&outcomes) {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn a_full_redis_and_foreign_values_are_told_of_and_the_node_decides() {
    let redis = Redis::start_with(&["--maxmemory-policy", "noeviction"], None, None).await;
    let daemon = start("a", &redis.section(ALWAYS)).await;
    check(&daemon, "api", "warm", 1).await;
    let key = "spillgate:spillgate:{k}:api";
    for (words, error) in
        [(vec!["HSET", key, "a", "b"], "WRONGTYPE"), (vec!["SET", key, "{\"json\": 1}"], "not spillgate's")]
    {
        redis.ask::<()>(&["DEL", key]).await;
        redis.ask::<()>(&words).await;
        let before = outcome(&daemon, "error").await;
        assert_eq!(check(&daemon, "api", "k", 1).await["allowed"], true);
        assert_eq!(outcome(&daemon, "error").await, before + 1);
        // other keys are Redis' all the same
        assert_eq!(check(&daemon, "api", "warm", 1).await["allowed"], true);
        assert_eq!(outcome(&daemon, "error").await, before + 1, "{error}");
        let kind: String = redis.ask(&["TYPE", key]).await;
        assert_ne!(kind, "none", "it is not ours to delete");
    }
    redis.ask::<()>(&["DEL", key]).await;
    assert_eq!(check(&daemon, "api", "k", 1).await["remaining"], 97, "what was granted without Redis is counted");
    assert!((redis.used("k", "api").await - 3.0).abs() < 0.01);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    ten_granted(&daemon, "k").await;
    says(&daemon, "is out of memory").await;
    assert_eq!(mode(&daemon).await, "degraded");
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    until("Redis decides again", async || mode(&daemon).await == "redis").await;
    agree(&daemon, &redis, "k", 13.0).await;
}

/// In the midst of a failover: what was a master is a replica.
#[tokio::test]
async fn a_read_only_redis_is_told_of_and_the_node_decides() {
    let redis = Redis::start().await;
    let daemon = start_with("a", &format!("{LIMITS}{}", redis.section(SHORT))).await;
    ten_granted(&daemon, "k").await;
    // of a master that is nowhere, but with what it has
    redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    ten_granted(&daemon, "k").await;
    says(&daemon, "is not ready to decide: ").await;
    assert_eq!(mode(&daemon).await, "degraded");
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    until("Redis decides again", async || mode(&daemon).await == "redis").await;
    ten_granted(&daemon, "k").await;
    agree(&daemon, &redis, "k", 30.0).await;
}

#[tokio::test]
async fn a_master_of_a_cluster_that_is_gone_costs_its_own_keys_only() {
    let mut cluster = RedisCluster::start().await;
    let limits = format!("{LIMITS}{}", cluster.section("mode = \"always\"\ntimeout = \"200ms\""));
    let daemon = start_with("a", &limits).await;
    let mut keys: [Option<String>; 3] = [const { None }; 3];
    for i in 0..100 {
        let key = format!("k{i}");
        keys[cluster.master_of(&key).await].get_or_insert(key);
    }
    let keys = keys.map(Option::unwrap);
    for key in &keys {
        assert_eq!(check(&daemon, "api", key, 10).await["remaining"], 90);
    }
    cluster.masters[2].kill().await;
    for key in &keys {
        let asked = Instant::now();
        assert_eq!(check(&daemon, "api", key, 10).await["remaining"], 80, "{key}");
        assert!(asked.elapsed() < PROMPT);
    }
}
