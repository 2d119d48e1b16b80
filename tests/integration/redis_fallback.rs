//! Redis decides while a node is cut off, and no longer: who switches when, and that no charge is lost or doubled on the
//! way there and back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::daemon::{Daemon, Setup, meet, until};
use crate::nodes::{all_see, exhaust, meet_behind, member, spend};
use crate::redis::{check, metric, mode, outcome};
use crate::redis_server::Redis;
use crate::relay::Relay;

/// Redis is to decide whatever the machine does.
const FALLBACK: &str = "mode = \"fallback\"\ntimeout = \"5s\"";
const HUNDRED: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\n";
/// What `bounded` may go over by.
const SLACK: u64 = 5;

fn limits(redis: &Redis) -> String {
    format!("{HUNDRED}{}", redis.section(FALLBACK))
}

async fn redis_of(daemon: &Daemon) -> Value {
    daemon.get("/v1/cluster").await["redis"].clone()
}

/// Waits until all of them decide so.
async fn all_decide(daemons: &[Daemon], by: &str) {
    for daemon in daemons {
        until(&format!("{} decides by {by}", daemon.name), async || mode(daemon).await == by).await;
    }
}

/// Waits until Redis alone decides at all of them: each has heard at Redis that the others ask it as well.
async fn all_ask(daemons: &[Daemon]) {
    all_decide(daemons, "redis").await;
    for daemon in daemons {
        until("nobody decides without Redis", async || redis_of(daemon).await["shares"] == false).await;
    }
}

/// Tokens that each node says it granted of `key`, as `daemon` has counted them: by name.
async fn counted(daemon: &Daemon, key: &str) -> Vec<(String, u64)> {
    let replicas = daemon.get(&format!("/v1/keys/api/{key}")).await["replicas"].clone();
    let count = |r: &Value| (r["node"].as_str().unwrap().to_owned(), r["granted"].as_u64().unwrap());
    let mut counts: Vec<_> = replicas.as_array().unwrap().iter().map(count).collect();
    counts.sort();
    counts
}

#[tokio::test]
async fn two_halves_that_ask_redis_keep_one_limit_and_count_it_once_when_they_are_back() {
    let redis = Redis::start().await;
    let mut relay = Relay::new(1);
    let daemons = meet_behind(&mut relay, &["a", "b"], &limits(&redis)).await;
    all_decide(&daemons, "local").await;
    spend(&daemons[0], "k", 20).await;
    all_see(&daemons, "k", 80.0).await;
    assert_eq!(redis.used("k", "api").await, 0.0, "nobody asks Redis while they hear of each other");
    relay.split(&["a"], &["b"]);
    all_ask(&daemons).await;
    for daemon in &daemons {
        assert_eq!(metric(daemon, "spillgate_mode{mode=\"redis\"}").await, 1);
        assert_eq!(metric(daemon, "spillgate_mode{mode=\"local\"}").await, 0);
    }
    // what was granted before is known to Redis by the first question; each of them spends what the other leaves
    assert_eq!(check(&daemons[0], "api", "k", 30).await["remaining"], 50);
    assert_eq!(check(&daemons[1], "api", "k", 10).await["remaining"], 40);
    assert_eq!(check(&daemons[0], "api", "k", 5).await["remaining"], 35);
    assert_eq!(check(&daemons[0], "api", "other", 60).await["remaining"], 40);
    relay.heal();
    meet(&daemons).await;
    all_decide(&daemons, "local").await;
    all_see(&daemons, "k", 35.0).await;
    all_see(&daemons, "other", 40.0).await;
    // a second time: what was granted by gossip meanwhile is new to Redis, what it granted itself is not
    spend(&daemons[1], "other", 10).await;
    all_see(&daemons, "other", 30.0).await;
    relay.split(&["a"], &["b"]);
    all_ask(&daemons).await;
    assert_eq!(check(&daemons[0], "api", "other", 5).await["remaining"], 25);
    relay.heal();
    meet(&daemons).await;
    all_decide(&daemons, "local").await;
    all_see(&daemons, "other", 25.0).await;
    let counts = counted(&daemons[0], "k").await;
    assert_eq!(counts, counted(&daemons[1], "k").await);
    // and no more of it than there is
    let rest = exhaust(&daemons, "k").await;
    assert!((30..=35 + SLACK).contains(&rest), "{rest}");
    for daemon in &daemons {
        let redis = redis_of(daemon).await;
        assert_eq!((&redis["switched_over"], &redis["switched_back"]), (&json!(2), &json!(2)));
        assert_eq!(metric(daemon, "spillgate_redis_switches_total{to=\"redis\"}").await, 2);
        assert_eq!(metric(daemon, "spillgate_redis_switches_total{to=\"local\"}").await, 2);
        assert_eq!(daemon.logged("Redis decides from now on"), 2, "{}", daemon.log());
        assert_eq!(daemon.logged("the nodes decide by themselves again"), 2);
    }
}

