//! A few nodes and a network in virtual time, for the tests of the core: delays, loss, duplication and cuts by a seed.
#![allow(dead_code, missing_docs)] // each test binary uses another part

pub mod heap;
pub mod honest;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use spillgate_core::decision::{Check, Decision, LimitRef};
use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Accuracy, Algorithm, Limit, Limits, OnPartition, RuleSpec};
use spillgate_core::node::{Attempt, Node, NodeConfig, Outbox};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::ReplicaId;

pub const MS: u64 = 1_000_000;
/// Frames stay below this, as on a path that was not probed yet.
pub const FRAME_BYTES: usize = 1150;

/// A small generator (splitmix64): the core takes no randomness, and the tests' must repeat.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub fn limits(algorithm: Algorithm, rate: &str, burst: Option<u64>, accuracy: Accuracy) -> Limits {
    limits_on(algorithm, rate, burst, accuracy, OnPartition::Share)
}

pub fn limits_on(
    algorithm: Algorithm,
    rate: &str,
    burst: Option<u64>,
    accuracy: Accuracy,
    on_partition: OnPartition,
) -> Limits {
    let spec = RuleSpec { burst, accuracy, on_partition, ..RuleSpec::new(algorithm, rate.parse().expect("a rate")) };
    Limits::new([Limit::new("api", spec, &[]).expect("a limit")]).expect("limits")
}

#[derive(Debug)]
enum Event {
    Tick(usize),
    Deliver { to: usize, from: ReplicaId, bytes: Vec<u8> },
}

/// Makes another frame of one.
pub type Disguise = fn(&[u8]) -> Vec<u8>;

pub struct Cluster {
    pub now: u64,
    pub nodes: Vec<Option<Node>>,
    pub delay: u64,
    pub jitter: u64,
    pub loss: f64,
    pub duplication: f64,
    pub random: Random,
    /// Pairs (from, to) whose frames are dropped.
    pub cut: Vec<(usize, usize)>,
    /// What becomes of the frames of those nodes that are `disguised`.
    pub disguise: Option<Disguise>,
    pub disguised: Vec<usize>,
    pub frames: u64,
    pub bytes: u64,
    /// Which node stands still, and until when.
    paused: Option<(usize, u64)>,
    limits: Limits,
    incarnations: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: BTreeMap<u64, Event>,
    sequence: u64,
}

struct Post(Vec<(ReplicaId, Vec<u8>)>);

impl Outbox for Post {
    fn frame(&mut self, to: &ReplicaId, bytes: Vec<u8>) {
        assert!(bytes.len() <= FRAME_BYTES, "a frame of {} bytes", bytes.len());
        self.0.push((to.clone(), bytes));
    }
}

impl Cluster {
    pub fn new(n: usize, limits: Limits, delay: u64, loss: f64, seed: u64) -> Self {
        let mut cluster = Self {
            now: 0,
            nodes: Vec::new(),
            delay,
            jitter: delay / 2,
            loss,
            duplication: 0.0,
            random: Random(seed),
            cut: Vec::new(),
            disguise: None,
            disguised: Vec::new(),
            frames: 0,
            bytes: 0,
            paused: None,
            limits,
            incarnations: 0,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            sequence: 0,
        };
        for i in 0..n {
            cluster.nodes.push(None);
            cluster.start(i);
        }
        cluster
    }

    /// (Re)starts node `i` as a new incarnation; all that run meet it.
    pub fn start(&mut self, i: usize) {
        self.start_from(i, &[]);
    }

    /// The same, from a snapshot of an earlier run.
    pub fn start_from(&mut self, i: usize, slices: &[Vec<u8>]) {
        self.incarnations += 1;
        let pace = Pace { interval: Nanos(10 * MS), stale_after: Nanos(200 * MS), forget_after: Nanos::from_secs(60) };
        let config = NodeConfig {
            replica: ReplicaId { node: format!("n{i}").into(), incarnation: self.incarnations },
            hash_key: [7; 16],
            max_keys: 10_000,
            shards_max: 2,
            clustered: self.nodes.len() > 1 || i > 0,
            pace,
        };
        let node = Node::new(config, self.limits.clone());
        for slice in slices {
            node.restore(slice, self.present()).expect("a slice");
        }
        self.nodes[i] = Some(node);
        let phase = self.random.below(10 * MS);
        self.schedule(self.now + phase, Event::Tick(i));
        for j in 0..self.nodes.len() {
            if i != j && self.nodes[j].is_some() {
                self.introduce(i, j);
            }
        }
    }

