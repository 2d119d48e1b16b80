//! `demand-share`: every node runs a bucket at its share of the rate, by the demand that nodes tell one another of.
//!
//! Source: rateguard 0.7's README and the module texts of rateguard-core 0.7.2 (allocation, demand, hot_set, peer_demand,
//! node): `share = R beta/N + R (1 - beta) own / (own + others)`, beta 0.05; demand counts attempts, smoothed over 1 s;
//! each 200 ms a node probes one peer, going round a shuffled list, and both tell each other their demand; a key is
//! *hot* while its demand is above R/N alpha, alpha 0.5, and for 5 s after, or while a peer says it is; a cold one is
//! held to R/N alpha. A node takes its own demand as old as the oldest of its peers' and a higher share only two rounds
//! later; one that has not heard all peers yet is held to the floor; a dead peer is counted for 10 s more (its default,
//! the hold-down), one that left is not.
//!
//! The burst of a node is the limit's divided by the nodes that run from the start, at least 1: rateguard gives every
//! instance a burst of its own, a twentieth of the rate by default, so its README's 50 on each of five is 250 here.
//!
//! Simplified: no SWIM (membership is the simulation's), no bound on hot keys, limits of every algorithm are buckets of
//! that rate, a peer's last word on a key counts, not the largest of late ones. It must not know how messages travel.

mod share;

use std::collections::BTreeMap;
use std::sync::Arc;

use spillgate_core::time::Nanos;

use super::Strategy;
use super::fluid::{Fluid, rate, too_large};
use super::meters::{Key, key_of};
use super::peers::Peers;
use crate::observe::{Fault, Request};
use crate::scenario::{Endpoint, Scenario};
use crate::world::{Message, World};
use share::{BETA, HotKey, PERIOD, View};

/// About what a key takes in a message, besides the header.
const ENTRY_BYTES: usize = 16;
const HEADER_BYTES: usize = 64;
/// A dead peer counts for so long.
const HOLD_DOWN: Nanos = Nanos::from_secs(10);
/// Part of an even share that a cold key gets.
const ALPHA: f64 = 0.5;

/// What a node says in a probe, or in the answer to one: its demand for the keys that are hot to it.
#[derive(Clone, Debug)]
pub(super) struct Report {
    run: u64,
    answer: bool,
    demands: Arc<[(Key, f64)]>,
}

/// A peer, as one node knows it.
#[derive(Debug, Default)]
struct Peer {
    /// When it was heard last.
    heard: Option<Nanos>,
    demands: BTreeMap<Key, f64>,
    /// Until when it counts though it is dead.
    held_until: Option<Nanos>,
}

/// One process.
#[derive(Debug)]
struct Process {
    started: Nanos,
    keys: BTreeMap<Key, HotKey>,
    others: Vec<Peer>,
    /// Peers to probe, the next one last.
    round: Vec<Endpoint>,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct DemandShare {
    peers: Peers,
    nodes: Vec<Process>,
    /// Over how many a limit's burst is divided.
    bursts: f64,
}

impl Process {
    fn new(nodes: usize, now: Nanos) -> Self {
        let others = (0..nodes).map(|_| Peer::default()).collect();
        Self { started: now, keys: BTreeMap::new(), others, round: Vec::new() }
    }
}

impl Strategy for DemandShare {
    type Message = Report;

    fn new(_name: &'static str, scenario: &Scenario) -> Self {
        let n = scenario.nodes.all.len();
        let bursts = scenario.nodes.initial().max(1) as f64;
        Self { peers: Peers::new(n), nodes: (0..n).map(|_| Process::new(n, Nanos::ZERO)).collect(), bursts }
    }

    fn arrival(&mut self, world: &mut World<'_, Report>, request: &Request) {
        let (rule, now) = (world.rule(request), world.clock(request.node).at);
        if let Some(verdict) = too_large(rule, request.cost) {
            return world.decide(request, verdict);
        }
        let burst = (rule.capacity() as f64 / self.bursts).max(1.0);
        let members = self.counted(request.node, now) as f64;
        let process = &mut self.nodes[request.node];
        let key = process
            .keys
            .entry(key_of(request))
            .or_insert_with(|| HotKey::new(Fluid::full(burst, now), rate(rule) * ALPHA / members, now));
        key.attempted += request.cost;
        key.bucket.settle(now, key.share, burst);
        let verdict = key.bucket.take(request.cost, key.share);
        world.decide(request, verdict);
    }

