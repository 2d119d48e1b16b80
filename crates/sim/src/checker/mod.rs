//! What must hold in every run. Each checker is a file of its own with its derivation; here is what they have in common.
//! It must not know any one of them but in the list.

mod agreement;
mod ground;
mod growth;
mod live_bound;
mod liveness;
mod memory;
mod promise;
mod repeat;

use serde::{Deserialize, Serialize};
use spillgate_core::time::Nanos;

pub use repeat::repeats;

use crate::observe::Observation;
use crate::scenario::Scenario;
use crate::world::Stage;

/// Something that must not happen did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which checker found it.
    pub checker: String,
    /// The run's seed.
    pub seed: u64,
    /// When, in nanoseconds since the start of the workload.
    pub at: u64,
    /// Under which key, where one is concerned, as `limit/key`.
    pub key: Option<String>,
    /// What was found, and what should have been.
    pub what: String,
    /// The command that shows it again, where the scenario stands in `simulations`.
    pub replay: String,
}

impl Violation {
    /// What `checker` found in a run.
    #[must_use]
    pub fn new(checker: &str, finding: Finding, scenario: &Scenario, strategy: &str, seed: u64) -> Self {
        let replay =
            format!("spillgate simulate simulations/{}.toml --strategy {strategy} --seed {seed}", scenario.name);
        let Finding { at, key, what } = finding;
        Self { checker: checker.to_owned(), seed, at: at.0, key, what, replay }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.at as f64 / 1e9;
        write!(f, "{}: seed {} at {seconds:.6} s", self.checker, self.seed)?;
        if let Some(key) = &self.key {
            write!(f, ", key {key}")?;
        }
        write!(f, ": {}\n  replay: {}", self.what, self.replay)
    }
}

/// What a checker found: the first of its kind in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// When, since the start of the workload.
    pub at: Nanos,
    /// Under which key, where one is concerned, as `limit/key`.
    pub key: Option<String>,
    /// What was found, and what should have been.
    pub what: String,
}

/// Watches a run for something that must not happen.
pub trait Checker {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Sees what happens, but messages, requests before they are decided, and refusals other than to a probe.
    fn observe(&mut self, seen: &Observation<'_>);

    /// The run is over: what was wrong, if anything was.
    fn at_end(&mut self, stage: &Stage<'_>) -> Option<Finding>;
}

/// The checkers that watch a run of `strategy`; all that are on in every run. Other systems' strategies promise nothing
/// that could be checked.
#[must_use]
pub fn all<'s>(scenario: &'s Scenario, strategy: &str) -> Vec<Box<dyn Checker + 's>> {
    let ours = ["strict", "bounded", "gossip"].contains(&strategy);
    if !ours {
        return Vec::new();
    }
    vec![
        Box::new(promise::Promise::new(scenario, strategy)),
        Box::new(live_bound::LiveBound::new(scenario, strategy)),
        Box::new(growth::Growth::new(scenario)),
        Box::new(agreement::Agreement::new(scenario)),
        Box::new(liveness::Liveness::new(scenario, strategy)),
        Box::new(memory::Memory::new(scenario)),
    ]
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
