//! `[published]`: what others reported of the same set-up, to be shown beside what is measured here. It must not know
//! how it is shown.

use spillgate_core::time::Nanos;

use super::reader::Table;
use crate::strategy::Registered;

/// Somebody's published figures of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Whose: the name of the table in which the scenario is shown.
    pub by: String,
    /// The scenario, as they call it.
    pub row: String,
    /// Over which time the peak second and the seconds over are looked for here, since the start of the workload.
    pub span: (Nanos, Nanos),
    /// From when to the end of the span the steady rate is taken.
    pub steady_from: Nanos,
    /// The strategies that are shown beside the figures.
    pub beside: Vec<&'static Registered>,
    /// The figures; a set-up may have been run in several ways.
    pub figures: Vec<Figure>,
}

/// One published line.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Of what, as they call it.
    pub of: String,
    /// Admitted a second while it lasts, in times the limit's rate.
    pub steady: Option<f64>,
    /// The most in any second, the same way.
    pub peak: Option<f64>,
    /// How many seconds more than 1.01 times the rate was admitted.
    pub seconds_over: Option<u64>,
    /// What else was said, in words; may be empty.
    pub said: String,
}

pub(super) fn read_published(
    root: &Table<'_>,
    duration: Nanos,
    strategies: &[&'static Registered],
) -> Option<Published> {
    let table = root.table("published");
    if !table.is_present() {
        return None;
    }
    table.require("by", "the name of the table that shows it");
    table.require("row", "the scenario as they call it");
    let by = table.text("by").unwrap_or_default().to_owned();
    let row = table.text("row").unwrap_or_default().to_owned();
    let from = table.duration("from").unwrap_or(Nanos::ZERO);
    let until = table.duration("until").unwrap_or(duration);
    let steady_from = table.duration("steady_from").unwrap_or(from);
    if steady_from < from || steady_from.plus(Nanos::SECOND) > until || until > duration {
        table.report("until", "from, steady_from and until must be in order, the last two a second apart or more");
    }
    let beside = super::read_strategies(&table, "beside").unwrap_or_else(|| strategies.to_vec());
    let figures = table.tables("figure").iter().map(read_figure).collect();
    table.close();
    Some(Published { by, row, span: (from, until), steady_from, beside, figures })
}

fn read_figure(table: &Table<'_>) -> Figure {
    table.require("of", "what it is a figure of");
    let figure = Figure {
        of: table.text("of").unwrap_or_default().to_owned(),
        steady: table.number("steady", 0.0, 1e6),
        peak: table.number("peak", 0.0, 1e6),
        seconds_over: table.count("seconds_over", 0, 1_000_000),
        said: table.text("said").unwrap_or_default().to_owned(),
    };
    table.close();
    figure
}
