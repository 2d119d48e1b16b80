//! What gossip costs the core of one node among ten, by the second, with so many keys active in the cluster: each is asked
//! for once a second, each time at another node. `cargo bench -p spillgate-core --bench gossip`.
//!
//! Time is virtual: frames take a millisecond, and what is counted is the core of the machine that the calls had. Nothing
//! of a transport is in it.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_macros)] // a benchmark has a clock and an output

use std::collections::VecDeque;

use spillgate_core::decision::{Check, LimitRef};
use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Accuracy, Algorithm, Limit, Limits, RuleSpec};
use spillgate_core::node::{Attempt, Node, NodeConfig, Outbox};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::ReplicaId;

const NODES: usize = 10;
/// Virtual milliseconds before anything is counted, and while it is.
const WARM: u64 = 2_000;
const COUNTED: u64 = 3_000;

/// Frames under way: when they arrive, from and to whom.
struct Wire<'a> {
    from: usize,
    arrives: Nanos,
    names: &'a [ReplicaId],
    under_way: VecDeque<(Nanos, usize, usize, Vec<u8>)>,
    frames: u64,
    bytes: u64,
}

impl Outbox for Wire<'_> {
    fn frame(&mut self, to: &ReplicaId, bytes: Vec<u8>) {
        let to = self.names.iter().position(|name| name == to).expect("a node");
        (self.frames, self.bytes) = (self.frames + 1, self.bytes + bytes.len() as u64);
        self.under_way.push_back((self.arrives, self.from, to, bytes));
    }
}

fn node(name: &ReplicaId) -> Node {
    let spec = RuleSpec {
        accuracy: Accuracy::default(),
        burst: Some(1000),
        ..RuleSpec::new(Algorithm::TokenBucket, "1000/s".parse().expect("a rate"))
    };
    let limits = Limits::new([Limit::new("api", spec, &[]).expect("a limit")]).expect("limits");
    let pace =
        Pace { interval: Nanos::from_millis(10), stale_after: Nanos::from_secs(2), forget_after: Nanos::from_secs(99) };
    Node::new(
        NodeConfig {
            replica: name.clone(),
            hash_key: [3; 16],
            max_keys: 1 << 20,
            shards_max: 256,
            clustered: true,
            pace,
        },
        limits,
    )
}

/// Nanoseconds that this thread has had of a core: what it waits for others on a busy machine is nobody's cost.
fn used() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    (used.tv_sec * 1_000_000_000 + used.tv_nsec).unsigned_abs()
}

/// Nanoseconds of a core that ticks, frames and checks took.
#[derive(Default)]
struct Spent {
    ticks: u64,
    frames: u64,
    checks: u64,
}

fn go(keys: usize) {
    let names: Vec<ReplicaId> =
        (0..NODES).map(|i| ReplicaId { node: format!("n{i}").into(), incarnation: 1 }).collect();
    let nodes: Vec<Node> = names.iter().map(node).collect();
    let texts: Vec<String> = (0..keys).map(|i| format!("active:{i:08}")).collect();
    let mut wire =
        Wire { from: 0, arrives: Nanos::ZERO, names: &names, under_way: VecDeque::new(), frames: 0, bytes: 0 };
    for node in &nodes {
        names.iter().filter(|name| *name != node.replica()).for_each(|name| node.peer_up(name, Now::default()));
    }
    let mut spent = Spent::default();
    let mut next = 0;
    for ms in 1..=WARM + COUNTED {
        let now = Now::at(Nanos::from_millis(ms));
        if ms == WARM {
            (spent, wire.frames, wire.bytes) = (Spent::default(), 0, 0);
        }
        let start = used();
        while wire.under_way.front().is_some_and(|frame| frame.0 <= now.at) {
            let Some((_, from, to, bytes)) = wire.under_way.pop_front() else { break };
            (wire.from, wire.arrives) = (to, now.at.plus(Nanos::from_millis(1)));
            nodes[to].handle_frame(&names[from], &bytes, now, &mut wire).expect("a good frame");
        }
        let handled = used();
        let asked = if ms < 500 { 0 } else { keys / 1000 };
        for i in next..next + asked {
            let check = Check { limit: LimitRef::Named("api"), key: &texts[i % keys], cost: 1, priority: "normal" };
            let place = (i + i / keys) % NODES;
            nodes[place].check(&check, now, Attempt::First).expect("a decision");
        }
        next += asked;
        let checked = used();
        let from = (ms % 10) as usize;
        (wire.from, wire.arrives) = (from, now.at.plus(Nanos::from_millis(1)));
        nodes[from].tick(now, 1150, &mut wire);
        spent.frames += handled - start;
        spent.checks += checked - handled;
        spent.ticks += used() - checked;
    }
    let a_second = |nanos: u64| nanos as f64 / NODES as f64 / (COUNTED as f64 / 1000.0) / 1e6;
    println!(
        "{keys:>7} keys: a node and second {:.1} ms in ticks, {:.1} ms in frames, {:.1} ms in checks; {} frames and {} kB out",
        a_second(spent.ticks),
        a_second(spent.frames),
        a_second(spent.checks),
        wire.frames * 1000 / COUNTED / NODES as u64,
        wire.bytes / COUNTED / NODES as u64,
    );
}

fn main() {
    let only: Option<usize> = std::env::args().find_map(|n| n.parse().ok());
    [1_000, 10_000].into_iter().filter(|keys| only.is_none_or(|only| only == *keys)).for_each(go);
}
