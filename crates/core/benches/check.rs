//! What the core costs, beside governor on the same keys in the same run: `cargo bench -p spillgate-core`.
//!
//! Subjects take turns, round by round, and each is divided by governor's time of the same round: so what else the machine
//! does falls on both, and the medians over the rounds can be compared. Nothing here is worth reading as an absolute.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_macros)] // a benchmark has a clock and an output

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Barrier;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use spillgate_core::decision::{Check, LimitRef};
use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Accuracy, Algorithm, Limit, Limits, RuleSpec};
use spillgate_core::node::{Attempt, Node, NodeConfig, Outbox};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::ReplicaId;

/// Keys in the tables.
const KEYS: usize = 1_000_000;
/// Checks of one subject in one round.
const CHECKS: usize = 400_000;
/// Rounds, of which medians are taken.
const ROUNDS: usize = 11;
/// Keys that have news when a tick is timed, and updates of a frame when a merge is.
const DIRTY: usize = 10_000;
const UPDATES: usize = 80;

fn replica(name: &str) -> ReplicaId {
    ReplicaId { node: name.into(), incarnation: 1 }
}

fn node(name: &str, algorithm: Algorithm, accuracy: Accuracy, rate: &str, clustered: bool) -> Node {
    let spec = RuleSpec { accuracy, ..RuleSpec::new(algorithm, rate.parse().expect("a rate")) };
    let limits = Limits::new([Limit::new("api", spec, &[]).expect("a limit")]).expect("limits");
    let pace =
        Pace { interval: Nanos::from_millis(10), stale_after: Nanos::from_secs(9), forget_after: Nanos::from_secs(99) };
    let config =
        NodeConfig { replica: replica(name), hash_key: [3; 16], max_keys: 4 * KEYS, shards_max: 256, clustered, pace };
    Node::new(config, limits)
}

#[derive(Default)]
struct Post(Vec<Vec<u8>>);

impl Outbox for Post {
    fn frame(&mut self, _: &ReplicaId, bytes: Vec<u8>) {
        self.0.push(bytes);
    }
}

/// Has `from` tick, and `to` hear of it.
fn tell(from: &Node, to: &Node, now: Now) {
    let mut post = Post::default();
    from.tick(now, 1150, &mut post);
    for bytes in post.0 {
        to.handle_frame(from.replica(), &bytes, now, &mut Post::default()).expect("a good frame");
    }
}

/// Two nodes that count each other in, their rule on, and the time it is then.
fn pair(algorithm: Algorithm, accuracy: Accuracy, rate: &str) -> (Node, Node, Now) {
    let [a, b] = ["a", "b"].map(|name| node(name, algorithm, accuracy, rate, true));
    let mut now = Now::default();
    a.peer_up(b.replica(), now);
    b.peer_up(a.replica(), now);
    while !(a.outlook().admitted && b.outlook().admitted) {
        now = Now::at(now.at.plus(Nanos::from_millis(10)));
        tell(&a, &b, now);
        tell(&b, &a, now);
    }
    (a, b, now)
}

fn check(node: &Node, key: &str, now: Now) -> bool {
    let check = Check { limit: LimitRef::Named("api"), key, cost: 1, priority: "normal" };
    node.check(&check, now, Attempt::First).expect("a decision").allowed
}

/// Which keys are asked for, one after the other.
struct Walk {
    name: &'static str,
    places: Vec<u32>,
}

/// Knuth's linear congruential generator, its high half: the same keys in each run.
fn dice(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 11) as f64 / (1_u64 << 53) as f64
}

fn uniform() -> Walk {
    let mut state = 1;
    Walk { name: "uniform", places: (0..1 << 20).map(|_| (dice(&mut state) * KEYS as f64) as u32).collect() }
}

/// Key k is asked for in proportion to 1 / (k + 1).
fn zipf() -> Walk {
    let mut sums: Vec<f64> = Vec::with_capacity(KEYS);
    for k in 0..KEYS {
        sums.push(sums.last().unwrap_or(&0.0) + 1.0 / (k + 1) as f64);
    }
    let total = sums[KEYS - 1];
    let mut state = 2;
    let place = |_| sums.partition_point(|s| *s < dice(&mut state) * total) as u32;
    // ranks are scattered over the keys, or the popular ones would lie side by side
    let scatter = |rank: u32| (u64::from(rank) * 514_229 % KEYS as u64) as u32;
    Walk { name: "Zipf", places: (0..1 << 20).map(place).map(scatter).collect() }
}

/// Nanoseconds a check, of so many threads that begin together.
fn timed(threads: usize, check: &(impl Fn(usize) -> bool + Sync)) -> f64 {
    let barrier = Barrier::new(threads);
    let checks = CHECKS / threads;
    let run = |thread: usize| {
        barrier.wait();
        let start = used();
        for i in 0..checks {
            black_box(check(thread * 371_293 + i));
        }
        used() - start
    };
    let slowest = std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().map(|r| r.join().expect("no check panics")).max()
    });
    slowest.unwrap_or_default() as f64 / (checks * threads) as f64
}

/// Nanoseconds that this thread has had of a core: what it waits for others on a busy machine is nobody's cost.
fn used() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    (used.tv_sec * 1_000_000_000 + used.tv_nsec).unsigned_abs()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn report(name: &str, nanos: f64, ratio: Option<f64>) {
    let ratio = ratio.map_or_else(|| "null".to_owned(), |r| format!("{r:.3}"));
    if std::env::args().any(|a| a == "--json") {
        println!("{{\"name\":\"{name}\",\"nanos\":{nanos:.1},\"ratio\":{ratio}}}");
    } else {
        println!("{name:<44} {nanos:>12.1} ns   {ratio:>7} of governor");
    }
}

