//! `owner-async`: every node answers from its own copy of the key, reports what it granted to the key's owner, and takes
//! over what the owner broadcasts.
//!
//! Source: gubernator's `GLOBAL` behaviour (docs/architecture.md, "Global Behavior", and global.go): hits are gathered
//! and sent to the owner `GlobalSyncWait` (100 ms) after the first of them; the owner adds them up, and as long after the
//! first change it sends the key's state to all peers, which replaces theirs. A node that has no copy answers as if it
//! owned the key.
//!
//! Simplified: only granted hits are reported; excess stays in the owner's count as debt, where gubernator's remaining
//! count ends at zero; what a report that is lost with a connection told is lost, as there. No cap on batches. The first
//! two are in its favour. It must not know how membership works.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillgate_core::algorithm::Meter;
use spillgate_core::time::Nanos;

use super::Strategy;
use super::meters::{Key, Meters, key_of};
use super::owner::owner_of;
use super::peers::Peers;
use crate::observe::{Fault, Request};
use crate::scenario::{Endpoint, Scenario};
use crate::world::{Message, World};

/// From the first hit to its report, and from the first change to its broadcast.
const SYNC_WAIT: Nanos = Nanos::from_millis(100);
const REPORT: u64 = 0;
const BROADCAST: u64 = 1;
/// About what one key takes in a message, besides its text.
const ENTRY_BYTES: usize = 24;

/// What nodes tell one another.
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// So many tokens were granted.
    Hits(Arc<[(Key, u64)]>),
    /// So many tokens are used.
    Used(Arc<[(Key, u64)]>),
}

/// One process.
#[derive(Debug, Default)]
struct Process {
    meters: Meters,
    /// Granted and not reported.
    hits: BTreeMap<Key, u64>,
    /// Owned, changed and not broadcast.
    changed: BTreeSet<Key>,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct OwnerAsync {
    peers: Peers,
    nodes: Vec<Process>,
}

impl Strategy for OwnerAsync {
    type Message = Word;

    fn new(_name: &'static str, scenario: &Scenario) -> Self {
        let n = scenario.nodes.all.len();
        Self { peers: Peers::new(n), nodes: (0..n).map(|_| Process::default()).collect() }
    }

    fn arrival(&mut self, world: &mut World<'_, Word>, request: &Request) {
        let (node, key) = (request.node, key_of(request));
        let process = &mut self.nodes[node];
        let verdict = process.meters.decide(world.rule(request), world.clock(node), request);
        world.decide(request, verdict);
        if !verdict.allowed {
            return;
        }
        if owner_of(&self.peers, node, key) == node {
            process.change(world, node, key);
        } else {
            if process.hits.is_empty() {
                world.timer(node, SYNC_WAIT, REPORT);
            }
            *process.hits.entry(key).or_default() += request.cost;
        }
    }

    fn deliver(&mut self, world: &mut World<'_, Word>, _from: Endpoint, to: Endpoint, word: &Word) {
        let (scenario, now) = (world.scenario(), world.clock(to));
        let process = &mut self.nodes[to];
        match word {
            Word::Hits(hits) => {
                for (key, tokens) in hits.iter() {
                    let rule = scenario.rule(key.0, key.1);
                    process.meters.of(*key, rule, now).charge(rule, now, *tokens);
                    process.change(world, to, *key);
                }
            }
            Word::Used(used) => {
                for (key, tokens) in used.iter() {
                    let rule = scenario.rule(key.0, key.1);
                    let mut meter = Meter::full(rule, now);
                    meter.charge(rule, now, *tokens);
                    *process.meters.of(*key, rule, now) = meter;
                }
            }
        }
    }

    fn timer(&mut self, world: &mut World<'_, Word>, node: Endpoint, token: u64) {
        if token == REPORT { self.report(world, node) } else { self.broadcast(world, node) }
    }

    fn fault(&mut self, world: &mut World<'_, Word>, fault: Fault) {
        self.peers.note(fault);
        match fault {
            Fault::Up(node) => self.nodes[node] = Process::default(),
            Fault::Leaving(node) => {
                self.report(world, node);
                self.broadcast(world, node);
                world.gone(node);
            }
            _ => {}
        }
    }
}

impl Process {
    /// An owned key has changed.
    fn change(&mut self, world: &mut World<'_, Word>, node: Endpoint, key: Key) {
        if self.changed.is_empty() {
            world.timer(node, SYNC_WAIT, BROADCAST);
        }
        self.changed.insert(key);
    }
}

impl OwnerAsync {
    fn report(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        let mut by_owner: BTreeMap<Endpoint, Vec<(Key, u64)>> = BTreeMap::new();
        for (key, tokens) in std::mem::take(&mut self.nodes[node].hits) {
            by_owner.entry(owner_of(&self.peers, node, key)).or_default().push((key, tokens));
        }
        for (owner, hits) in by_owner {
            if owner == node {
                // it owns them only since a moment, and has counted them already
                for (key, _) in hits {
                    self.nodes[node].change(world, node, key);
                }
            } else {
                world.send(node, owner, Message::stream(bytes(world, &hits), Word::Hits(hits.into())));
            }
        }
    }

    fn broadcast(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        let (scenario, now) = (world.scenario(), world.clock(node));
        let process = &mut self.nodes[node];
        let mut used = Vec::new();
        for key in std::mem::take(&mut process.changed) {
            let rule = scenario.rule(key.0, key.1);
            let level = process.meters.of(key, rule, now).level(rule, now).tokens();
            used.push((key, (rule.capacity() as f64 - level).round().max(0.0) as u64));
        }
        if used.is_empty() {
            return;
        }
        let bytes = bytes(world, &used);
        let word = Word::Used(used.into());
        for peer in self.peers.of(node) {
            world.send(node, peer, Message::stream(bytes, word.clone()));
        }
    }
}

fn bytes(world: &World<'_, Word>, entries: &[(Key, u64)]) -> usize {
    entries.iter().map(|(key, _)| ENTRY_BYTES + world.scenario().keys.text(key.1).len()).sum()
}
