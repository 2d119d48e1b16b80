//! `counters-grow`: counters only grow, and nobody knows of more than its owner has counted.
//!
//! **Derivation.** A replica's counter of a key is written by that replica alone, begins above anything it ever said of
//! the key, and is merged by maximum; a key that is full and confirmed may be forgotten, 0 then. So what one process knows
//! of a replica never gets less, however frames come; and it is a value that the owner's own counter once had, so never
//! more than that is now. A merge that adds, a frame taken twice, or a count under a wrong replica breaks the second; a
//! merge that takes the last word breaks the first. Of the watched keys, at the first [`NODES_MAX`] nodes. Nothing is said
//! where nodes have no room for all keys: of those they evict (a full one is no eviction that is counted) they may learn
//! anew from a frame that is late.

use std::collections::BTreeMap;

use spillgate_core::time::Nanos;
use spillgate_core::view::ReplicaId;

use super::ground::named;
use super::{Checker, Finding};
use crate::observe::Observation;
use crate::scenario::{Endpoint, KeyIndex, LimitIndex, Scenario};
use crate::world::Stage;

const NODES_MAX: usize = 64;

type Counts = (u64, u64);
type Of = (LimitIndex, KeyIndex, ReplicaId);

pub(super) struct Growth<'s> {
    scenario: &'s Scenario,
    /// What each process last knew of each replica.
    known: BTreeMap<(ReplicaId, LimitIndex, KeyIndex, ReplicaId), Counts>,
    /// What was seen at this moment: what owners say of themselves, and others of them.
    at: Nanos,
    own: BTreeMap<Of, Counts>,
    heard: Vec<(Endpoint, Of, Counts)>,
    found: Option<Finding>,
}

impl<'s> Growth<'s> {
    pub fn new(scenario: &'s Scenario) -> Self {
        let (known, own) = (BTreeMap::new(), BTreeMap::new());
        Self { scenario, known, at: Nanos::ZERO, own, heard: Vec::new(), found: None }
    }

    fn find(&mut self, limit: LimitIndex, key: KeyIndex, what: String) {
        let key = Some(named(self.scenario, limit, key));
        let at = self.at;
        self.found.get_or_insert(Finding { at, key, what });
    }

    /// All that was seen at one moment is there.
    fn compare(&mut self) {
        for (node, of, (granted, refunded)) in std::mem::take(&mut self.heard) {
            let Some((own_granted, own_refunded)) = self.own.get(&of).copied() else { continue };
            // 0: it has forgotten what it counted before, and has counted nothing since
            if own_granted > 0 && (granted > own_granted || refunded > own_refunded) {
                let (name, replica) = (self.scenario.nodes.name(node), &of.2);
                let what = format!(
                    "{name} knows of {granted} granted and {refunded} refunded by {replica}, who counts {own_granted} and {own_refunded}"
                );
                self.find(of.0, of.1, what);
            }
        }
        self.own.clear();
    }
}

impl Checker for Growth<'_> {
    fn name(&self) -> &'static str {
        "counters-grow"
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        let Observation::Known { at, node, limit, key, explanation: Some(explanation) } = *seen else { return };
        if node >= NODES_MAX || self.scenario.is_crowded() {
            return;
        }
        if at != self.at {
            self.compare();
            self.at = at;
        }
        let Some(observer) = explanation.replicas.first().map(|own| own.replica.clone()) else { return };
        for count in &explanation.replicas {
            let counts = (count.granted, count.refunded);
            let of = (limit, key, count.replica.clone());
            if count.replica == observer {
                self.own.insert(of, counts);
            } else {
                self.heard.push((node, of, counts));
            }
            let before = self.known.insert((observer.clone(), limit, key, count.replica.clone()), counts);
            // 0: nothing is known any more, since the key was full and forgotten meanwhile
            let less = |now: u64, before: u64| now > 0 && now < before;
            if let Some((granted, refunded)) = before.filter(|(g, r)| less(counts.0, *g) || less(counts.1, *r)) {
                let (name, replica) = (self.scenario.nodes.name(node), &count.replica);
                let what = format!(
                    "{name} knew of {granted} granted and {refunded} refunded by {replica}, now of {} and {}",
                    counts.0, counts.1
                );
                self.find(limit, key, what);
            }
        }
    }

    fn at_end(&mut self, _: &Stage<'_>) -> Option<Finding> {
        self.compare();
        self.found.take()
    }
}
