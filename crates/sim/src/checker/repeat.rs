//! `repeat`: equal seeds give equal hashes.
//!
//! **Derivation.** A run draws every number from its seed, keeps no map in random order and reads no clock, so that a
//! second run decides and sends the same at the same times. What is hashed is said in `trace`. It takes a second run,
//! so it is asked for rather than on in every one.

use spillgate_core::time::Nanos;

use super::{Finding, Violation};
use crate::run::{Options, RunResult};
use crate::scenario::Scenario;
use crate::strategy::Registered;

/// Runs it again, and says how that differs from `first`, if it does.
#[must_use]
pub fn repeats(scenario: &Scenario, strategy: &Registered, first: &RunResult) -> Option<Violation> {
    let again = (strategy.run)(strategy.name, scenario, first.seed, Options::default());
    if again.hash == first.hash && again.measures == first.measures {
        return None;
    }
    let what = format!("two runs differ: hash {} and {}", first.hash, again.hash);
    let finding = Finding { at: Nanos::ZERO, key: None, what };
    Some(Violation::new("repeat", finding, scenario, strategy.name, first.seed))
}
