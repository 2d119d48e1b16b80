//! What a run came to, as plain data, and its numbers by name. It must not know how they are gathered.

use serde::{Deserialize, Serialize};

use super::durations::Spread;
use super::timeline::{Slice, Span};
use crate::observe::Reason;

/// The measures that `[[expect]]` can name, see [`Measures::value`].
pub const NAMES: &[&str] = &[
    "overshoot",
    "overshoot_percent",
    "utilisation_percent",
    "over_admitted",
    "false_refusals",
    "false_refusals_percent",
    "fairness",
    "fairness_oracle",
    "convergence_median_ms",
    "convergence_p99_ms",
    "convergence_max_ms",
    "wait_median_ms",
    "wait_p99_ms",
    "wait_max_ms",
    "bytes_per_node_second",
    "frames_per_node_second",
    "bound_max",
    "bound_exceeded",
    "offered",
    "admitted",
    "refused_percent",
    "over_limit",
    "unconfirmed",
    "partition",
    "too_large",
    "unreachable",
    "unanswered",
];

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Requests that arrived, and the tokens they asked for.
    pub offered: Volume,
    /// Requests that were allowed.
    pub admitted: Volume,
    /// What one central bucket would have admitted of the same arrivals.
    pub central: Volume,
    /// Requests refused although the true level, that of one bucket fed with all that was admitted, had enough. Those
    /// that are too large or were never answered do not count.
    pub false_refusals: Volume,
    /// Tokens that keys were admitted beyond what the central bucket gave the same key, summed over keys.
    pub over_admitted: u64,
    /// Requests by what became of them, in the order of [`Reason::ALL`].
    pub reasons: Vec<(String, u64)>,
    /// By limit, in the scenario's order.
    pub limits: Vec<LimitMeasures>,
    /// Messages sent, and their bytes.
    pub traffic: Volume,
    /// For how long nodes ran, all together, seconds.
    pub node_seconds: f64,
    /// Jain's index of admitted over offered tokens by node, 0 to 1: 1 when all nodes' clients fare alike.
    pub fairness: f64,
    /// The same of the central bucket: what the arrivals themselves make uneven.
    pub fairness_oracle: f64,
    /// From a charge to its being confirmed by all.
    pub convergence: Spread,
    /// How long clients waited for answers.
    pub waits: Spread,
    /// What went wrong when.
    pub spans: Vec<Span>,
    /// How long a slice of [`LimitMeasures::slices`] is, milliseconds.
    pub slice_ms: f64,
}

/// A number of things, and how much they come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// How many.
    pub count: u64,
    /// Tokens, or bytes.
    pub sum: u64,
}

impl Volume {
    pub(super) const fn add(&mut self, amount: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(amount);
    }
}

/// How well one limit was held.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitMeasures {
    /// Its name.
    pub name: String,
    /// The rate of keys without an override, tokens a second.
    pub rate: f64,
    /// The capacity of keys without an override, tokens.
    pub capacity: u64,
    /// The most that one of its keys was admitted beyond it, tokens.
    pub overshoot: f64,
    /// The most that one of its keys was, as percentage of that key's capacity.
    pub overshoot_percent: f64,
    /// The key of [`Self::overshoot`], where there was any.
    pub worst_key: Option<String>,
    /// Tokens admitted.
    pub admitted: u64,
    /// Tokens that one central bucket a key would have admitted.
    pub central: u64,
    /// The largest that a node stated could have been admitted beyond it, tokens.
    pub bound_max: f64,
    /// The most by which the truth was above what every node stated at the time, tokens.
    pub bound_exceeded: f64,
    /// Its keys by what was asked of each: below the rate, and at or above it.
    pub classes: Vec<KeyClass>,
    /// Tokens admitted in each whole second since the start of the workload.
    #[serde(default)]
    pub by_second: Vec<u64>,
    /// Over time.
    pub slices: Vec<Slice>,
}

/// Keys alike in what is asked of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyClass {
    /// `below the limit`: offered less than the rate over the whole workload; else `above the limit`.
    pub name: String,
    /// How many keys that were asked for.
    pub keys: u64,
    /// How many of them were over at any time.
    pub keys_over: u64,
    /// The most that one was, tokens.
    pub overshoot: f64,
    /// Tokens asked for.
    pub offered: u64,
    /// Tokens admitted.
    pub admitted: u64,
    /// Tokens that one central bucket a key would have admitted.
    pub central: u64,
    /// Requests refused although the true level had enough.
    pub false_refusals: u64,
}

impl Measures {
    /// The measure of that name, one of [`NAMES`]; the worst of all limits where they differ. None of an unknown name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        let most = |of: fn(&LimitMeasures) -> f64| self.limits.iter().map(of).fold(0.0, f64::max);
        let part = |count: u64| if self.offered.count == 0 { 0.0 } else { count as f64 / self.offered.count as f64 };
        let value = match name {
            "overshoot" => most(|l| l.overshoot),
            "overshoot_percent" => most(|l| l.overshoot_percent),
            "utilisation_percent" => self.utilisation() * 100.0,
            "over_admitted" => self.over_admitted as f64,
            "false_refusals" => self.false_refusals.count as f64,
            "false_refusals_percent" => part(self.false_refusals.count) * 100.0,
            "fairness" => self.fairness,
            "fairness_oracle" => self.fairness_oracle,
            "convergence_median_ms" => self.convergence.median_ms,
            "convergence_p99_ms" => self.convergence.p99_ms,
            "convergence_max_ms" => self.convergence.max_ms,
            "wait_median_ms" => self.waits.median_ms,
            "wait_p99_ms" => self.waits.p99_ms,
            "wait_max_ms" => self.waits.max_ms,
            "bytes_per_node_second" => self.per_node_second(self.traffic.sum),
            "frames_per_node_second" => self.per_node_second(self.traffic.count),
            "bound_max" => most(|l| l.bound_max),
            "bound_exceeded" => most(|l| l.bound_exceeded),
            "offered" => self.offered.sum as f64,
            "admitted" => self.admitted.sum as f64,
            "refused_percent" => part(self.offered.count.saturating_sub(self.admitted.count)) * 100.0,
            // what is left in NAMES are reasons
            _ if NAMES.contains(&name) => self.reason(name) as f64,
            _ => return None,
        };
        Some(value)
    }

    /// How many requests were decided so.
    fn reason(&self, name: &str) -> u64 {
        self.reasons.iter().find(|(reason, _)| reason == name).map_or(0, |(_, count)| *count)
    }

    /// Refused requests by reason, without those of which there were none.
    pub fn refusals(&self) -> impl Iterator<Item = (&str, u64)> {
        let granted = Reason::Granted.as_str();
        let all = self.reasons.iter().map(|(reason, count)| (reason.as_str(), *count));
        all.filter(move |(reason, count)| *reason != granted && *count > 0)
    }

    /// Tokens admitted over what one central bucket would have; 1 where that is nothing.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        if self.central.sum == 0 { 1.0 } else { self.admitted.sum as f64 / self.central.sum as f64 }
    }

    /// Drops what is only drawn, for keeping the results of many runs.
    #[must_use]
    pub fn without_plots(mut self) -> Self {
        for limit in &mut self.limits {
            limit.slices = Vec::new();
            limit.by_second = Vec::new();
        }
        self.convergence.bars = Vec::new();
        self.waits.bars = Vec::new();
        self
    }

    fn per_node_second(&self, sum: u64) -> f64 {
        if self.node_seconds > 0.0 { sum as f64 / self.node_seconds } else { 0.0 }
    }
}
