//! Redis decides every check: one limit over daemons that know nothing of each other, by each algorithm, on one server
//! and on a cluster, with TLS and a password.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::daemon::{Daemon, Setup, until};
use crate::redis_server::{Redis, RedisCluster, certificates};

/// Far longer than a reply takes on a machine that is not stuck: here Redis is to decide whatever the machine does.
pub const ALWAYS: &str = "mode = \"always\"\ntimeout = \"5s\"";

const LIMITS: &str = "
[[limit]]
name = \"api\"
rate = \"1/h\"
burst = 100
[[limit]]
name = \"token-bucket\"
rate = \"60/d\"
burst = 60
[[limit]]
name = \"leaky-bucket\"
algorithm = \"leaky-bucket\"
rate = \"60/d\"
burst = 60
[[limit]]
name = \"fixed-window\"
algorithm = \"fixed-window\"
rate = \"60/300d\"
[[limit]]
name = \"sliding-window\"
algorithm = \"sliding-window\"
rate = \"60/300d\"
[[limit]]
name = \"dry\"
rate = \"1/h\"
burst = 1
enforce = false
[[limit]]
name = \"kept\"
rate = \"1/h\"
burst = 10
reserve = { low = 0.5 }
";

/// A single node that asks this Redis.
pub async fn start(name: &str, section: &str) -> Daemon {
    start_with(name, &format!("{LIMITS}{section}")).await
}

/// The same with other limits; returns when Redis decides.
pub async fn start_with(name: &str, limits: &str) -> Daemon {
    let directory = Arc::new(TempDir::new().unwrap());
    let setup = Setup { name: name.to_owned(), ..Setup::single(limits) };
    let daemon = Daemon::start(&directory, setup).await;
    until("Redis decides", async || mode(&daemon).await == "redis").await;
    daemon
}

/// How it decides now.
pub async fn mode(daemon: &Daemon) -> String {
    daemon.get("/v1/cluster").await["mode"].as_str().unwrap().to_owned()
}

/// A number of its metrics.
pub async fn metric(daemon: &Daemon, sample: &str) -> u64 {
    let text = daemon.text("/metrics").await;
    let value = text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse::<f64>().ok());
    value.unwrap_or_else(|| panic!("{sample} is not in\n{text}")) as u64
}

pub async fn outcome(daemon: &Daemon, outcome: &str) -> u64 {
    metric(daemon, &format!("spillgate_redis_requests_total{{outcome=\"{outcome}\"}}")).await
}

pub async fn check(daemon: &Daemon, limit: &str, key: &str, cost: u64) -> Value {
    let body = json!({"limit": limit, "key": key, "cost": cost});
    daemon.post("/v1/check", body).await.unwrap_or_else(|e| panic!("check at {}: {e}", daemon.name))
}

/// Asks all of them for one token at a time, several at once, until each has refused; how many were granted.
async fn exhaust_together(daemons: &[Daemon], limit: &'static str) -> u64 {
    let mut asking = JoinSet::new();
    for daemon in daemons.iter().chain(daemons).chain(daemons) {
        let client = daemon.client();
        asking.spawn(async move {
            let mut granted = 0;
            loop {
                let body = json!({"limit": limit, "key": "k"});
                let answer = client.post("/v1/check", &body, std::time::Duration::from_secs(10)).await.unwrap();
                if answer["allowed"] == false {
                    assert_eq!(answer["reason"], "over_limit", "{answer}");
                    return granted;
                }
                granted += 1;
            }
        });
    }
    asking.join_all().await.into_iter().sum()
}

#[tokio::test]
async fn each_algorithm_is_one_limit_over_nodes_that_know_nothing_of_each_other() {
    let redis = Redis::start().await;
    let daemons = [start("a", &redis.section(ALWAYS)).await, start("b", &redis.section(ALWAYS)).await];
    for limit in ["token-bucket", "leaky-bucket", "fixed-window", "sliding-window"] {
        assert_eq!(exhaust_together(&daemons, limit).await, 60, "{limit}");
        // and both know it of Redis alone
        let left = [check(&daemons[0], limit, "k", 0).await, check(&daemons[1], limit, "k", 0).await];
        assert_eq!(left.map(|l| l["remaining"].as_u64().unwrap()), [0, 0], "{limit}");
    }
    let keys: Vec<String> = redis.ask(&["KEYS", "spillgate:*"]).await;
    assert_eq!(keys.len(), 5, "four limits and the register of nodes: {keys:?}");
    for key in keys {
        let life: i64 = redis.ask(&["PTTL", &key]).await;
        assert!(life > 0, "{key} would stay for ever");
    }
    for daemon in &daemons {
        assert_eq!((outcome(daemon, "error").await, outcome(daemon, "timeout").await), (0, 0));
        assert_eq!(metric(daemon, "spillgate_mode{mode=\"redis\"}").await, 1);
    }
}

