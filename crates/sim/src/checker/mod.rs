//! What must hold in every run. Each checker is a file of its own with its derivation; here is what they have in common.
//! It must not know any one of them but in the list.

use serde::{Deserialize, Serialize};

use crate::observe::Observation;
use crate::scenario::Scenario;
use crate::world::Stage;

/// Something that must not happen did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which checker found it.
    pub checker: String,
    /// When, in nanoseconds since the start of the workload.
    pub at: u64,
    /// Under which key, where one is concerned.
    pub key: Option<String>,
    /// What was found, and what should have been.
    pub what: String,
}

/// Watches a run for something that must not happen.
pub trait Checker {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Sees what happens.
    fn observe(&mut self, seen: &Observation<'_>);

    /// The run is over: what was wrong, if anything was.
    fn at_end(&mut self, stage: &Stage<'_>) -> Option<Violation>;
}

/// The checkers that watch a run of `strategy`; all that are on in every run.
#[must_use]
pub fn all(_scenario: &Scenario, _strategy: &str) -> Vec<Box<dyn Checker>> {
    Vec::new()
}
