//! `[[limit]]`: the rules that all strategies are to hold. It must not know how they do.

use std::sync::Arc;

use spillgate_core::limit::{
    Accuracy, Algorithm, CAPACITY_MAX, Limit, LimitError, Limits, MAX_OVERSHOOT_DEFAULT, OnPartition, OverrideSpec,
    Rule, RuleSpec,
};

use super::reader::Table;

/// A limit's place in its scenario.
pub type LimitIndex = usize;

/// A limit of a scenario: core's, but for its accuracy, which is the strategy's to choose.
#[derive(Clone, Debug)]
pub struct ScenarioLimit {
    name: String,
    spec: RuleSpec,
    overrides: Vec<OverrideSpec>,
    limit: Limit,
    max_overshoot: f64,
}

impl ScenarioLimit {
    /// What requests call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The rule that `key` meets.
    #[must_use]
    pub fn rule(&self, key: &str) -> &Arc<Rule> {
        self.limit.rule_for(key)
    }

    /// The rule of keys without an override.
    #[must_use]
    pub const fn own_rule(&self) -> &Arc<Rule> {
        self.limit.rule()
    }

    /// Whether some keys have other rules.
    #[must_use]
    pub fn has_overrides(&self) -> bool {
        !self.overrides.is_empty()
    }

    /// What `bounded` may admit beyond it, as a part of its capacity.
    #[must_use]
    pub const fn max_overshoot(&self) -> f64 {
        self.max_overshoot
    }

    /// The same limit under an accuracy.
    ///
    /// # Errors
    /// Never for one that was read: its other values have been checked.
    pub fn with_accuracy(&self, accuracy: Accuracy) -> Result<Limit, LimitError> {
        Limit::new(&self.name, RuleSpec { accuracy, ..self.spec.clone() }, &self.overrides)
    }

    fn new(name: &str, spec: RuleSpec, overrides: Vec<OverrideSpec>, max_overshoot: f64) -> Result<Self, LimitError> {
        let limit = Limit::new(name, spec.clone(), &overrides)?;
        Ok(Self { name: name.to_owned(), spec, overrides, limit, max_overshoot })
    }
}

/// All limits of a scenario under the accuracy that `choose` gives each.
#[must_use]
pub fn limits_with(limits: &[ScenarioLimit], choose: impl Fn(&ScenarioLimit) -> Accuracy) -> Limits {
    let chosen = limits.iter().map(|l| l.with_accuracy(choose(l)).expect("the limit was checked when it was read"));
    Limits::new(chosen).expect("names were checked to differ when they were read")
}

const ALGORITHMS: [Algorithm; 4] = Algorithm::ALL;

pub(super) fn read_limits(root: &Table<'_>) -> Vec<ScenarioLimit> {
    let mut limits: Vec<ScenarioLimit> = Vec::new();
    root.require("limit", "tables under headers [[limit]]");
    for table in root.tables("limit") {
        let Some(limit) = read_limit(&table) else { continue };
        if limits.iter().any(|l| l.name == limit.name) {
            table.report("name", &format!("name \"{}\" is given twice; give each limit its own", limit.name));
        } else {
            limits.push(limit);
        }
    }
    limits
}

fn read_limit(table: &Table<'_>) -> Option<ScenarioLimit> {
    table.require("rate", "tokens a period, like \"1000/s\"");
    let name = table.text("name").unwrap_or("api");
    let words: Vec<&str> = ALGORITHMS.iter().map(|a| a.as_str()).collect();
    let algorithm = table.choice("algorithm", &words).map_or(Algorithm::TokenBucket, |i| ALGORITHMS[i]);
    let rate = table.rate("rate");
    let burst = table.count("burst", 1, CAPACITY_MAX);
    let max_overshoot = table.fraction("max_overshoot").unwrap_or(MAX_OVERSHOOT_DEFAULT);
    let confirm_wait = table.duration("confirm_wait");
    let max_delay = table.duration("max_delay");
    let policies = [OnPartition::Share, OnPartition::Continue, OnPartition::Deny];
    let on_partition = table.choice("on_partition", &policies.map(OnPartition::as_str));
    let overrides: Vec<Option<OverrideSpec>> = table.tables("override").iter().map(read_override).collect();
    table.close();
    let mut spec = RuleSpec::new(algorithm, rate?);
    spec.burst = burst;
    spec.max_delay = max_delay;
    spec.accuracy = Accuracy::Bounded { max_overshoot };
    spec.confirm_wait = confirm_wait.unwrap_or(spec.confirm_wait);
    spec.on_partition = on_partition.map_or(spec.on_partition, |i| policies[i]);
    let overrides = overrides.into_iter().collect::<Option<Vec<_>>>()?;
    match ScenarioLimit::new(name, spec, overrides, max_overshoot) {
        Ok(limit) => Some(limit),
        Err(error) => {
            table.report(key_at_fault(&error), &error.to_string());
            None
        }
    }
}

fn read_override(table: &Table<'_>) -> Option<OverrideSpec> {
    table.require("key", "the key, or a prefix with * behind it");
    let key = table.text("key");
    let (rate, burst) = (table.rate("rate"), table.count("burst", 1, CAPACITY_MAX));
    if !table.has("rate") && !table.has("burst") {
        table.report("key", "the override changes nothing: give it a rate, a burst or both");
    }
    table.close();
    Some(OverrideSpec { key: key?.to_owned(), rate, burst })
}

/// The key whose value core refused.
const fn key_at_fault(error: &LimitError) -> &'static str {
    match error {
        LimitError::Name(_) | LimitError::Duplicate(_) => "name",
        LimitError::Burst(_) | LimitError::BurstOfWindow(..) => "burst",
        LimitError::DelayOfOther(_) => "max_delay",
        LimitError::MaxOvershoot(_) => "max_overshoot",
        LimitError::Reserve(..) | LimitError::Pattern(_) | LimitError::DuplicatePattern(_) => "override",
    }
}