#[tokio::test]
async fn an_answer_of_redis_reads_like_any_other() {
    let redis = Redis::start().await;
    let daemon = start("a", &redis.section(ALWAYS)).await;
    let answer = check(&daemon, "api", "k", 30).await;
    let expected = json!({
        "allowed": true, "limit": "api", "key": "k", "cost": 30, "capacity": 100, "remaining": 70, "retry_after_ms": 0,
        "reset_after_ms": 30 * 3_600_000, "delay_ms": 0, "reason": null,
    });
    assert_eq!(answer, expected);
    let answer = check(&daemon, "api", "k", 71).await;
    assert_eq!((&answer["allowed"], &answer["remaining"]), (&json!(false), &json!(70)), "{answer}");
    // the 71st token comes within the hour
    assert!(answer["retry_after_ms"].as_u64().is_some_and(|ms| ms > 3_500_000 && ms <= 3_600_000), "{answer}");
    // a peek takes nothing and leaves nothing
    assert_eq!(check(&daemon, "api", "new", 0).await["remaining"], 100);
    assert_eq!(redis.used("new", "api").await, 0.0);
    // what can never be granted is not asked for
    assert!(daemon.post("/v1/check", json!({"limit": "api", "key": "k", "cost": 101})).await.is_err());
    assert!((redis.used("k", "api").await - 30.0).abs() < 0.01);
    // a dry run is allowed and takes what there is
    for (remaining, reason) in [(0, Value::Null), (0, json!("over_limit"))] {
        let answer = check(&daemon, "dry", "k", 1).await;
        assert_eq!(
            (&answer["allowed"], &answer["remaining"], &answer["reason"]),
            (&json!(true), &json!(remaining), &reason)
        );
    }
    // a reserve is kept
    let low = |cost: u64| json!({"limit": "kept", "key": "k", "cost": cost, "priority": "low"});
    assert_eq!(daemon.post("/v1/check", low(4)).await.unwrap()["remaining"], 6);
    assert_eq!(daemon.post("/v1/check", low(2)).await.unwrap()["allowed"], false);
    assert_eq!(check(&daemon, "kept", "k", 2).await["allowed"], true);
    // a caller's own limit
    let own = json!({"limit": {"name": "api", "rate": "1/h", "burst": 5}, "key": "k", "cost": 5});
    assert_eq!(daemon.post("/v1/check", own.clone()).await.unwrap()["allowed"], true, "its own name space");
    assert_eq!(daemon.post("/v1/check", own).await.unwrap()["allowed"], false);
}

#[tokio::test]
async fn what_redis_granted_is_in_the_counters_once() {
    let redis = Redis::start().await;
    let daemon = start("a", &redis.section(ALWAYS)).await;
    check(&daemon, "api", "k", 30).await;
    check(&daemon, "api", "k", 80).await;
    check(&daemon, "fixed-window", "k", 7).await;
    assert_eq!(daemon.level("k").await.round(), 70.0);
    assert_eq!(daemon.get("/v1/keys/fixed-window/k").await["level"], 53.0);
    let granted = daemon.get("/v1/top?by=granted&n=5").await["keys"].clone();
    assert_eq!((&granted[0]["granted"], &granted[0]["denied"]), (&json!(30), &json!(1)), "{granted}");
}

#[tokio::test]
async fn tokens_given_back_are_given_back_in_redis() {
    let redis = Redis::start().await;
    let daemons = [start("a", &redis.section(ALWAYS)).await, start("b", &redis.section(ALWAYS)).await];
    check(&daemons[0], "api", "k", 60).await;
    let refund = json!({"limit": "api", "key": "k", "cost": 20});
    assert_eq!(daemons[0].post("/v1/refund", refund).await.unwrap()["refunded"], 20);
    until("Redis has them", async || check(&daemons[1], "api", "k", 0).await["remaining"] == 60).await;
    daemons[0].post("/v1/reset", json!({"limit": "api", "key": "k"})).await.unwrap();
    until("Redis has all of them", async || check(&daemons[1], "api", "k", 0).await["remaining"] == 100).await;
}

