//! A run over time: what was offered and admitted in each slice of it, and what went wrong when. It must not know how
//! it is drawn.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spillgate_core::time::Nanos;

use crate::observe::{Fault, Observation};
use crate::scenario::{Endpoint, Scenario};

/// The most slices of a run: more than a plot has points, and results stay small.
const SLICES_MAX: u64 = 400;
/// The most faults listed.
const SPANS_MAX: usize = 200;

/// One slice of time of one limit, all its keys together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Tokens asked for.
    pub offered: u64,
    /// Tokens admitted.
    pub admitted: u64,
    /// Tokens that one central bucket a key would have admitted.
    pub central: u64,
    /// The most that one key was over in it, tokens.
    pub overshoot: f64,
    /// The most that a node stated could have been admitted beyond the limit, tokens.
    pub bound: f64,
}

/// A time in which something was wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// What it was.
    pub label: String,
    /// From when, milliseconds since the start of the workload.
    pub from_ms: f64,
    /// Until when.
    pub until_ms: f64,
}

/// How long a slice is, so that a run has a few hundred of them at most.
#[must_use]
pub fn slice_length(scenario: &Scenario) -> Nanos {
    let lasts = scenario.duration.plus(scenario.settle).0;
    scenario.sample_every.max(Nanos(lasts.div_ceil(SLICES_MAX)))
}

/// Gathers the times in which something was wrong.
#[derive(Debug, Default)]
pub(super) struct Spans {
    open: BTreeMap<String, Vec<Nanos>>,
    done: Vec<Span>,
}

impl Spans {
    pub fn note(&mut self, scenario: &Scenario, seen: &Observation<'_>) {
        let node = |node: Endpoint, how: &str| format!("{} {how}", scenario.nodes.name(node));
        match seen {
            Observation::Links { at, label, over: false } => self.begin((*label).to_owned(), *at),
            Observation::Links { at, label, over: true } => self.end(label, *at),
            Observation::Fault { at, fault } => match fault {
                Fault::Crashed(n) | Fault::Gone(n) => self.begin(node(*n, "down"), *at),
                Fault::Up(n) => self.end(&node(*n, "down"), *at),
                Fault::Paused(n) => self.begin(node(*n, "paused"), *at),
                Fault::Resumed(n) => self.end(&node(*n, "paused"), *at),
                _ => {}
            },
            _ => {}
        }
    }

    fn begin(&mut self, label: String, at: Nanos) {
        if self.done.len() < SPANS_MAX {
            self.open.entry(label).or_default().push(at);
        }
    }

    fn end(&mut self, label: &str, at: Nanos) {
        if let Some(from) = self.open.get_mut(label).and_then(Vec::pop) {
            let ms = |at: Nanos| at.0 as f64 / 1e6;
            self.done.push(Span { label: label.to_owned(), from_ms: ms(from), until_ms: ms(at) });
        }
    }

    /// All of them; what is not over lasts to the end.
    pub fn finish(mut self, end: Nanos) -> Vec<Span> {
        let labels: Vec<String> = self.open.keys().cloned().collect();
        for label in labels {
            while self.open.get(&label).is_some_and(|open| !open.is_empty()) {
                self.end(&label, end);
            }
        }
        self.done.sort_by(|a, b| a.from_ms.total_cmp(&b.from_ms).then_with(|| a.label.cmp(&b.label)));
        self.done
    }
}
