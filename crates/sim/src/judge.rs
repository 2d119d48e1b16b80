//! Whether a run came to what its scenario claims. It must not know how a run goes, nor how anything is measured.

use std::fmt;

use crate::run::RunResult;
use crate::scenario::{Expect, Scenario};

/// A claim of a scenario that a run did not come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failure<'r> {
    /// What was claimed.
    pub expect: &'r Expect,
    /// Of which run.
    pub result: &'r RunResult,
    /// What was measured; `None` where the measure does not apply to the run.
    pub found: Option<f64>,
}

/// Every claim of `scenario` about the strategy of `result` that does not hold, in the order of the file.
#[must_use]
pub fn failures<'r>(scenario: &'r Scenario, result: &'r RunResult) -> Vec<Failure<'r>> {
    let mine = scenario.expects.iter().filter(|e| e.strategies.contains(&result.strategy));
    let judged = mine.map(|expect| Failure { expect, result, found: result.measures.value(&expect.measure) });
    judged.filter(|f| !f.found.is_some_and(|found| f.expect.holds(found))).collect()
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expect, result, found } = self;
        write!(f, "{}, seed {}: {} is ", result.strategy, result.seed, expect.measure)?;
        match found {
            Some(found) => write!(f, "{found:.4}")?,
            None => f.write_str("not measured in this run")?,
        }
        f.write_str(", expected ")?;
        match (expect.min, expect.max) {
            (Some(min), Some(max)) => write!(f, "{min} to {max}")?,
            (Some(min), None) => write!(f, "at least {min}")?,
            (None, Some(max)) => write!(f, "at most {max}")?,
            (None, None) => f.write_str("anything")?,
        }
        write!(f, " (line {}: {})", expect.line, expect.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run, strategy};

    const TEXT: &str = "
duration = '1s'
[[limit]]
rate = '100/s'
[[workload]]
load = 3
[[expect]]
strategy = 'oracle'
measure = 'utilisation_percent'
min = 100
max = 100
why = 'it is the measure itself'
[[expect]]
strategy = ['oracle', 'strict']
measure = 'overshoot'
min = 1
why = 'wrong: nobody is over'
[[expect]]
strategy = 'gossip'
measure = 'overshoot'
min = 1e9
why = 'of another strategy'
";

    #[test]
    fn what_does_not_hold_is_told_and_nothing_else() {
        let scenario = Scenario::parse("test", TEXT, &|_| Err(String::new())).unwrap();
        let result = run::run(&scenario, strategy::find("oracle").unwrap(), 7);
        let failed: Vec<String> = failures(&scenario, &result).iter().map(ToString::to_string).collect();
        let expected = "oracle, seed 7: overshoot is 0.0000, expected at least 1 (line 13: wrong: nobody is over)";
        assert_eq!(failed, [expected]);
    }
}
