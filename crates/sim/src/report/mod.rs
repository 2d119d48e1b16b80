//! What runs came to, for people and machines: a table, JSON, CSV, a comparison, and one page of HTML. It must not know
//! how anything was measured.

mod compare;
mod html;
mod over_time;
mod plot;
mod rivals;
pub mod tables;
mod words;

use std::fmt::Write as _;

use crate::measure::{Measures, NAMES};
use crate::run::RunResult;

pub use compare::compare;
pub use html::html;
pub use rivals::{OURS, Rival, rivals};

/// Columns of the terminal's table: head, measure, unit and decimals.
const COLUMNS: [(&str, &str, usize); 6] = [
    ("over tokens", "overshoot", 1),
    ("over %", "overshoot_percent", 1),
    ("util %", "utilisation_percent", 1),
    ("conv p99 ms", "convergence_p99_ms", 1),
    ("wait p99 ms", "wait_p99_ms", 1),
    ("B/node/s", "bytes_per_node_second", 0),
];

/// A table for the terminal: under a line for each scenario one line a run, and who outdoes spillgate in it; every
/// violation below.
#[must_use]
pub fn terminal(results: &[RunResult]) -> String {
    let mut out = String::new();
    let width = results.iter().map(|r| r.strategy.len()).max().unwrap_or(0).max(8);
    for results in results.chunk_by(|a, b| a.scenario == b.scenario) {
        let heads = COLUMNS.map(|(head, ..)| format!("{head:>11}")).join("  ");
        let _ = writeln!(out, "{}\n  {:width$}  seed  {heads}  refused", results[0].scenario, "strategy");
        for result in results {
            let values = COLUMNS.map(|(_, name, digits)| format!("{:>11.digits$}", value(&result.measures, name)));
            let (values, refused) = (values.join("  "), refusals(&result.measures));
            let _ = writeln!(out, "  {:width$}  {:>4}  {values}  {refused}", result.strategy, result.seed);
        }
        results.chunk_by(|a, b| a.seed == b.seed).for_each(|seed| out.push_str(&rivals::sentence(seed)));
    }
    for result in results {
        for violation in &result.violations {
            let _ = writeln!(out, "VIOLATION {}: {}, {violation}", result.scenario, result.strategy);
        }
    }
    out
}

/// All results as JSON, to be read again as the baseline of [`compare()`].
#[must_use]
pub fn json(results: &[RunResult]) -> String {
    serde_json::to_string_pretty(results).expect("plain data with textual keys always has a JSON form")
}

/// One line a run with every measure of [`NAMES`], under a line with their names.
#[must_use]
pub fn csv(results: &[RunResult]) -> String {
    let mut out = format!("scenario,strategy,seed,hash,violations,{}\n", NAMES.join(","));
    for result in results {
        let RunResult { strategy, seed, hash, measures, violations, .. } = result;
        let scenario = quoted(&result.scenario);
        let values: Vec<String> = NAMES.iter().map(|name| value(measures, name).to_string()).collect();
        let _ = writeln!(out, "{scenario},{strategy},{seed},{hash},{},{}", violations.len(), values.join(","));
    }
    out
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn value(measures: &Measures, name: &str) -> f64 {
    measures.value(name).unwrap_or(f64::NAN)
}

fn refusals(measures: &Measures) -> String {
    let all: Vec<String> = measures.refusals().map(|(reason, count)| format!("{reason} {count}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests;
