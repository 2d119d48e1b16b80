//! The whole API on several nodes that are one: what is done at one holds at all.

use serde_json::{Value, json};

use crate::daemon::{Daemon, start_cluster, until};
use crate::nodes::{all_see, exhaust, spend};

const LIMITS: &str = r#"
[[limit]]
name = "api"
rate = "1/h"
burst = 100
reserve = { low = 0.2 }
  [[limit.override]]
  key = "premium-*"
  rate = "2/h"
  burst = 1000

[[limit]]
name = "dry"
rate = "1/h"
burst = 10
enforce = false

[[limit]]
name = "small"
rate = "1/h"
burst = 10

[[limit]]
name = "fast"
rate = "20/s"
burst = 20
accuracy = "strict"
confirm_wait = "0s"

[[limit]]
name = "patient"
rate = "1/h"
burst = 300
accuracy = "strict"
confirm_wait = "2s"
"#;

async fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let answer = daemon.post(path, body.clone()).await;
    answer.unwrap_or_else(|e| panic!("{path} {body} at {}: {e}", daemon.name))
}

async fn level(daemon: &Daemon, limit: &str, key: &str) -> f64 {
    daemon.get(&format!("/v1/keys/{limit}/{key}")).await["level"].as_f64().unwrap().round()
}

#[tokio::test]
async fn a_refund_and_a_reset_reach_the_peers() {
    let daemons = start_cluster(3, LIMITS).await;
    spend(&daemons[0], "k", 50).await;
    spend(&daemons[1], "k", 10).await;
    all_see(&daemons, "k", 40.0).await;
    // given back at another node than the one that granted it
    let answer = post(&daemons[2], "/v1/refund", json!({"limit": "api", "key": "k", "cost": 25})).await;
    assert_eq!((&answer["refunded"], &answer["remaining"]), (&25.into(), &65.into()), "{answer}");
    all_see(&daemons, "k", 65.0).await;
    let answer = post(&daemons[1], "/v1/reset", json!({"limit": "api", "key": "k"})).await;
    assert_eq!((&answer["refunded"], &answer["remaining"]), (&35.into(), &100.into()), "{answer}");
    all_see(&daemons, "k", 100.0).await;
    // a full bucket takes nothing more back
    let answer = post(&daemons[0], "/v1/refund", json!({"limit": "api", "key": "k", "cost": 5})).await;
    assert_eq!(answer["remaining"], 100, "{answer}");
    spend(&daemons[0], "k", 60).await;
    all_see(&daemons, "k", 40.0).await;
}

#[tokio::test]
async fn a_limit_that_callers_bring_is_one_limit_at_all_nodes() {
    let daemons = start_cluster(3, LIMITS).await;
    let rule = json!({"name": "mine", "rate": "1/h", "burst": 90});
    let check = |cost: u64| json!({"limit": rule, "key": "k", "cost": cost, "wait_ms": 2000});
    for daemon in &daemons {
        assert_eq!(post(daemon, "/v1/check", check(20)).await["allowed"], true);
    }
    for daemon in &daemons {
        until("all know of 60", async || post(daemon, "/v1/check", check(0)).await["remaining"] == 30).await;
    }
    assert_eq!(post(&daemons[0], "/v1/check", check(31)).await["reason"], "over_limit");
    // a configured limit of the same name would be another one
    let error = daemons[0].post("/v1/check", json!({"limit": "mine", "key": "k"})).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test]
async fn an_override_holds_at_all_nodes() {
    let daemons = start_cluster(2, LIMITS).await;
    spend(&daemons[0], "premium-1", 150).await;
    all_see(&daemons, "premium-1", 850.0).await;
    let answer = daemons[1].check("premium-1", 0).await;
    assert_eq!((&answer["capacity"], &answer["remaining"]), (&1000.into(), &850.into()), "{answer}");
    assert_eq!(daemons[1].check("premium", 0).await["capacity"], 100);
}

#[tokio::test]
async fn what_is_reserved_is_reserved_at_all_nodes() {
    let daemons = start_cluster(2, LIMITS).await;
    spend(&daemons[0], "k", 79).await;
    all_see(&daemons, "k", 21.0).await;
    let low = json!({"limit": "api", "key": "k", "priority": "low", "wait_ms": 2000});
    let low_once = json!({"limit": "api", "key": "k", "priority": "low"});
    assert_eq!(post(&daemons[1], "/v1/check", low).await["allowed"], true);
    for daemon in &daemons {
        until("it is told", async || daemon.level("k").await.round() == 20.0).await;
        assert_eq!(post(daemon, "/v1/check", low_once.clone()).await["reason"], "over_limit");
    }
    spend(&daemons[0], "k", 5).await;
    all_see(&daemons, "k", 15.0).await;
}