    fn deliver(&mut self, world: &mut World<'_, Report>, from: Endpoint, to: Endpoint, report: &Report) {
        if self.peers.run(to, from) != Some(report.run) {
            return;
        }
        let peer = &mut self.nodes[to].others[from];
        peer.heard = Some(world.clock(to).at);
        peer.demands = report.demands.iter().copied().collect();
        if !report.answer {
            self.tell(world, to, from, true);
        }
    }

    fn timer(&mut self, world: &mut World<'_, Report>, node: Endpoint, _token: u64) {
        self.share_out(world, node);
        if self.nodes[node].round.is_empty() {
            let mut round: Vec<Endpoint> = self.peers.of(node).collect();
            for last in (1..round.len()).rev() {
                round.swap(last, world.random().below(last as u64 + 1) as usize);
            }
            self.nodes[node].round = round;
        }
        if let Some(peer) = self.nodes[node].round.pop() {
            self.tell(world, node, peer, false);
        }
        world.timer(node, PERIOD, 0);
    }

    fn fault(&mut self, world: &mut World<'_, Report>, fault: Fault) {
        self.peers.note(fault);
        match fault {
            Fault::Up(node) => {
                self.nodes[node] = Process::new(self.nodes.len(), world.clock(node).at);
                let phase = Nanos(world.random().below(PERIOD.0));
                world.timer(node, phase, 0);
            }
            Fault::PeerUp { node, peer, .. } => self.nodes[node].others[peer] = Peer::default(),
            Fault::PeerDead { node, peer, .. } => {
                let until = world.clock(node).at.plus(HOLD_DOWN);
                self.nodes[node].others[peer].held_until = Some(until);
            }
            Fault::PeerLeft { node, peer, .. } if self.peers.run(node, peer).is_none() => {
                self.nodes[node].others[peer] = Peer::default();
            }
            Fault::Leaving(node) => world.gone(node),
            _ => {}
        }
    }
}

impl DemandShare {
    /// The members that a limit is shared out over, the node itself included.
    fn counted(&self, node: Endpoint, now: Nanos) -> usize {
        let held = self.nodes[node].others.iter().filter(|p| p.held_until.is_some_and(|until| now < until));
        self.peers.members(node) + held.count()
    }

    fn tell(&self, world: &mut World<'_, Report>, node: Endpoint, peer: Endpoint, answer: bool) {
        let most = world.scenario().network.datagram_bytes.saturating_sub(HEADER_BYTES) / ENTRY_BYTES;
        let hot = self.nodes[node].keys.iter().filter(|(_, key)| key.primary);
        let mut demands: Vec<(Key, f64)> = hot.map(|(key, hot)| (*key, hot.demand)).collect();
        // what does not fit is the least of it
        demands.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        demands.truncate(most);
        let bytes = HEADER_BYTES + ENTRY_BYTES * demands.len();
        let report = Report { run: world.incarnation(node), answer, demands: demands.into() };
        world.send(node, peer, Message::datagram(bytes, report));
    }

    /// Once a round: demand, who is hot, and everybody's share of it.
    fn share_out(&mut self, world: &World<'_, Report>, node: Endpoint) {
        let now = world.clock(node).at;
        let members = self.counted(node, now);
        let stale = PERIOD.times((3 * members as u64).max(10));
        let live: Vec<Endpoint> = self.peers.of(node).collect();
        let process = &mut self.nodes[node];
        for peer in &mut process.others {
            // what the dead wanted last counts as long as they do
            let held = peer.held_until.is_some_and(|until| now < until);
            if !held && peer.heard.is_some_and(|heard| now.since(heard) >= stale) {
                peer.demands.clear();
            }
        }
        let heard = live.iter().map(|peer| process.others[*peer].heard).collect::<Option<Vec<_>>>();
        let learning = heard.is_none() && now.since(process.started) < stale;
        let as_of = heard.and_then(|all| all.into_iter().min());
        let Process { keys, others, .. } = process;
        keys.retain(|key, state| {
            let of_others: Vec<f64> = others.iter().filter_map(|p| p.demands.get(key).copied()).collect();
            let limit = rate(world.scenario().rule(key.0, key.1));
            let elsewhere = !of_others.is_empty();
            let even = limit / members as f64;
            let hot = state.round(now, even * ALPHA, elsewhere);
            let view = View { limit, members, own: state.demand_at(as_of), others: of_others.iter().sum() };
            let wanted = if hot { state.rising_late(view.share()) } else { even * ALPHA };
            let share = if learning { wanted.min(even * BETA) } else { wanted };
            state.set_share(now, share);
            hot || state.demand > 1e-3
        });
    }
}
