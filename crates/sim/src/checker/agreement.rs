//! `agreement`: once links are whole and nothing is charged, all nodes agree within a stated number of rounds of news.
//!
//! **Derivation.** A charge goes out with the next round, is told again until it is confirmed, and a confirmation goes
//! back with the next round; lost frames cost rounds in proportion. After `AGREE_TICKS` rounds, eight times the longest
//! way and `stale_after`, times the tries that loss makes necessary (`Ground::settling`), every node that still keeps a
//! key knows of each running replica what that replica itself counts, and no charge is unconfirmed. Of processes that
//! are gone nodes may know different things for ever: only the owner tells of itself. And while one that crashed is
//! still awaited its confirmations are missing, so nothing is said of those then.

use std::collections::BTreeMap;

use spillgate_core::time::Nanos;
use spillgate_core::view::{Explanation, ReplicaId};

use super::ground::{Ground, named};
use super::{Checker, Finding};
use crate::observe::Observation;
use crate::scenario::{Endpoint, KeyIndex, LimitIndex, Scenario};
use crate::world::Stage;

type Of = (LimitIndex, KeyIndex, ReplicaId);

pub(super) struct Agreement<'s> {
    ground: Ground<'s>,
    settling: Option<Nanos>,
    at: Nanos,
    own: BTreeMap<Of, u64>,
    heard: Vec<(Endpoint, Of, u64)>,
    found: Option<Finding>,
}

impl<'s> Agreement<'s> {
    pub fn new(scenario: &'s Scenario) -> Self {
        let ground = Ground::new(scenario);
        let settling = ground.settling();
        Self { ground, settling, at: Nanos::ZERO, own: BTreeMap::new(), heard: Vec::new(), found: None }
    }

    fn settled(&self, at: Nanos) -> bool {
        let since = self.ground.quiet_since();
        self.settling.is_some_and(|settling| at.since(since) >= settling) && self.ground.whole()
    }

    fn compare(&mut self) {
        for (node, of, granted) in std::mem::take(&mut self.heard) {
            if let Some(own) = self.own.get(&of).filter(|own| **own != granted && **own > 0) {
                let name = self.ground.scenario.nodes.name(node);
                let what = format!(
                    "{name} knows of {granted} granted by {}, who counts {own}, though nothing has happened for {}",
                    of.2,
                    self.at.since(self.ground.quiet_since())
                );
                let key = Some(named(self.ground.scenario, of.0, of.1));
                self.found.get_or_insert(Finding { at: self.at, key, what });
            }
        }
        self.own.clear();
    }

    fn known(&mut self, node: Endpoint, limit: LimitIndex, key: KeyIndex, explanation: &Explanation) {
        let mut counts = explanation.replicas.iter();
        let Some(own) = counts.next() else { return };
        self.own.insert((limit, key, own.replica.clone()), own.granted);
        for count in counts {
            self.heard.push((node, (limit, key, count.replica.clone()), count.granted));
        }
        if explanation.unacked > 0.0 && explanation.accuracy != "gossip" && self.ground.nobody_missing() {
            let (name, unacked) = (self.ground.scenario.nodes.name(node), explanation.unacked);
            let what = format!(
                "{unacked} tokens of {name} are not confirmed, though nothing has happened for {}",
                self.at.since(self.ground.quiet_since())
            );
            let key = Some(named(self.ground.scenario, limit, key));
            self.found.get_or_insert(Finding { at: self.at, key, what });
        }
    }
}

impl Checker for Agreement<'_> {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        self.ground.note(seen);
        let Observation::Known { at, node, limit, key, explanation: Some(explanation) } = *seen else { return };
        if at != self.at {
            self.compare();
            self.at = at;
        }
        if self.settled(at) {
            self.known(node, limit, key, explanation);
        }
    }

    fn at_end(&mut self, _: &Stage<'_>) -> Option<Finding> {
        self.compare();
        self.found.take()
    }
}
