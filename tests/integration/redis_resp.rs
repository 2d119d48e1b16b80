//! A central Redis that decides what clients of the Redis protocol ask of the daemons, too: one limit whichever way it is
//! asked for, and answers whatever becomes of Redis.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::daemon::{Daemon, meet, until};
use crate::nodes::{all_see, meet_behind};
use crate::redis::{ALWAYS, check, mode, outcome, start_with};
use crate::redis_server::Redis;
use crate::relay::Relay;

const HUNDRED: &str = "[resp]\nlisten = \"127.0.0.1:0\"\n[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\n";

/// Far above Redis' `timeout`, for a machine that is busy; below the second after which its client gives up by itself.
const ANSWER_MAX: Duration = Duration::from_millis(900);

/// A client's connection to a daemon.
async fn client(address: SocketAddr) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(format!("redis://{address}")).unwrap();
    // no answer takes so long, also where this machine is busy
    let patient = Some(Duration::from_secs(20));
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(patient).set_connection_timeout(patient);
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// Asks for one token at a time, `pipeline` at once, until one is refused; how many were granted.
async fn throttle_until_refused(address: SocketAddr, pipeline: usize) -> usize {
    let mut client = client(address).await;
    let mut commands = redis::pipe();
    for _ in 0..pipeline {
        commands.cmd("CL.THROTTLE").arg(&["k", "59", "1", "86400"]);
    }
    let mut granted = 0;
    loop {
        let answers: Vec<Vec<i64>> = commands.query_async(&mut client).await.unwrap();
        assert_eq!(answers.len(), pipeline);
        let allowed = answers.iter().filter(|a| a[0] == 0).count();
        granted += allowed;
        if allowed < pipeline {
            return granted;
        }
        assert!(granted <= 1000, "nobody counts: of 60 tokens {granted} were granted to one client");
    }
}

#[tokio::test]
async fn commands_are_one_limit_over_nodes_that_know_nothing_of_each_other() {
    let redis = Redis::start().await;
    let limits = format!("{HUNDRED}{}", redis.section(ALWAYS));
    let daemons = [start_with("a", &limits).await, start_with("b", &limits).await];
    let mut asking = JoinSet::new();
    for (daemon, pipeline) in daemons.iter().chain(&daemons).zip([1, 7, 16, 3]) {
        asking.spawn(throttle_until_refused(daemon.resp.unwrap(), pipeline));
    }
    let granted: usize = asking.join_all().await.into_iter().sum();
    assert_eq!(granted, 60, "the commands were not counted as one by Redis");
    // and a configured limit is the same by HTTP
    assert_eq!(check(&daemons[0], "api", "k", 30).await["remaining"], 70);
    let command = redis::cmd("SPILLGATE.CHECK").arg(&["api", "k", "50"]).clone();
    let answer: Vec<redis::Value> = command.query_async(&mut client(daemons[1].resp.unwrap()).await).await.unwrap();
    let remaining = answer.chunks(2).find(|m| m[0] == redis::Value::BulkString(b"remaining".to_vec()));
    assert_eq!(remaining.unwrap()[1], redis::Value::Int(20));
    assert_eq!(check(&daemons[0], "api", "k", 0).await["remaining"], 20);
    for daemon in &daemons {
        assert_eq!((outcome(daemon, "error").await, outcome(daemon, "timeout").await), (0, 0));
    }
}

#[tokio::test]
async fn commands_are_answered_when_redis_is_gone() {
    let mut redis = Redis::start().await;
    let limits = format!("{HUNDRED}{}", redis.section("mode = \"always\"\ntimeout = \"50ms\""));
    let daemon = start_with("a", &limits).await;
    let mut client = client(daemon.resp.unwrap()).await;
    let ask = redis::cmd("CL.THROTTLE").arg(&["k", "9", "1", "86400"]).clone();
    let mut answer = async || {
        let asked = Instant::now();
        let answer: Vec<i64> = ask.query_async(&mut client).await.unwrap();
        assert!(asked.elapsed() < ANSWER_MAX, "an answer took {:?}, of which Redis has 50 ms", asked.elapsed());
        answer
    };
    for round in 0..3 {
        assert_eq!(answer().await[0], 0, "{round}");
        if round == 0 {
            redis.signal("STOP");
        } else if round == 1 {
            redis.signal("CONT");
            redis.kill().await;
        }
    }
    until("it is known to be down", async || mode(&daemon).await == "degraded").await;
    for granted in 3..10 {
        assert_eq!(answer().await[0], 0, "{granted} of 10");
    }
    let last = answer().await;
    assert_eq!((last[0], last[2]), (1, 0), "the node has counted what Redis granted: {last:?}");
}

#[tokio::test]
async fn commands_go_to_redis_while_the_node_is_cut_off_and_no_longer() {
    let redis = Redis::start().await;
    let mut relay = Relay::new(7);
    let limits = format!("{HUNDRED}{}", redis.section("timeout = \"5s\""));
    let daemons = meet_behind(&mut relay, &["a", "b"], &limits).await;
    let take = async |daemon: &Daemon, cost: &str| {
        let command = redis::cmd("SPILLGATE.CHECK").arg(&["api", "k", cost, "WAIT", "10000"]).clone();
        let answer: Vec<redis::Value> = command.query_async(&mut client(daemon.resp.unwrap()).await).await.unwrap();
        assert_eq!(answer[1], redis::Value::Int(1), "{answer:?}");
    };
    let by_redis = async || outcome(&daemons[0], "allowed").await + outcome(&daemons[1], "allowed").await;
    take(&daemons[0], "10").await;
    all_see(&daemons, "k", 90.0).await;
    assert_eq!(by_redis().await, 0);
    relay.split(&["a"], &["b"]);
    for daemon in &daemons {
        until("Redis decides", async || mode(daemon).await == "redis").await;
        until("and for all", async || daemon.get("/v1/cluster").await["redis"]["shares"] == false).await;
    }
    take(&daemons[0], "40").await;
    take(&daemons[1], "45").await;
    assert_eq!(by_redis().await, 2, "neither had so much by itself");
    relay.heal();
    meet(&daemons).await;
    for daemon in &daemons {
        until("the nodes decide", async || mode(daemon).await == "local").await;
    }
    all_see(&daemons, "k", 5.0).await;
    take(&daemons[1], "1").await;
    all_see(&daemons, "k", 4.0).await;
    assert_eq!(by_redis().await, 2);
}