type Subject<'a> = (&'static str, &'a Node);

/// Times governor and all subjects in turn, on warm keys.
fn beside_governor(
    walk: &Walk,
    threads: usize,
    keys: &[String],
    governor: &DefaultKeyedRateLimiter<String>,
    subjects: &[Subject<'_>],
) {
    let clock = quanta::Clock::new();
    let start = clock.now();
    let key = |i: usize| &keys[walk.places[i % walk.places.len()] as usize];
    let mut nanos = vec![Vec::new(); subjects.len() + 1];
    for _ in 0..ROUNDS {
        nanos[0].push(timed(threads, &|i| governor.check_key(key(i)).is_ok()));
        for (nanos, (_, node)) in nanos[1..].iter_mut().zip(subjects) {
            nanos.push(timed(threads, &|i| {
                let at = Nanos::from(clock.now().saturating_duration_since(start));
                check(node, key(i), Now::at(at.plus(Nanos::from_secs(100))))
            }));
        }
    }
    let base = nanos[0].clone();
    for (nanos, name) in nanos.into_iter().zip(["governor"].into_iter().chain(subjects.iter().map(|s| s.0))) {
        let ratio = median(nanos.iter().zip(&base).map(|(n, base)| n / base).collect());
        let plural = if threads == 1 { "thread" } else { "threads" };
        report(&format!("{name}, {} keys, {threads} {plural}", walk.name), median(nanos), Some(ratio));
    }
}

/// Every key is in the table, so that checks are of warm ones.
fn warm(node: &Node, keys: &[String], now: Now) {
    for key in keys {
        check(node, key, now);
    }
}

/// One frame of 80 updates taken in.
fn merge(keys: &[String]) {
    let (a, b, mut now) = pair(Algorithm::TokenBucket, Accuracy::default(), "1M/s");
    let mut nanos = Vec::new();
    for _ in 0..2_000 {
        now = Now::at(now.at.plus(Nanos::from_millis(10)));
        for key in &keys[..UPDATES] {
            check(&b, key, now);
        }
        let mut post = Post::default();
        b.tick(now, 1 << 14, &mut post);
        for bytes in post.0 {
            let start = used();
            a.handle_frame(b.replica(), &bytes, now, &mut Post::default()).expect("a good frame");
            nanos.push((used() - start) as f64);
        }
        tell(&a, &b, now);
    }
    report("merge of a frame of 80 updates", median(nanos), None);
}

/// One tick of a node with a peer: of 10,000 keys that were all charged since the last, and of as many that were charged
/// a moment ago.
fn tick(keys: &[String]) {
    let (a, b, mut now) = pair(Algorithm::TokenBucket, Accuracy::default(), "1M/s");
    let (mut dirty, mut quiet) = (Vec::new(), Vec::new());
    let step = |now: &mut Now| *now = Now::at(now.at.plus(Nanos::from_millis(10)));
    for round in 0..200 {
        step(&mut now);
        let charged = round % 4 == 0;
        if charged {
            warm(&a, &keys[..DIRTY], now);
        }
        let mut post = Post::default();
        let start = used();
        a.tick(now, 1150, &mut post);
        (if charged { &mut dirty } else { &mut quiet }).push((used() - start) as f64);
        for bytes in post.0 {
            b.handle_frame(a.replica(), &bytes, now, &mut Post::default()).expect("a good frame");
        }
        tell(&b, &a, now);
    }
    report("tick with 10,000 dirty keys", median(dirty), None);
    report("tick with 10,000 keys charged a moment ago", median(quiet), None);
}

fn main() {
    let keys: Vec<String> = (0..KEYS).map(|i| format!("user:{i}")).collect();
    let quota = |n| Quota::per_second(NonZeroU32::new(n).expect("above zero"));
    let governor = RateLimiter::keyed(quota(1_000_000));
    for key in &keys {
        // what counts is that the key is there
        let _ = governor.check_key(key);
    }
    let (clustered, _peer, now) = pair(Algorithm::TokenBucket, Accuracy::default(), "1M/s");
    let single = node("s", Algorithm::TokenBucket, Accuracy::default(), "1M/s", false);
    warm(&clustered, &keys, now);
    warm(&single, &keys, now);
    for walk in [uniform(), zipf()] {
        for threads in [1, 2] {
            let subjects = [("one of two nodes", &clustered), ("single node", &single)];
            beside_governor(&walk, threads, &keys, &governor, &subjects);
        }
    }
    drop((clustered, single, governor));

    let walk = uniform();
    let governor = RateLimiter::keyed(Quota::per_hour(NonZeroU32::MIN));
    let (denying, _peer, now) = pair(Algorithm::TokenBucket, Accuracy::default(), "1/h");
    for key in &keys {
        let _ = governor.check_key(key);
    }
    warm(&denying, &keys, now);
    beside_governor(&Walk { name: "denied, uniform", ..walk }, 1, &keys, &governor, &[("one of two nodes", &denying)]);
    drop((denying, governor));

    let walk = uniform();
    let governor = RateLimiter::keyed(quota(1_000_000));
    for key in &keys {
        let _ = governor.check_key(key);
    }
    for (algorithm, accuracy, name) in [
        (Algorithm::LeakyBucket, Accuracy::default(), "leaky bucket"),
        (Algorithm::FixedWindow, Accuracy::default(), "fixed window"),
        (Algorithm::SlidingWindow, Accuracy::default(), "sliding window"),
        (Algorithm::TokenBucket, Accuracy::Strict, "token bucket, strict"),
    ] {
        let (node, _peer, now) = pair(algorithm, accuracy, "1M/s");
        warm(&node, &keys, now);
        beside_governor(&walk, 1, &keys, &governor, &[(name, &node)]);
    }
    merge(&keys);
    tick(&keys);
}
