//! `global-token-bucket`, `global-random-drop` and `flow-proportional-share`: what the three designs of one paper have in
//! common, estimates and gossip.
//!
//! Source: Raghavan, Vishwanath, Ramabhadran, Yocum, Snoeren, "Cloud Control with Distributed Rate Limiting" (SIGCOMM
//! 2007): each limiter measures its arrival rate every 50 ms, smoothed with weight 0.1 of the newest, and gossips over
//! UDP to a few peers drawn anew each time; more than 3 buy little.
//!
//! Simplified: in place of push-sum every node passes on the latest estimate it knows of each member, so that sums have
//! no error but age, and a lost message loses nothing; it costs more bytes with many nodes. What a member said is
//! forgotten when membership calls it dead. Limits of every algorithm are of that rate and capacity, and tokens are the
//! paper's bytes. It must not know the designs.

mod flow_proportional_share;
mod global_random_drop;
mod global_token_bucket;

use std::collections::BTreeMap;
use std::sync::Arc;

use spillgate_core::limit::Rule;
use spillgate_core::time::Nanos;

use super::Strategy;
use super::fluid::{rate, too_large};
use super::meters::{Key, key_of};
use super::peers::Peers;
use crate::observe::{Fault, Request, Verdict};
use crate::random::Random;
use crate::scenario::{Endpoint, Scenario};
use crate::world::{Message, World};

pub(super) use flow_proportional_share::FlowProportionalShare;
pub(super) use global_random_drop::GlobalRandomDrop;
pub(super) use global_token_bucket::GlobalTokenBucket;

/// Between estimates.
const ESTIMATE: Nanos = Nanos::from_millis(50);
/// The weight of the newest.
const NEWEST: f64 = 0.1;
/// To how many peers each is sent.
const BRANCHES: usize = 3;
/// What one estimate takes in a message: a hash of the key, who, which, how much.
const ENTRY_BYTES: usize = 24;
const HEADER_BYTES: usize = 16;

/// What a design sees when it decides or reckons.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// The limit's rate, tokens a second.
    limit: f64,
    /// The limit's capacity, tokens.
    burst: f64,
    /// How many members there are, this node included.
    members: usize,
    now: Nanos,
}

/// One key at one limiter.
pub(super) trait Design: Sized + std::fmt::Debug {
    /// Nobody has asked yet.
    fn new(view: View) -> Self;

    /// Whether `cost` tokens may pass.
    fn decide(&mut self, view: View, cost: u64, random: &mut Random) -> Verdict;

    /// An estimate is due: the own arrival rate, and the sum of what the others said. Returns what to say.
    fn estimate(&mut self, view: View, own: f64, others: f64) -> f64;
}

/// What a member said last of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    key: Key,
    member: Endpoint,
    /// Which run of it, and which of its estimates.
    version: (u64, u64),
    value: f64,
}

#[derive(Debug)]
struct KeyState<D> {
    design: D,
    arrived: u64,
    /// Smoothed arrival rate.
    own: f64,
    said: Said,
}

/// What members said last of a key, by member, this node included. There are few, and they are looked up for every
/// estimate of every message: a sorted list is quicker than a map.
#[derive(Debug, Default)]
struct Said(Vec<(Endpoint, (u64, u64), f64)>);

impl Said {
    /// Takes in what is newer than what is known.
    fn hear(&mut self, member: Endpoint, version: (u64, u64), value: f64) {
        match self.0.binary_search_by_key(&member, |said| said.0) {
            Ok(place) if self.0[place].1 < version => self.0[place] = (member, version, value),
            Ok(_) => {}
            Err(place) => self.0.insert(place, (member, version, value)),
        }
    }
}

#[derive(Debug)]
struct Process<D> {
    keys: BTreeMap<Key, KeyState<D>>,
    estimates: u64,
    estimated: Nanos,
}

/// All limiters of a design.
#[derive(Debug)]
pub(super) struct Limiters<D> {
    peers: Peers,
    nodes: Vec<Process<D>>,
}

impl View {
    fn new(rule: &Rule, members: usize, now: Nanos) -> Self {
        Self { limit: rate(rule), burst: rule.capacity() as f64, members, now }
    }
}

impl<D> Process<D> {
    const fn new(now: Nanos) -> Self {
        Self { keys: BTreeMap::new(), estimates: 0, estimated: now }
    }
}

impl<D: Design> KeyState<D> {
    fn new(view: View) -> Self {
        Self { design: D::new(view), arrived: 0, own: 0.0, said: Said::default() }
    }
}

impl<D: Design> Strategy for Limiters<D> {
    type Message = Arc<[Estimate]>;

    fn new(_name: &'static str, scenario: &Scenario) -> Self {
        let n = scenario.nodes.all.len();
        Self { peers: Peers::new(n), nodes: (0..n).map(|_| Process::new(Nanos::ZERO)).collect() }
    }

