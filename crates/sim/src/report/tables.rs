//! Tables for a page of Markdown, put between the marks that name them. It must not know which page it is.
//!
//! A page has its tables between lines of their own:
//!
//! ```text
//! <!-- simulated: questions -->
//! <!-- /simulated -->
//! ```
//!
//! *questions*: strategies by scenarios; *rivals*: who outdoes spillgate where; any other name: scenarios with figures
//! [published](crate::scenario::Published) by that one.

use std::fmt::Write as _;

use spillgate_core::time::Nanos;

use super::rivals::{Rival, described, rivals};
use super::value;
use crate::run::RunResult;
use crate::scenario::{Figure, Published, Scenario};
use crate::strategy;
use crate::trace::TraceHash;

const BEGIN: &str = "<!-- simulated: ";
const BEGIN_CLOSED: &str = " -->";
const END: &str = "<!-- /simulated -->";
/// Before the list of what a table was made of.
const MADE_OF: &str = "<!-- scenario, its text, its runs";
/// A second in which more than this times the rate was admitted counts as over, as rateguard's table has it.
const SECOND_OVER: f64 = 1.01;

/// A scenario, and what its runs came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'r> {
    /// What was run.
    pub scenario: &'r Scenario,
    /// The runs, in the order in which they are shown.
    pub results: &'r [RunResult],
}

/// Why a page can't be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// There is nothing to fill in.
    #[error("no table to fill in: mark its place by the lines \"{BEGIN}questions{BEGIN_CLOSED}\" and \"{END}\"")]
    NoMarks,
    /// A table does not end.
    #[error("line {0}: the table has no end; add the line \"{END}\"")]
    NoEnd(usize),
    /// Nothing was run for it.
    #[error("line {0}: table \"{1}\" would be empty: run scenarios of it, or take it out")]
    Empty(usize, String),
}

/// The names of the tables that `page` has.
#[must_use]
pub fn names(page: &str) -> Vec<&str> {
    page.lines().filter_map(name_of).collect()
}

fn name_of(line: &str) -> Option<&str> {
    line.trim().strip_prefix(BEGIN)?.strip_suffix(BEGIN_CLOSED)
}

/// The page with its tables made anew from `outcomes`; all else of it stays.
///
/// # Errors
/// [`TableError`].
pub fn fill(page: &str, outcomes: &[Outcome<'_>]) -> Result<String, TableError> {
    let mut out = String::with_capacity(page.len());
    let mut lines = page.lines().enumerate();
    let mut any = false;
    while let Some((at, line)) = lines.next() {
        let _ = writeln!(out, "{line}");
        let Some(name) = name_of(line) else { continue };
        any = true;
        let table = table(name, outcomes).ok_or_else(|| TableError::Empty(at + 1, name.to_owned()))?;
        let _ = write!(out, "{table}");
        let end = lines.find(|(_, line)| line.trim() == END).ok_or(TableError::NoEnd(at + 1))?;
        let _ = writeln!(out, "{}", end.1);
    }
    if any { Ok(out) } else { Err(TableError::NoMarks) }
}

/// The table of that name; `None` when nothing was run for it.
fn table(name: &str, outcomes: &[Outcome<'_>]) -> Option<String> {
    // a swarm draws another scenario for every seed
    let all = outcomes.iter().filter(|o| o.scenario.swarm.is_none() && !o.results.is_empty());
    let chosen: Vec<Outcome<'_>> = match name {
        "rivals" => all.copied().collect(),
        "questions" => all.filter(|o| o.scenario.published.is_none()).copied().collect(),
        by => all.filter(|o| o.scenario.published.as_ref().is_some_and(|p| p.by == by)).copied().collect(),
    };
    if chosen.is_empty() {
        return None;
    }
    let text = match name {
        "rivals" => rivals_of(&chosen),
        "questions" => questions(&chosen),
        _ => published(&chosen),
    };
    let made: String = chosen.iter().map(made_of).collect();
    Some(format!("{MADE_OF}\n{made}-->\n\n{text}\n"))
}

/// A scenario's line in the list of what a table was made of: its name, its text and its runs in short. The last is equal
/// only where all runs decided and sent the same: it tells a page that is stale though its rounded figures are not.
fn made_of(Outcome { scenario, results }: &Outcome<'_>) -> String {
    let mut runs = TraceHash::default();
    for result in *results {
        result.strategy.bytes().chain(result.hash.bytes()).for_each(|byte| runs.word(u64::from(byte)));
    }
    format!("{} {:016x} {:016x}\n", scenario.name, scenario.fingerprint, runs.value())
}

/// Why `page` is stale: of `outcomes`, whose tables and lines are not in it as they would be made now; of `others`, which
/// were not run, only whether their texts are those that it was made of.
#[must_use]
pub fn stale<'s>(page: &str, outcomes: &[Outcome<'s>], others: impl IntoIterator<Item = &'s Scenario>) -> Vec<String> {
    let has = |line: &str| page.lines().any(|l| l == line);
    let mut stale = Vec::new();
    for name in names(page) {
        for outcome in outcomes {
            let table = table(name, &[*outcome]).unwrap_or_default();
            let rows = table.lines().filter(|line| line.starts_with("| ") || line.starts_with(&outcome.scenario.name));
            stale.extend(rows.filter(|line| !has(line)).map(|line| format!("{name}: {line}")));
        }
    }
    for scenario in others {
        let begin = format!("{} {:016x} ", scenario.name, scenario.fingerprint);
        if !page.lines().any(|line| line.starts_with(&begin)) {
            stale.push(format!("{begin}..."));
        }
    }
    stale
}

