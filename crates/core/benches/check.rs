//! What a check costs, beside governor's on the same keys in the same run: read the ratio, not the absolutes.
//!
//! `cargo bench -p spillgate-core`
#![allow(missing_docs, clippy::disallowed_methods)] // criterion's macros make public items; a benchmark has a clock

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use governor::{Quota, RateLimiter};
use spillgate_core::decision::{Check, LimitRef};
use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Accuracy, Algorithm, Limit, Limits, RuleSpec};
use spillgate_core::node::{Attempt, Node, NodeConfig, Outbox};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::ReplicaId;

/// Keys in the table; each check takes the next by a step that visits all and defeats the prefetcher.
const KEYS: usize = 100_000;
const STEP: usize = 7919;

fn replica(name: &str) -> ReplicaId {
    ReplicaId { node: name.into(), incarnation: 1 }
}

fn node(name: &str, algorithm: Algorithm, accuracy: Accuracy, clustered: bool) -> Node {
    let spec = RuleSpec { accuracy, ..RuleSpec::new(algorithm, "1M/s".parse().expect("a rate")) };
    let limits = Limits::new([Limit::new("api", spec, &[]).expect("a limit")]).expect("limits");
    let pace =
        Pace { interval: Nanos::from_millis(10), stale_after: Nanos::from_secs(9), forget_after: Nanos::from_secs(99) };
    let config =
        NodeConfig { replica: replica(name), hash_key: [3; 16], max_keys: 10 * KEYS, shards_max: 256, clustered, pace };
    Node::new(config, limits)
}

#[derive(Default)]
struct Post(Vec<Vec<u8>>);

impl Outbox for Post {
    fn frame(&mut self, _: &ReplicaId, bytes: Vec<u8>) {
        self.0.push(bytes);
    }
}

/// Two nodes that count each other in; the first is returned, its rule on.
fn one_of_two(algorithm: Algorithm, accuracy: Accuracy) -> Node {
    let (a, b) = (node("a", algorithm, accuracy, true), node("b", algorithm, accuracy, true));
    let mut now = Now::default();
    a.peer_up(b.replica(), now);
    b.peer_up(a.replica(), now);
    while !(a.outlook().admitted && b.outlook().admitted) {
        now = Now::at(now.at.plus(Nanos::from_millis(10)));
        for (from, to) in [(&a, &b), (&b, &a)] {
            let mut post = Post::default();
            from.tick(now, 1150, &mut post);
            for bytes in post.0 {
                to.handle_frame(from.replica(), &bytes, now, &mut Post::default()).expect("a good frame");
            }
        }
    }
    a
}

fn bench_node(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, node: &Node, keys: &[String]) {
    let start = Instant::now();
    let check = |i: usize| {
        let at = Nanos::from(start.elapsed());
        let key = keys[i * STEP % KEYS].as_str();
        let check = Check { limit: LimitRef::Named("api"), key, cost: 1, priority: "normal" };
        node.check(&check, Now::at(at.plus(Nanos::from_secs(1))), Attempt::First).expect("a decision")
    };
    // warm: every key is in the table
    for i in 0..KEYS {
        black_box(check(i));
    }
    let mut i = 0;
    group.bench_function(name, |b| {
        b.iter(|| {
            i += 1;
            black_box(check(i))
        });
    });
}

fn checks(criterion: &mut Criterion) {
    let keys: Vec<String> = (0..KEYS).map(|i| format!("user:{i}")).collect();
    let mut group = criterion.benchmark_group("check");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));

    let governor = RateLimiter::keyed(Quota::per_second(NonZeroU32::new(1_000_000).expect("above zero")));
    for key in &keys {
        // what counts is that the key is there
        let _ = governor.check_key(key);
    }
    let mut i = 0;
    group.bench_function("governor", |b| {
        b.iter(|| {
            i += 1;
            black_box(governor.check_key(&keys[i * STEP % KEYS]).is_ok())
        });
    });

    let single = node("a", Algorithm::TokenBucket, Accuracy::default(), false);
    bench_node(&mut group, "single node", &single, &keys);
    for algorithm in Algorithm::ALL {
        let node = one_of_two(algorithm, Accuracy::default());
        bench_node(&mut group, &format!("one of two, {}", algorithm.as_str()), &node, &keys);
    }
    let strict = one_of_two(Algorithm::TokenBucket, Accuracy::Strict);
    bench_node(&mut group, "one of two, strict", &strict, &keys);
    group.finish();
}

criterion_group!(benches, checks);
criterion_main!(benches);
