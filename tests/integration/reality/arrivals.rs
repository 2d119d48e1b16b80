//! Requests of a real run: planned, sent and answered on one clock. It must not know who answers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use spillgate_sim::observe::Reason;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::daemon::Daemon;
use crate::http1::request;

/// Connections to each daemon: so many requests may be under way there at once.
const CONNECTIONS: usize = 32;

/// A request that is to be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Since the start.
    pub at: Duration,
    pub node: usize,
    pub cost: u64,
}

/// A request that was made.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub node: usize,
    pub cost: u64,
    /// Since the start, both.
    pub sent: Duration,
    pub answered: Duration,
    pub reason: Reason,
}

/// Requests that come independently of one another, of so many tokens a second at a node.
pub fn stream(seed: u64, node: usize, tokens: f64, cost: u64, span: Range<f64>) -> Vec<Planned> {
    let mut chance = StdRng::seed_from_u64(seed << 8 | node as u64);
    let mut at = span.start;
    let mut planned = Vec::new();
    loop {
        at -= (1.0 - chance.random::<f64>()).ln() * cost as f64 / tokens;
        if at >= span.end {
            return planned;
        }
        planned.push(Planned { at: Duration::from_secs_f64(at), node, cost });
    }
}

/// Streams as one plan.
pub fn plan(streams: impl IntoIterator<Item = Vec<Planned>>) -> Vec<Planned> {
    let mut all: Vec<Planned> = streams.into_iter().flatten().collect();
    all.sort_by_key(|planned| (planned.at, planned.node));
    all
}

/// Makes the requests of the plan, each to its daemon when it is due, from `start` on.
pub async fn offer(daemons: &[Daemon], planned: &[Planned], start: Instant) -> Vec<Answered> {
    let mut asking = JoinSet::new();
    for (node, daemon) in daemons.iter().enumerate() {
        let mine: VecDeque<Planned> = planned.iter().filter(|p| p.node == node).copied().collect();
        let mine = Arc::new(Mutex::new(mine));
        for _ in 0..CONNECTIONS {
            let mut connection = daemon.connect().await;
            let mine = mine.clone();
            asking.spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let next = mine.lock().unwrap().pop_front();
                    let Some(Planned { at, cost, .. }) = next else { return answers };
                    let body = format!(r#"{{"limit":"api","key":"k","cost":{cost}}}"#);
                    let bytes = request("POST", "/v1/check", &[("content-type", "application/json")], body.as_bytes());
                    sleep_until(start + at).await;
                    let sent = start.elapsed();
                    connection.send(bytes).await;
                    let answer = connection.answer().await;
                    let answered = start.elapsed();
                    let reason = reason(&answer.json());
                    answers.push(Answered { node, cost, sent, answered, reason });
                }
            });
        }
    }
    asking.join_all().await.concat()
}

fn reason(answer: &serde_json::Value) -> Reason {
    let name = answer["reason"].as_str().unwrap_or(Reason::Granted.as_str());
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == name);
    let reason = reason.unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(answer["allowed"] == true, reason == Reason::Granted, "{answer}");
    reason
}