    fn arrival(&mut self, world: &mut World<'_, Self::Message>, request: &Request) {
        let rule = world.rule(request);
        if let Some(verdict) = too_large(rule, request.cost) {
            return world.decide(request, verdict);
        }
        let view = View::new(rule, self.peers.members(request.node), world.clock(request.node).at);
        let keys = &mut self.nodes[request.node].keys;
        let key = keys.entry(key_of(request)).or_insert_with(|| KeyState::new(view));
        key.arrived += request.cost;
        let verdict = key.design.decide(view, request.cost, world.random());
        world.decide(request, verdict);
    }

    fn deliver(&mut self, world: &mut World<'_, Self::Message>, _from: Endpoint, to: Endpoint, all: &Arc<[Estimate]>) {
        let (members, now) = (self.peers.members(to), world.clock(to).at);
        // of itself, of who is gone and of earlier runs nobody need tell it
        let counts = |e: &&Estimate| self.peers.run(to, e.member) == Some(e.version.0);
        // the estimates of a key stand together
        for of_key in all.chunk_by(|a, b| a.key == b.key) {
            let mut fresh = of_key.iter().filter(counts).peekable();
            let Some(key) = fresh.peek().map(|estimate| estimate.key) else { continue };
            let state = self.nodes[to]
                .keys
                .entry(key)
                .or_insert_with(|| KeyState::new(View::new(world.scenario().rule(key.0, key.1), members, now)));
            fresh.for_each(|estimate| state.said.hear(estimate.member, estimate.version, estimate.value));
        }
    }

    fn timer(&mut self, world: &mut World<'_, Self::Message>, node: Endpoint, _token: u64) {
        self.estimate(world, node);
        self.gossip(world, node);
        world.timer(node, ESTIMATE, 0);
    }

    fn fault(&mut self, world: &mut World<'_, Self::Message>, fault: Fault) {
        self.peers.note(fault);
        match fault {
            Fault::Up(node) => {
                self.nodes[node] = Process::new(world.clock(node).at);
                let phase = Nanos(world.random().below(ESTIMATE.0));
                world.timer(node, phase, 0);
            }
            Fault::PeerDead { node, peer, .. } | Fault::PeerLeft { node, peer, .. }
                if self.peers.run(node, peer).is_none() =>
            {
                for key in self.nodes[node].keys.values_mut() {
                    key.said.0.retain(|said| said.0 != peer);
                }
            }
            Fault::Leaving(node) => world.gone(node),
            _ => {}
        }
    }
}

impl<D: Design> Limiters<D> {
    fn estimate(&mut self, world: &World<'_, Arc<[Estimate]>>, node: Endpoint) {
        let (members, now) = (self.peers.members(node), world.clock(node).at);
        let process = &mut self.nodes[node];
        let passed = now.since(std::mem::replace(&mut process.estimated, now)).as_secs_f64();
        process.estimates += 1;
        let version = (world.incarnation(node), process.estimates);
        process.keys.retain(|key, state| {
            if passed > 0.0 {
                let newest = std::mem::take(&mut state.arrived) as f64 / passed;
                state.own += NEWEST * (newest - state.own);
            }
            let others = state.said.0.iter().filter(|said| said.0 != node).map(|said| said.2).sum();
            let view = View::new(world.scenario().rule(key.0, key.1), members, now);
            let value = state.design.estimate(view, state.own, others);
            state.said.hear(node, version, value);
            // a thousandth of a token a second is nobody's demand
            state.own + others > 1e-3
        });
    }

    fn gossip(&self, world: &mut World<'_, Arc<[Estimate]>>, node: Endpoint) {
        let mut targets: Vec<Endpoint> = self.peers.of(node).collect();
        let branches = BRANCHES.min(targets.len());
        for next in 0..branches {
            let drawn = next + world.random().below((targets.len() - next) as u64) as usize;
            targets.swap(next, drawn);
        }
        targets.truncate(branches);
        let most = (world.scenario().network.datagram_bytes - HEADER_BYTES) / ENTRY_BYTES;
        let all: Vec<Estimate> = self.nodes[node]
            .keys
            .iter()
            .flat_map(|(key, state)| {
                state.said.0.iter().map(|(member, version, value)| Estimate {
                    key: *key,
                    member: *member,
                    version: *version,
                    value: *value,
                })
            })
            .collect();
        for some in all.chunks(most) {
            let estimates: Arc<[Estimate]> = some.into();
            let bytes = HEADER_BYTES + ENTRY_BYTES * estimates.len();
            for target in &targets {
                world.send(node, *target, Message::datagram(bytes, Arc::clone(&estimates)));
            }
        }
    }
}
