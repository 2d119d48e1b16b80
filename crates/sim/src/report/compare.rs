//! What changed since an earlier run, in words. It must not know how either came about.

use std::fmt::Write as _;

use super::value;
use super::words::short;
use crate::run::RunResult;

/// Measures that are compared: name, as it is said, and whether more is better.
const COMPARED: [(&str, &str, bool); 7] = [
    ("overshoot", "overshoot, tokens", false),
    ("utilisation_percent", "utilisation, %", true),
    ("false_refusals_percent", "false refusals, %", false),
    ("unanswered", "unanswered requests", false),
    ("convergence_p99_ms", "convergence p99, ms", false),
    ("wait_p99_ms", "wait p99, ms", false),
    ("bytes_per_node_second", "bytes per node and second", false),
];

/// Changes of less than this part of the greater value are not told.
const SLIGHT: f64 = 0.005;

/// What changed from `baseline` to `now`, a line a measure, run by run of the same scenario, strategy and seed.
#[must_use]
pub fn compare(baseline: &[RunResult], now: &[RunResult]) -> String {
    let mut out = String::new();
    let same = |a: &RunResult, b: &RunResult| (&a.scenario, &a.strategy, a.seed) == (&b.scenario, &b.strategy, b.seed);
    for result in now {
        let title = format!("{}, {}, seed {}", result.scenario, result.strategy, result.seed);
        let _ = match baseline.iter().find(|old| same(old, result)) {
            None => writeln!(out, "{title}: new, not in the baseline"),
            Some(old) if old.hash == result.hash && old.violations == result.violations => {
                writeln!(out, "{title}: the same, decision for decision")
            }
            Some(old) => write!(out, "{title}:\n{}", changes(old, result)),
        };
    }
    for old in baseline.iter().filter(|old| !now.iter().any(|result| same(old, result))) {
        let _ = writeln!(out, "{}, {}, seed {}: only in the baseline", old.scenario, old.strategy, old.seed);
    }
    out
}

fn changes(old: &RunResult, now: &RunResult) -> String {
    let mut out = String::new();
    for (name, said, more_is_better) in COMPARED {
        let (before, after) = (value(&old.measures, name), value(&now.measures, name));
        let change = after - before;
        if change.abs() <= SLIGHT * before.abs().max(after.abs()) {
            continue;
        }
        let verdict = if (change > 0.0) == more_is_better { "better" } else { "worse" };
        let _ = writeln!(out, "  {said}: {} -> {} ({verdict})", short(before), short(after));
    }
    if old.violations.len() != now.violations.len() {
        let _ = writeln!(out, "  violations: {} -> {}", old.violations.len(), now.violations.len());
    }
    if out.is_empty() {
        out.push_str("  other decisions, the same in every measure\n");
    }
    out
}
