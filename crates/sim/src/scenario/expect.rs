//! `[[expect]]`: what a scenario claims of its outcome. It must not know how an outcome is measured.

use super::limits::ScenarioLimit;
use super::reader::{Table, shorten, suggestion};
use crate::measure;
use crate::strategy::Registered;

/// A claim about the outcome, for each of its strategies: `min <= measure <= max`.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// Where it stands.
    pub line: usize,
    /// Of which strategies, by name.
    pub strategies: Vec<String>,
    /// Which measure, one of [`measure::NAMES`].
    pub measure: String,
    /// At least.
    pub min: Option<f64>,
    /// At most.
    pub max: Option<f64>,
    /// Where the bound comes from.
    pub why: String,
}

impl Expect {
    /// Whether `found` is within the bounds.
    #[must_use]
    pub fn holds(&self, found: f64) -> bool {
        self.min.is_none_or(|min| found >= min) && self.max.is_none_or(|max| found <= max)
    }
}

pub(super) fn read_expects(
    root: &Table<'_>,
    strategies: &[&'static Registered],
    _limits: &[ScenarioLimit],
) -> Vec<Expect> {
    root.tables("expect").iter().filter_map(|table| read_expect(table, strategies)).collect()
}

fn read_expect(table: &Table<'_>, strategies: &[&'static Registered]) -> Option<Expect> {
    table.require("measure", &format!("one of \"{}\"", measure::NAMES.join("\", \"")));
    table.require("why", "where the bound comes from, in a sentence");
    let named = super::read_strategies(table, "strategy").unwrap_or_else(|| strategies.to_vec());
    for one in &named {
        if !strategies.iter().any(|s| s.name == one.name) {
            table.report("strategy", &format!("strategy \"{}\" is not among the scenario's strategies", one.name));
        }
    }
    let measure = table.text("measure");
    if let Some(name) = measure
        && !measure::NAMES.contains(&name)
    {
        let hint = suggestion(name, measure::NAMES.iter().copied());
        let known = measure::NAMES.join("\", \"");
        table.report("measure", &format!("measure \"{}\" must be one of \"{known}\"{hint}", shorten(name)));
    }
    let (min, max) = (table.number("min", -1e12, 1e12), table.number("max", -1e12, 1e12));
    if !table.has("min") && !table.has("max") {
        table.report("measure", "nothing is claimed: give min, max or both");
    }
    let why = table.text("why").unwrap_or_default().to_owned();
    table.close();
    let strategies = named.iter().map(|s| s.name.to_owned()).collect();
    Some(Expect { line: table.line(), strategies, measure: measure?.to_owned(), min, max, why })
}