/// Rows of scenarios, columns of strategies.
fn questions(outcomes: &[Outcome<'_>]) -> String {
    let ran = |name: &str| outcomes.iter().flat_map(|o| o.results).any(|r| r.strategy == name);
    // of the oracle it is 0 / 100 by definition
    let columns: Vec<&str> = strategy::ALL.iter().map(|s| s.name).filter(|n| *n != "oracle" && ran(n)).collect();
    let mut out = format!("| scenario | {} |\n| --- |{}\n", columns.join(" | "), " --- |".repeat(columns.len()));
    for Outcome { scenario, results } in outcomes {
        let _ = write!(out, "| {} |", scenario.name);
        for column in &columns {
            let of: Vec<&RunResult> = results.iter().filter(|r| r.strategy == *column).collect();
            let _ = write!(out, " {} |", cell(&of));
        }
        out.push('\n');
    }
    out
}

/// The worst overshoot of these runs and their mean utilisation, percent.
fn cell(runs: &[&RunResult]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let over = runs.iter().map(|r| value(&r.measures, "overshoot_percent")).fold(0.0, f64::max);
    let used: f64 = runs.iter().map(|r| value(&r.measures, "utilisation_percent")).sum();
    format!("{} / {:.1}", percent(over), used / runs.len() as f64)
}

/// As many digits as say something; what is not nothing is not shown as nothing.
fn percent(value: f64) -> String {
    match value {
        v if v <= 0.0 => "0".to_owned(),
        v if v < 0.05 => "<0.1".to_owned(),
        v if v < 10.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn rivals_of(outcomes: &[Outcome<'_>]) -> String {
    let list = |less: bool, ours: &str| {
        let mut out = String::new();
        for outcome in outcomes {
            let all = rivals(outcome.results).filter(|r| r.less_over == less && r.ours.strategy == ours);
            let named: Vec<String> = all.map(|r| rival(&r)).collect();
            if !named.is_empty() {
                let own: Vec<&RunResult> = outcome.results.iter().filter(|r| r.strategy == ours).collect();
                let _ = writeln!(out, "| {} | {} | {} |", outcome.scenario.name, cell(&own), named.join("; "));
            }
        }
        out
    };
    let mut out = String::new();
    for ours in super::rivals::OURS {
        for (less, said) in [(true, "goes over by less"), (false, "goes over by as little")] {
            let rows = list(less, ours);
            let _ = match rows.is_empty() {
                true => writeln!(
                    out,
                    "Of {} scenarios there is none where another {said} and admits more than `{ours}`.\n",
                    outcomes.len()
                ),
                false => writeln!(
                    out,
                    "Where another {said} and admits more than `{ours}` (of {} scenarios):\n\n| scenario | {ours} | who |\n| --- | --- | --- |\n{rows}",
                    outcomes.len()
                ),
            };
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn rival(rival: &Rival<'_>) -> String {
    format!("{} {}", described(rival), cell(&[rival.other]))
}

/// Rows of published figures, each above the runs of the same set-up.
fn published(outcomes: &[Outcome<'_>]) -> String {
    let heads =
        ["set-up", "of", "steady, R", "peak second, R", "seconds over", "overshoot, %", "utilisation, %", "fairness"];
    let mut out = format!("| {} | said |\n|{} --- |\n", heads.join(" | "), " --- |".repeat(heads.len()));
    for Outcome { scenario, results } in outcomes {
        let Some(published) = &scenario.published else { continue };
        let figures = published.figures.iter().map(figure_cells);
        let shown = |r: &&RunResult| published.beside.iter().any(|s| s.name == r.strategy);
        let runs = results.iter().filter(shown).map(|result| run_cells(published, result));
        for (n, cells) in figures.chain(runs).enumerate() {
            let row = if n == 0 { published.row.as_str() } else { "" };
            let _ = writeln!(out, "| {row} | {cells} |");
        }
    }
    out
}

fn figure_cells(figure: &Figure) -> String {
    let times = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.2}"));
    let over = figure.seconds_over.map_or_else(String::new, |n| n.to_string());
    let Figure { of, steady, peak, said, .. } = figure;
    format!("*published: {of}* | {} | {} | {over} | | | | {said}", times(*steady), times(*peak))
}

fn run_cells(published: &Published, result: &RunResult) -> String {
    let second = |at: Nanos| at.as_secs_f64().ceil() as usize;
    let (from, steady_from) = (second(published.span.0), second(published.steady_from));
    let rate: f64 = result.measures.limits.iter().map(|limit| limit.rate).sum();
    let admitted = |second: usize| {
        let tokens = result.measures.limits.iter().filter_map(|limit| limit.by_second.get(second));
        tokens.sum::<u64>() as f64 / rate
    };
    // the second that `until` is within is not whole
    let until = (published.span.1.0 / Nanos::SECOND.0) as usize;
    let steady = (steady_from..until).map(admitted).sum::<f64>() / (until - steady_from) as f64;
    let peak = (from..until).map(admitted).fold(0.0, f64::max);
    let over = (from..until).filter(|second| admitted(*second) > SECOND_OVER).count();
    let of = |name| value(&result.measures, name);
    let (overshoot, used, fairness) = (percent(of("overshoot_percent")), of("utilisation_percent"), of("fairness"));
    let name = &result.strategy;
    format!("{name} | {steady:.2} | {peak:.2} | {over} | {overshoot} | {used:.1} | {fairness:.2} | ")
}
