//! All nodes agree: once requests have ended and what was under way has arrived, every two nodes that run hold the same
//! counters of each watched key. It must not know how they came to agree.
//!
//! A counter is the maximum of what its owner told, and its owner tells it again until all have confirmed it, so in the
//! end they must be equal. Levels need not be until the bucket is full again: one that was full when a charge was made,
//! and a little later when its news came, has lost less refill at the one node than at the other.

use std::collections::BTreeMap;

use spillgate_core::time::Nanos;

use super::QUIET_AFTER;
use crate::checker::{Checker, Finding};
use crate::observe::{Observation, Observer};
use crate::scenario::{Endpoint, KeyIndex, LimitIndex, Scenario};
use crate::world::Stage;

/// After requests have ended and a second for what is held, counters are equal within so many rounds of news.
pub const AGREE_WITHIN_TICKS: u64 = 50;

/// What one node holds of a key: tokens granted by replica. Refunds are left out: no request gives any back, and peers
/// are not told of a counter that has not moved.
type Counters = BTreeMap<(String, u64), u64>;
/// Counters by node, limit and key.
type Held = BTreeMap<(LimitIndex, KeyIndex, Endpoint), Counters>;

/// Watches whether nodes agree in the end.
#[derive(Debug)]
pub struct Agreement<'s> {
    scenario: &'s Scenario,
    /// What each node said at the last sample.
    held: Held,
    at: Nanos,
    found: Option<Finding>,
    /// From when until when they have to agree, since the start of the workload: then they are asked once more.
    span: (Nanos, Nanos),
}

impl<'s> Agreement<'s> {
    /// Of a scenario whose faults all end before its requests do.
    #[must_use]
    pub fn new(scenario: &'s Scenario) -> Self {
        let ticks = scenario.nodes.gossip_interval.times(AGREE_WITHIN_TICKS);
        let until = scenario.duration.plus(scenario.settle);
        let from = scenario.duration.plus(Nanos::from_millis(QUIET_AFTER)).plus(ticks);
        Self { scenario, held: Held::new(), at: Nanos::ZERO, found: None, span: (from, until) }
    }

    fn complain(&mut self, (limit, key): (LimitIndex, KeyIndex), what: String) {
        let key = format!("{} {}", self.scenario.limits[limit].name(), self.scenario.keys.text(key));
        let at = self.at;
        self.found.get_or_insert(Finding { at, key: Some(key), what });
    }

    /// Compares all that was said of one key at one moment.
    fn compare(&mut self) {
        let held = std::mem::take(&mut self.held);
        // what nodes without room for all keys evict begins anew, each at a count of its own; that a full one went is not
        // even counted
        if self.found.is_some() || self.scenario.is_crowded() || self.at < self.span.0 || self.at >= self.span.1 {
            return;
        }
        for ((limit, key, node), counters) in &held {
            for ((_, _, other), others) in held.range((*limit, *key, *node + 1)..=(*limit, *key, Endpoint::MAX)) {
                let differs = counters
                    .iter()
                    .find(|(of, count)| **count > 0 && others.get(*of).is_some_and(|o| o != *count && *o > 0));
                if let Some((of, count)) = differs {
                    let (a, b) = (self.scenario.nodes.name(*node), self.scenario.nodes.name(*other));
                    let theirs = others[of];
                    let what = format!("{a} holds {count} granted of {}#{}, {b} holds {theirs}", of.0, of.1);
                    self.complain((*limit, *key), what);
                }
            }
        }
    }
}

impl Agreement<'_> {
    /// Where two nodes did not agree in the end, the first that was found.
    pub fn verdict(&mut self) -> Option<Finding> {
        self.compare();
        self.found.take()
    }

    fn look(&mut self, seen: &Observation<'_>) {
        let Observation::Known { at, node, limit, key, explanation } = *seen else { return };
        if at != self.at {
            self.compare();
            self.at = at;
        }
        let Some(known) = explanation else { return };
        let counter =
            |r: &spillgate_core::view::ReplicaCount| ((r.replica.node.to_string(), r.replica.incarnation), r.granted);
        let counters = known.replicas.iter().map(counter).collect();
        self.held.insert((limit, key, node), counters);
    }
}

impl Observer for Agreement<'_> {
    fn observe(&mut self, seen: &Observation<'_>) {
        self.look(seen);
    }
}

impl Checker for Agreement<'_> {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        self.look(seen);
    }

    fn at_end(&mut self, _stage: &Stage<'_>) -> Option<Finding> {
        self.verdict()
    }
}