#[tokio::test]
async fn cut_off_nodes_that_spend_at_once_never_spend_more_than_the_limit() {
    let redis = Redis::start().await;
    let mut relay = Relay::new(2);
    let daemons = meet_behind(&mut relay, &["a", "b", "c"], &limits(&redis)).await;
    // who met the others late may have asked Redis meanwhile
    all_decide(&daemons, "local").await;
    // on the way into the partition they spend by themselves
    relay.split(&["a"], &["b"]);
    relay.split(&["a", "b"], &["c"]);
    let before = exhaust(&daemons[..1], "early").await;
    all_ask(&daemons).await;
    assert_eq!(exhaust(&daemons, "k").await, 100);
    let after = exhaust(&daemons, "early").await;
    assert_eq!(before + after, 100, "{before} before, {after} after");
    relay.heal();
    meet(&daemons).await;
    all_decide(&daemons, "local").await;
    for key in ["k", "early"] {
        for daemon in &daemons {
            // never more than is left; less by what a token of one silent peer or the other is rounded by
            until(&format!("{} has counted all of {key}", daemon.name), async || {
                (-4.5..0.5).contains(&daemon.level(key).await)
            })
            .await;
        }
        assert_eq!(exhaust(&daemons, key).await, 0);
    }
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_others_who_go_on_keeps_to_its_share() {
    let redis = Redis::start().await;
    let mut relay = Relay::new(3);
    let daemons = meet_behind(&mut relay, &["a", "b", "c"], &limits(&redis)).await;
    for daemon in &daemons {
        spend(daemon, "k", 2).await;
    }
    all_see(&daemons, "k", 94.0).await;
    relay.split(&["a", "b"], &["c"]);
    until("c asks Redis, and hears of the others there", async || {
        let cluster = daemons[2].get("/v1/cluster").await;
        cluster["mode"] == "redis" && cluster["redis"]["shares"] == true
    })
    .await;
    assert_eq!([mode(&daemons[0]).await, mode(&daemons[1]).await], ["local", "local"]);
    let alone = exhaust(&daemons[2..], "k").await;
    let both = exhaust(&daemons[..2], "k").await;
    // what it is, demand makes; together they keep to it
    assert!(alone + both > 0 && alone + both <= 94 + SLACK, "{alone} and {both}");
    // what Redis granted and the share did not was given back
    until("Redis counts no more than that", async || {
        check(&daemons[2], "api", "k", 0).await;
        redis.used("k", "api").await <= 6.0 + alone as f64
    })
    .await;
    relay.heal();
    meet(&daemons).await;
    all_decide(&daemons, "local").await;
    let left = 94.0 - (alone + both) as f64;
    all_see(&daemons, "k", left).await;
}

#[tokio::test]
async fn the_one_that_is_left_has_the_whole_limit_by_redis() {
    let redis = Redis::start().await;
    let mut relay = Relay::new(4);
    let mut daemons = meet_behind(&mut relay, &["a", "b", "c"], &limits(&redis)).await;
    daemons[2].kill().await;
    daemons[1].kill().await;
    daemons.truncate(1);
    all_ask(&daemons).await;
    assert_eq!(exhaust(&daemons, "k").await, 100);
    assert!(outcome(&daemons[0], "allowed").await >= 100);
}

#[tokio::test]
async fn a_node_whose_seeds_are_nowhere_asks_redis_and_one_without_seeds_does_not() {
    let redis = Redis::start().await;
    let directory = Arc::new(TempDir::new().unwrap());
    let nowhere = Setup { seeds: vec!["127.0.0.1:1".to_owned()], ..member(&directory, "a", &limits(&redis)) };
    let lost = Daemon::start(&directory, nowhere).await;
    let first = Daemon::start(&directory, member(&directory, "b", &limits(&redis))).await;
    until("it asks Redis", async || mode(&lost).await == "redis").await;
    assert_eq!(check(&lost, "api", "k", 30).await["remaining"], 70);
    assert!((redis.used("k", "api").await - 30.0).abs() < 0.01);
    assert_eq!(mode(&first).await, "local");
}

#[tokio::test]
async fn redis_gone_while_cut_off_leaves_each_its_share_of_what_redis_said_was_left() {
    let mut redis = Redis::start().await;
    let mut relay = Relay::new(5);
    let short = redis.section("timeout = \"200ms\"");
    let daemons = meet_behind(&mut relay, &["a", "b"], &format!("{HUNDRED}{short}")).await;
    relay.split(&["a"], &["b"]);
    all_ask(&daemons).await;
    let mut granted = 0;
    for daemon in daemons.iter().chain(&daemons) {
        granted += u64::from(check(daemon, "api", "k", 30).await["allowed"] == true) * 30;
    }
    assert_eq!(granted, 90);
    // the last word that each has heard
    for daemon in &daemons {
        assert_eq!(check(daemon, "api", "k", 0).await["remaining"], 10);
        assert_eq!(daemon.level("k").await.round(), 10.0, "Redis' word is taken for what the others have spent");
    }
    redis.kill().await;
    granted += exhaust(&daemons, "k").await;
    assert!(granted <= 100 + SLACK, "{granted}");
    relay.heal();
    meet(&daemons).await;
    all_decide(&daemons, "local").await;
    all_see(&daemons, "k", 100.0 - granted as f64).await;
}

#[tokio::test]
async fn charges_of_a_window_stay_in_it() {
    let redis = Redis::start().await;
    let mut relay = Relay::new(6);
    let window = "[[limit]]\nname = \"api\"\nalgorithm = \"fixed-window\"\nrate = \"100/8s\"\n[[limit]]\nname = \"long\"\nalgorithm = \"sliding-window\"\nrate = \"100/300d\"\n";
    let daemons = meet_behind(&mut relay, &["a", "b"], &format!("{window}{}", redis.section(FALLBACK))).await;
    relay.split(&["a"], &["b"]);
    all_ask(&daemons).await;
    assert_eq!(check(&daemons[0], "api", "k", 60).await["allowed"], true);
    assert_eq!(check(&daemons[0], "long", "k", 30).await["remaining"], 70);
    assert_eq!(check(&daemons[1], "long", "k", 20).await["remaining"], 50);
    let number = async |daemon: &Daemon| daemon.get("/v1/keys/api/k").await["window"].as_u64();
    let then = number(&daemons[0]).await.unwrap();
    until("the window is over", async || number(&daemons[0]).await.is_none_or(|n| n > then)).await;
    let spent = check(&daemons[1], "api", "k", 40).await;
    assert_eq!((&spent["allowed"], &spent["remaining"]), (&json!(true), &json!(60)), "a new window: {spent}");
    relay.heal();
    meet(&daemons).await;
    for daemon in &daemons {
        until("they have counted the long one", async || daemon.get("/v1/keys/long/k").await["level"] == 50.0).await;
        let (level, now) = (daemon.level("k").await, number(daemon).await);
        // of the window that is over nothing is left: 60 where the second one still runs, all where it is over too
        assert!(level == 60.0 || level == 100.0, "{level} in {now:?} after {then}");
    }
}

/// Under Redis one node spends for a while what the rate allows; the other, idle, must not have to pay for it afterwards.
#[tokio::test]
async fn what_was_refilled_meanwhile_is_no_debt_when_they_are_back() {
    let redis = Redis::start().await;
    let mut relay = Relay::new(7);
    let quick = "[[limit]]\nname = \"api\"\nrate = \"500/s\"\nburst = 500\n";
    let daemons = meet_behind(&mut relay, &["a", "b"], &format!("{quick}{}", redis.section(FALLBACK))).await;
    // all demand that they have heard of is b's, so that b assumes next to nothing of a
    spend(&daemons[1], "k", 5).await;
    relay.split(&["a"], &["b"]);
    all_ask(&daemons).await;
    let (begun, mut granted) = (Instant::now(), 0);
    while granted < 3000 && begun.elapsed() < Duration::from_secs(20) {
        granted += 100 * u64::from(check(&daemons[0], "api", "k", 100).await["allowed"] == true);
    }
    assert_eq!(granted, 3000);
    relay.heal();
    let mut lowest = f64::INFINITY;
    until("they have met", async || {
        for daemon in &daemons {
            lowest = lowest.min(daemon.level("k").await);
        }
        mode(&daemons[0]).await == "local" && mode(&daemons[1]).await == "local"
    })
    .await;
    // a tenth of the bucket for what was under way
    assert!(lowest > -50.0, "a debt of {lowest} tokens");
}

/// `always` in a cluster: Redis decides, gossip tells, and where Redis is gone the nodes go on with what they know.
#[tokio::test]
async fn a_cluster_that_always_asks_redis_counts_by_gossip_too_and_goes_on_without() {
    let mut redis = Redis::start().await;
    let mut relay = Relay::new(8);
    let always = redis.section("mode = \"always\"\ntimeout = \"200ms\"");
    let daemons = meet_behind(&mut relay, &["a", "b"], &format!("{HUNDRED}{always}")).await;
    all_decide(&daemons, "redis").await;
    assert_eq!(check(&daemons[0], "api", "k", 30).await["remaining"], 70);
    assert_eq!(check(&daemons[1], "api", "k", 20).await["remaining"], 50);
    all_see(&daemons, "k", 50.0).await;
    assert!((redis.used("k", "api").await - 50.0).abs() < 0.05);
    redis.kill().await;
    spend(&daemons[0], "k", 10).await;
    spend(&daemons[1], "k", 10).await;
    all_see(&daemons, "k", 30.0).await;
    redis.start_again().await;
    all_decide(&daemons, "redis").await;
    // what Redis forgot it is told by the first, and what each granted without it once by each
    let left = check(&daemons[0], "api", "k", 0).await["remaining"].as_u64().unwrap();
    assert!((20..=30).contains(&left), "{left}");
    let rest = exhaust(&daemons, "k").await;
    assert!((20..=30).contains(&rest), "{rest}");
    all_see(&daemons, "k", 30.0 - rest as f64).await;
}
