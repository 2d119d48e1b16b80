//! `memory`: no node keeps more keys than it may.
//!
//! **Derivation.** A table of `max_keys` is split into shards whose sizes are rounded down, so that their sum is at most
//! `max_keys`, and a full shard evicts before it takes a key in: at no moment are there more.

use super::{Checker, Finding};
use crate::observe::Observation;
use crate::scenario::Scenario;
use crate::world::Stage;

pub(super) struct Memory<'s> {
    scenario: &'s Scenario,
    found: Option<Finding>,
}

impl<'s> Memory<'s> {
    pub const fn new(scenario: &'s Scenario) -> Self {
        Self { scenario, found: None }
    }
}

impl Checker for Memory<'_> {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        let Observation::Table { at, node, keys, .. } = *seen else { return };
        let most = self.scenario.nodes.max_keys;
        if keys > most && self.found.is_none() {
            let what = format!("{} keeps {keys} keys, {most} are allowed", self.scenario.nodes.name(node));
            self.found = Some(Finding { at, key: None, what });
        }
    }

    fn at_end(&mut self, _: &Stage<'_>) -> Option<Finding> {
        self.found.take()
    }
}