    /// Node `i`'s table, as it is kept over a restart.
    pub fn snapshot(&self, i: usize) -> Vec<Vec<u8>> {
        let mut slices = self.node(i).slices();
        std::iter::from_fn(|| slices.next(self.present())).collect()
    }

    /// Node `to` asks `from` for its table.
    pub fn bring(&self, from: usize, to: usize) {
        self.take(to, &self.table(from));
    }

    /// What node `i` brings to those who ask.
    pub fn table(&self, i: usize) -> Vec<Vec<u8>> {
        self.node(i).state_chunks(self.present()).collect()
    }

    /// Node `to` takes in a table that it asked for.
    pub fn take(&self, to: usize, table: &[Vec<u8>]) {
        for chunk in table {
            self.node(to).handle_message(chunk, true, self.present()).expect("a chunk");
        }
    }

    pub fn crash(&mut self, i: usize) {
        self.nodes[i] = None;
    }

    /// Node `i` stands still: it ticks no more for so long, and hears all that came meanwhile at the end of it.
    pub fn pause(&mut self, i: usize, millis: u64) {
        self.paused = Some((i, self.now + millis * MS));
    }

    /// Both call each other up.
    pub fn introduce(&self, i: usize, j: usize) {
        let (a, b) = (self.node(i), self.node(j));
        a.peer_up(b.replica(), self.present());
        b.peer_up(a.replica(), self.present());
    }

    pub fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().expect("it runs")
    }

    pub fn present(&self) -> Now {
        // far from the epoch, in the middle of a second
        Now { at: Nanos(self.now), wall: 1_700_000_000_500_000_000 + self.now }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence)));
        self.bodies.insert(self.sequence, event);
    }

    fn carry(&mut self, from: usize, post: Post) {
        let sender = self.node(from).replica().clone();
        for (to, bytes) in post.0 {
            self.frames += 1;
            self.bytes += bytes.len() as u64;
            let Some(to) = self.nodes.iter().position(|n| n.as_ref().is_some_and(|n| *n.replica() == to)) else {
                continue;
            };
            if self.cut.contains(&(from, to)) || self.random.unit() < self.loss {
                continue;
            }
            let bytes = match self.disguise {
                Some(disguise) if self.disguised.contains(&from) => disguise(&bytes),
                _ => bytes,
            };
            let copies = 1 + usize::from(self.random.unit() < self.duplication);
            for _ in 0..copies {
                let at = self.now + self.delay + self.random.below(self.jitter + 1);
                self.schedule(at, Event::Deliver { to, from: sender.clone(), bytes: bytes.clone() });
            }
        }
    }

    /// Lets everything happen up to `until`.
    pub fn run(&mut self, until: u64) {
        while let Some(Reverse((at, _))) = self.events.peek()
            && *at <= until
        {
            let Some(Reverse((at, sequence))) = self.events.pop() else { break };
            self.now = at;
            if let Some((paused, until)) = self.paused
                && until > at
                && matches!(self.bodies.get(&sequence), Some(Event::Tick(i) | Event::Deliver { to: i, .. }) if *i == paused)
            {
                self.events.push(Reverse((until, sequence)));
                continue;
            }
            match self.bodies.remove(&sequence) {
                Some(Event::Tick(i)) => {
                    let Some(node) = &self.nodes[i] else { continue };
                    let mut post = Post(Vec::new());
                    node.tick(self.present(), FRAME_BYTES, &mut post);
                    self.carry(i, post);
                    self.schedule(self.now + 10 * MS, Event::Tick(i));
                }
                Some(Event::Deliver { to, from, bytes }) => {
                    let Some(node) = &self.nodes[to] else { continue };
                    let mut post = Post(Vec::new());
                    // a frame of a replica that is gone is refused, as it should be
                    let _ = node.handle_frame(&from, &bytes, self.present(), &mut post);
                    self.carry(to, post);
                }
                None => {}
            }
        }
        self.now = until;
    }

    pub fn check(&mut self, i: usize, key: &str, cost: u64) -> Decision {
        let check = Check { limit: LimitRef::Named("api"), key, cost, priority: "normal" };
        let decision = self.node(i).check(&check, self.present(), Attempt::First).expect("a decision");
        if self.node(i).press_at().is_some_and(|at| at <= self.present().at) {
            let mut post = Post(Vec::new());
            self.node(i).press(self.present(), FRAME_BYTES, &mut post);
            self.carry(i, post);
        }
        decision
    }

    /// Whether every node counts all others in.
    pub fn settled(&self) -> bool {
        self.nodes.iter().flatten().all(|n| {
            let outlook = n.outlook();
            outlook.admitted && outlook.silent == 0
        })
    }

    pub fn settle(&mut self) {
        let deadline = self.now + 20_000 * MS;
        while !self.settled() {
            assert!(self.now < deadline, "the nodes never met");
            self.run(self.now + 10 * MS);
        }
        self.run(self.now + 500 * MS);
    }
}