#[tokio::test]
async fn a_request_may_wait_for_redis_to_have_tokens_again() {
    let redis = Redis::start().await;
    let limits = format!("[[limit]]\nname = \"api\"\nrate = \"20/s\"\nburst = 1\n{}", redis.section(ALWAYS));
    let daemon = start_with("a", &limits).await;
    for _ in 0..5 {
        let waits = json!({"limit": "api", "key": "k", "wait_ms": 20_000});
        assert_eq!(daemon.post("/v1/check", waits).await.unwrap()["allowed"], true);
    }
}

#[tokio::test]
async fn several_limits_are_granted_all_or_none_on_one_server() {
    let redis = Redis::start().await;
    let daemon = start("a", &redis.section(ALWAYS)).await;
    let all = async |cost: u64| {
        let checks = json!([
            {"limit": "api", "key": "k", "cost": 10},
            {"limit": "fixed-window", "key": "other", "cost": cost},
            {"limit": "leaky-bucket", "key": "third", "cost": 1},
            {"limit": "api", "key": "k", "cost": 10},
        ]);
        daemon.post("/v1/checks", json!({"mode": "all", "checks": checks})).await.unwrap()
    };
    let answer = all(50).await;
    assert_eq!(answer["allowed"], true, "{answer}");
    assert_eq!(answer["results"][3]["remaining"], 80);
    let answer = all(11).await;
    let reasons: Vec<&Value> = answer["results"].as_array().unwrap().iter().map(|r| &r["reason"]).collect();
    assert_eq!(
        (&answer["allowed"], reasons),
        (&json!(false), vec![&Value::Null, &json!("over_limit"), &Value::Null, &Value::Null])
    );
    // nothing of it is left behind, here or there
    assert_eq!(check(&daemon, "api", "k", 0).await["remaining"], 80);
    assert_eq!(check(&daemon, "fixed-window", "other", 0).await["remaining"], 10);
    assert_eq!(check(&daemon, "leaky-bucket", "third", 0).await["remaining"], 59);
    assert_eq!(daemon.level("k").await.round(), 80.0);
    // each by itself
    let checks = json!([{"limit": "api", "key": "k", "cost": 90}, {"limit": "api", "key": "k", "cost": 5}]);
    let answer = daemon.post("/v1/checks", json!({"checks": checks})).await.unwrap();
    assert_eq!((&answer["results"][0]["allowed"], &answer["results"][1]["allowed"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn a_flushed_script_is_loaded_again() {
    let redis = Redis::start().await;
    let daemon = start("a", &redis.section(ALWAYS)).await;
    for granted in 1..=5 {
        redis.ask::<()>(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(check(&daemon, "api", "k", 1).await["remaining"], 100 - granted);
    }
    assert_eq!((outcome(&daemon, "allowed").await, outcome(&daemon, "error").await), (5, 0));
}

#[tokio::test]
async fn a_password_and_tls_let_it_in() {
    let directory = TempDir::new().unwrap();
    let (authority, [ca, certificate, key]) = certificates(directory.path());
    let tls = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let arguments: Vec<&str> =
        tls.into_iter().chain(["--tls-auth-clients", "no", "--requirepass", "hunter2"]).collect();
    let redis = Redis::start_with(&arguments, Some("hunter2"), Some(authority)).await;
    let trusted = format!("{ALWAYS}\nca_file = \"{ca}\"");
    let by_url = start("a", &redis.section(&trusted)).await;
    assert_eq!(check(&by_url, "api", "k", 30).await["remaining"], 70);
    // the password from a file of its own
    let password = directory.path().join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let section = redis.section(&format!("{trusted}\npassword_file = {password:?}")).replace(":hunter2@", "");
    let by_file = start("b", &section).await;
    assert_eq!(check(&by_file, "api", "k", 30).await["remaining"], 40);
    // whom the certificate's authority is a stranger to
    let setup = Setup::single(&format!("{LIMITS}{}", redis.section(ALWAYS)));
    let stranger = Daemon::start(&Arc::new(TempDir::new().unwrap()), setup).await;
    let error =
        async || stranger.get("/v1/cluster").await["redis"]["last_error"].as_str().unwrap_or_default().to_owned();
    until("it says why", async || error().await.to_lowercase().contains("certificate")).await;
    assert_eq!(check(&stranger, "api", "k", 30).await["remaining"], 70, "it decides by itself");
    for daemon in [&by_url, &by_file, &stranger] {
        let status = daemon.get("/v1/cluster").await.to_string();
        assert!(!daemon.log().contains("hunter2") && !status.contains("hunter2"), "{status}\n{}", daemon.log());
    }
}

#[tokio::test]
async fn a_redis_cluster_keeps_one_limit_on_each_key_and_all_or_none_where_keys_share_a_slot() {
    let cluster = RedisCluster::start().await;
    let daemons = [start("a", &cluster.section(ALWAYS)).await, start("b", &cluster.section(ALWAYS)).await];
    assert_eq!(daemons[0].get("/v1/cluster").await["redis"]["cluster"], true);
    let mut seen = [0; 3];
    for i in 0..30 {
        let key = format!("k{i}");
        assert_eq!(check(&daemons[i % 2], "api", &key, 60).await["allowed"], true);
        assert_eq!(check(&daemons[(i + 1) % 2], "api", &key, 60).await["allowed"], false, "{key}");
        seen[cluster.master_of(&key).await] += 1;
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
    assert_eq!(exhaust_together(&daemons, "token-bucket").await, 60);
    // limits of one key share a slot: one script
    let both = |other: &str, cost: u64| {
        json!({"mode": "all", "checks": [
            {"limit": "fixed-window", "key": "k0", "cost": 10},
            {"limit": "api", "key": other, "cost": cost},
        ]})
    };
    assert_eq!(daemons[0].post("/v1/checks", both("k0", 40)).await.unwrap()["allowed"], true);
    assert_eq!(daemons[0].post("/v1/checks", both("k0", 1)).await.unwrap()["allowed"], false);
    assert_eq!(check(&daemons[1], "fixed-window", "k0", 0).await["remaining"], 50);
    assert_eq!((outcome(&daemons[0], "split").await, daemons[0].logged("not decided at one moment")), (0, 0));
    // keys that share none are decided one after the other, and it says so; nothing is left behind all the same
    let far = (1..30).map(|i| format!("k{i}"));
    let mut apart = None;
    for key in far {
        if cluster.master_of(&key).await != cluster.master_of("k0").await {
            apart = Some(key);
        }
    }
    let apart = apart.unwrap();
    assert_eq!(daemons[0].post("/v1/checks", both(&apart, 40)).await.unwrap()["allowed"], true);
    let answer = daemons[0].post("/v1/checks", both(&apart, 1)).await.unwrap();
    assert_eq!(
        (&answer["allowed"], &answer["results"][1]["reason"]),
        (&json!(false), &json!("over_limit")),
        "{answer}"
    );
    until("it is given back", async || check(&daemons[1], "fixed-window", "k0", 0).await["remaining"] == 40).await;
    assert_eq!((outcome(&daemons[0], "split").await, daemons[0].logged("not decided at one moment")), (2, 1));
}

#[tokio::test]
async fn a_slot_that_moves_loses_no_count() {
    let cluster = RedisCluster::start().await;
    let daemon = start("a", &cluster.section(ALWAYS)).await;
    assert_eq!(check(&daemon, "api", "moves", 60).await["remaining"], 40);
    let from = cluster.master_of("moves").await;
    let (old, new) = (&cluster.masters[from], &cluster.masters[(from + 1) % 3]);
    let slot: u16 = old.ask(&["CLUSTER", "KEYSLOT", "moves"]).await;
    let slot = slot.to_string();
    let ids: [String; 2] = [old.ask(&["CLUSTER", "MYID"]).await, new.ask(&["CLUSTER", "MYID"]).await];
    new.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]).await;
    old.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]).await;
    let keys: Vec<String> = old.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await;
    for key in &keys {
        old.ask::<String>(&["MIGRATE", "127.0.0.1", &new.port.to_string(), key, "0", "5000"]).await;
    }
    // the old master says ASK
    assert_eq!(check(&daemon, "api", "moves", 10).await["remaining"], 30);
    for master in [new, old] {
        master.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[1]]).await;
    }
    // and now MOVED
    assert_eq!(check(&daemon, "api", "moves", 10).await["remaining"], 20);
    assert_eq!((outcome(&daemon, "allowed").await, outcome(&daemon, "error").await), (3, 0));
}