#[tokio::test]
async fn a_dry_run_lets_all_through_and_counts_what_it_would_deny() {
    let daemons = start_cluster(2, LIMITS).await;
    let check = json!({"limit": "dry", "key": "k", "cost": 4});
    for _ in 0..5 {
        for daemon in &daemons {
            assert_eq!(post(daemon, "/v1/check", check.clone()).await["allowed"], true);
        }
    }
    let mut would_deny = 0.0;
    for daemon in &daemons {
        would_deny += metric(daemon, "spillgate_checks_total{limit=\"dry\",outcome=\"would_deny\"}").await;
    }
    // of ten checks of 4 tokens only two fit into 10; the second is in doubt where news of the first comes late
    assert!((8.0..=9.0).contains(&would_deny), "{would_deny}");
}

async fn metric(daemon: &Daemon, name: &str) -> f64 {
    let text = daemon.text("/metrics").await;
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_request_that_waits_gets_what_another_node_gives_back() {
    let daemons = start_cluster(2, LIMITS).await;
    exhaust(&daemons, "k").await;
    let waiting = post(&daemons[1], "/v1/check", json!({"limit": "api", "key": "k", "cost": 20, "wait_ms": 20000}));
    let giving = async {
        // not before it waits: until then a denial would be counted
        until("it waits", async || daemons[1].level("k").await < 20.0).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        post(&daemons[0], "/v1/refund", json!({"limit": "api", "key": "k", "cost": 80})).await
    };
    let (answer, _) = tokio::join!(waiting, giving);
    assert_eq!(answer["allowed"], true, "{answer}");
}

#[tokio::test]
async fn a_request_that_waits_gets_tokens_when_they_come_back() {
    let daemons = start_cluster(2, LIMITS).await;
    let check = |wait: u64| json!({"limit": "fast", "key": "k", "cost": 10, "wait_ms": wait});
    // six times ten tokens of a bucket of 20 that gains 20 a second: two seconds at least
    let start = std::time::Instant::now();
    for i in 0..6 {
        assert_eq!(post(&daemons[i % 2], "/v1/check", check(20_000)).await["allowed"], true);
    }
    assert!(start.elapsed().as_secs_f64() >= 2.0, "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_answer_waits_for_confirmation_as_long_as_the_limit_says() {
    let daemons = start_cluster(3, LIMITS).await;
    let take = |limit: &str| json!({"limit": limit, "key": "k", "cost": 4});
    // a share of 20 is less than seven: a second request right behind the first has to wait, or is refused
    let mut reasons = Vec::new();
    for _ in 0..3 {
        reasons.push(post(&daemons[0], "/v1/check", take("fast")).await["reason"].clone());
    }
    assert!(reasons.contains(&"unconfirmed".into()), "{reasons:?}");
    // a share of 300 is a hundred, and more goes through without a refusal, since each answer waits for the peers
    for _ in 0..60 {
        let answer = post(&daemons[0], "/v1/check", take("patient")).await;
        assert_eq!(answer["allowed"], true, "{answer}");
    }
}

#[tokio::test]
async fn all_or_none_leaves_nothing_behind_at_any_node() {
    let daemons = start_cluster(3, LIMITS).await;
    spend(&daemons[0], "k", 20).await;
    all_see(&daemons, "k", 80.0).await;
    let both = |small: u64| {
        json!({"mode": "all", "checks": [
            {"limit": "api", "key": "k", "cost": 5, "wait_ms": 1000},
            {"limit": "small", "key": "k", "cost": small},
        ]})
    };
    assert_eq!(post(&daemons[1], "/v1/checks", both(2)).await["allowed"], true);
    for daemon in &daemons {
        until("both are known", async || {
            level(daemon, "api", "k").await == 75.0 && level(daemon, "small", "k").await == 8.0
        })
        .await;
        let refused = post(daemon, "/v1/checks", both(9)).await;
        assert_eq!(refused["allowed"], false, "{refused}");
        assert_eq!(refused["results"][1]["reason"], "over_limit", "{refused}");
    }
    // one more charge, so that news that a refused batch had left would have come before it
    spend(&daemons[2], "k", 1).await;
    all_see(&daemons, "k", 74.0).await;
    for daemon in &daemons {
        assert_eq!(level(daemon, "small", "k").await, 8.0);
    }
}
