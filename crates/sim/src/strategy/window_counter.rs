//! `window-counter`: fixed windows, counted by every node for itself, merged by maximum, each change pushed to all peers.
//!
//! Source: Limitador's distributed storage (limitador/src/storage/distributed, `CrCounterValue` and `Broker`): a counter
//! per limit and key has one value for each node and one time of expiry; a request is granted when the sum and its cost
//! do not exceed the limit's maximum; the window begins with its first hit, by the wall clock of the node; a merge takes
//! the larger value and the earlier expiry; what has expired is dropped; a peer that connects is sent what is counted.
//! Nodes keep their names, and so their counters, over restarts.
//!
//! A limit is taken as its capacity in each window of the time in which that comes back, so that the rate is the
//! same: 1000/s with burst 1000 as 1000 a second. (Limitador knows whole seconds only.)
//!
//! Simplified: what changes within 1 ms goes in one message, as on a busy stream; a sliding window is a fixed one, a
//! leaky bucket does not delay. Expired counts of others are always dropped with their window, in its favour. It must
//! not know buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillgate_core::limit::Rule;
use spillgate_core::time::Nanos;

use super::Strategy;
use super::fluid::too_large;
use super::meters::{Key, key_of};
use super::peers::Peers;
use crate::observe::{Fault, Reason, Request, Verdict};
use crate::scenario::{Endpoint, Scenario};
use crate::world::{Message, World};

/// How long changes are gathered.
const FLUSH: Nanos = Nanos::from_millis(1);
/// About what one counter takes in a message, besides its key.
const ENTRY_BYTES: usize = 24;

/// One node's value of a counter, and when it expires, by the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    key: Key,
    value: u64,
    expires: u64,
}

/// A counter as one node has it.
#[derive(Debug, Default)]
struct Count {
    expires: u64,
    own: u64,
    others: BTreeMap<Endpoint, u64>,
}

impl Count {
    /// The sum; nothing once it has expired.
    fn value(&self, wall: u64) -> u64 {
        if wall >= self.expires { 0 } else { self.others.values().fold(self.own, |sum, v| sum.saturating_add(*v)) }
    }

    fn charge(&mut self, rule: &Rule, wall: u64, tokens: u64) {
        if wall >= self.expires {
            *self = Self { expires: wall.saturating_add(rule.window().0), ..Self::default() };
        }
        self.own = self.own.saturating_add(tokens);
    }

    fn merge(&mut self, from: Endpoint, wall: u64, update: &Update) {
        if wall >= update.expires {
            return;
        }
        if wall >= self.expires {
            *self = Self { expires: update.expires, ..Self::default() };
        }
        self.expires = self.expires.min(update.expires);
        let known = self.others.entry(from).or_default();
        *known = update.value.max(*known);
    }
}

/// One process.
#[derive(Debug, Default)]
struct Process {
    counts: BTreeMap<Key, Count>,
    changed: BTreeSet<Key>,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct WindowCounter {
    peers: Peers,
    nodes: Vec<Process>,
}

impl Strategy for WindowCounter {
    type Message = Arc<[Update]>;

    fn new(_name: &'static str, scenario: &Scenario) -> Self {
        let n = scenario.nodes.all.len();
        Self { peers: Peers::new(n), nodes: (0..n).map(|_| Process::default()).collect() }
    }

    fn arrival(&mut self, world: &mut World<'_, Self::Message>, request: &Request) {
        let (node, rule) = (request.node, world.rule(request));
        let wall = world.clock(node).wall;
        let process = &mut self.nodes[node];
        let count = process.counts.entry(key_of(request)).or_default();
        if let Some(verdict) = too_large(rule, request.cost) {
            return world.decide(request, verdict);
        }
        if count.value(wall).saturating_add(request.cost) > rule.capacity() {
            let retry_after = Nanos(count.expires.saturating_sub(wall));
            return world.decide(request, Verdict { retry_after, ..Verdict::denied(Reason::OverLimit) });
        }
        count.charge(rule, wall, request.cost);
        if process.changed.is_empty() {
            world.timer(node, FLUSH, 0);
        }
        process.changed.insert(key_of(request));
        world.decide(request, Verdict::ALLOWED);
    }

    fn deliver(&mut self, world: &mut World<'_, Self::Message>, from: Endpoint, to: Endpoint, updates: &Arc<[Update]>) {
        let wall = world.clock(to).wall;
        for update in updates.iter() {
            self.nodes[to].counts.entry(update.key).or_default().merge(from, wall, update);
        }
    }

    fn timer(&mut self, world: &mut World<'_, Self::Message>, node: Endpoint, _token: u64) {
        let keys = std::mem::take(&mut self.nodes[node].changed);
        let updates = self.updates(world, node, keys.into_iter());
        for peer in self.peers.of(node) {
            tell(world, node, peer, &updates);
        }
    }

    fn fault(&mut self, world: &mut World<'_, Self::Message>, fault: Fault) {
        self.peers.note(fault);
        match fault {
            Fault::Up(node) => self.nodes[node] = Process::default(),
            Fault::PeerUp { node, peer, .. } => {
                let keys: Vec<Key> = self.nodes[node].counts.keys().copied().collect();
                let updates = self.updates(world, node, keys.into_iter());
                tell(world, node, peer, &updates);
            }
            Fault::Leaving(node) => {
                self.timer(world, node, 0);
                world.gone(node);
            }
            _ => {}
        }
    }
}

impl WindowCounter {
    /// What a node has itself counted of these keys, where it counts still.
    fn updates(
        &self,
        world: &World<'_, Arc<[Update]>>,
        node: Endpoint,
        keys: impl Iterator<Item = Key>,
    ) -> Arc<[Update]> {
        let wall = world.clock(node).wall;
        let update = |key| {
            let count = self.nodes[node].counts.get(&key).filter(|c| c.own > 0 && wall < c.expires)?;
            Some(Update { key, value: count.own, expires: count.expires })
        };
        keys.filter_map(update).collect()
    }
}

fn tell(world: &mut World<'_, Arc<[Update]>>, node: Endpoint, peer: Endpoint, updates: &Arc<[Update]>) {
    if updates.is_empty() {
        return;
    }
    let keys = &world.scenario().keys;
    let bytes = updates.iter().map(|u| ENTRY_BYTES + keys.text(u.key.1).len()).sum();
    world.send(node, peer, Message::stream(bytes, Arc::clone(updates)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_by_maximum_and_end_the_window_at_the_earliest() {
        let update = |value, expires| Update { key: (0, 0), value, expires };
        let mut count = Count::default();
        for (value, expires) in [(5, 100), (3, 90), (5, 100), (9, 40)] {
            count.merge(1, 50, &update(value, expires));
        }
        assert_eq!((count.value(50), count.value(90), count.expires), (5, 0, 90));
        count.merge(2, 95, &update(2, 200));
        assert_eq!(count.value(95), 2);
    }
}