/// Overshoot of a trace against one bucket: the high-water mark above `burst` of a queue that drains at the rate.
#[derive(Debug)]
pub struct Bucket {
    pub rate: f64,
    pub burst: f64,
    queue: f64,
    at: u64,
    pub over: f64,
    pub admitted: u64,
}

impl Bucket {
    pub fn new(rate: f64, burst: f64, now: u64) -> Self {
        Self { rate, burst, queue: 0.0, at: now, over: 0.0, admitted: 0 }
    }

    pub fn queue(&self) -> f64 {
        self.queue
    }

    fn drain(&mut self, now: u64) {
        self.queue = (self.queue - self.rate * (now - self.at) as f64 / 1e9).max(0.0);
        self.at = now;
    }

    /// One more charge was admitted, whoever did it.
    pub fn admit(&mut self, now: u64, cost: u64) {
        self.drain(now);
        self.queue += cost as f64;
        self.admitted += cost;
        self.over = self.over.max(self.queue - self.burst);
    }

    /// The central bucket's own decision.
    pub fn offer(&mut self, now: u64, cost: u64) -> bool {
        self.drain(now);
        let fits = self.queue + cost as f64 <= self.burst + 1e-6;
        if fits {
            self.admit(now, cost);
        }
        fits
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Tokens over the limit, at worst.
    pub over: f64,
    /// Admitted over what one central bucket would have admitted.
    pub utilisation: f64,
}

/// Offers `load` times the rate for `millis`, spread by `weights` over the nodes, Poisson, cost 1, one key.
pub fn offer(cluster: &mut Cluster, rate: f64, burst: f64, load: f64, weights: &[f64], millis: u64) -> Outcome {
    let total: f64 = weights.iter().sum();
    let (mut truth, mut oracle) = (Bucket::new(rate, burst, cluster.now), Bucket::new(rate, burst, cluster.now));
    let end = cluster.now + millis * MS;
    let mut arrivals = cluster.random.clone();
    loop {
        let gap = -(1.0 - arrivals.unit()).ln() / (rate * load) * 1e9;
        let at = cluster.now + (gap as u64).max(1);
        if at >= end {
            break;
        }
        cluster.run(at);
        let mut pick = arrivals.unit() * total;
        let i = weights.iter().position(|w| {
            pick -= w;
            pick < 0.0
        });
        let i = i.unwrap_or(weights.len() - 1);
        oracle.offer(at, 1);
        if cluster.check(i, "k", 1).allowed {
            truth.admit(at, 1);
        }
    }
    Outcome { over: truth.over, utilisation: truth.admitted as f64 / oracle.admitted as f64 }
}
