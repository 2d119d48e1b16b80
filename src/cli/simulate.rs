//! `spillgate simulate`: its arguments, what it prints and which files it writes. It must not know how a run goes, nor
//! how anything is measured.

mod outcome;
mod traced;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context as _, ensure};
use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::{ProgressBar, ProgressStyle};
use spillgate_sim::judge::failures;
use spillgate_sim::report;
use spillgate_sim::run::{RunResult, run_all};
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy::{self, Registered};

use super::Exit;

const EXAMPLES: &str = "\
Examples:
  spillgate simulate simulations/flash-crowd.toml
  spillgate simulate simulations/*.toml --out report        writes report/report.html and more
  spillgate simulate mine.toml --strategy strict,bounded --seeds 100
  spillgate simulate mine.toml --strategy strict --seed 7 --trace decisions.csv
  spillgate simulate mine.toml --baseline before/results.json

A complete scenario:
  duration = \"10s\"
  [[limit]]
  rate = \"1000/s\"
  [[workload]]
  load = 1.5          # times the limit's rate

Equal seeds give equal runs, on any machine. Exits with 0 when every run came to what its scenario
expects and nothing happened that must not, with 1 when not, and with 2 when a scenario is wrong.";

/// Arguments of `spillgate simulate`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArgs {
    /// Scenario files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Run these strategies instead of the scenario's, separated by commas.
    #[arg(long, value_name = "S", value_delimiter = ',', value_parser = names(), hide_possible_values = true)]
    pub strategy: Vec<String>,
    /// The first seed, instead of the scenario's.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How many seeds to run, one after the other from the first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub seeds: Option<u64>,
    /// Write report.html, results.json and results.csv to this directory, which is made if need be.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write every decision as CSV; of more than one run, each to a file with scenario, strategy and seed in its name.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Say what is different from this earlier results.json.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(strategy::ALL.iter().map(|s| s.name))
}

/// What is run of one file.
struct Plan<'a> {
    file: &'a Path,
    scenario: Scenario,
    strategies: Vec<&'static Registered>,
    seeds: Vec<u64>,
}

impl Plan<'_> {
    const fn runs(&self) -> usize {
        self.strategies.len() * self.seeds.len()
    }
}

/// Runs what is asked for and says what came of it.
pub(super) fn run(args: &SimulateArgs, out: &mut impl Write) -> anyhow::Result<Exit> {
    let plans = plan(args)?;
    let baseline = args.baseline.as_deref().map(outcome::read).transpose()?;
    if let Some(dir) = &args.out {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    let runs: usize = plans.iter().map(Plan::runs).sum();
    let bar = progress_bar(runs as u64);
    let mut all = Vec::with_capacity(runs);
    let mut wrong = Vec::new();
    for plan in &plans {
        bar.set_message(plan.scenario.name.clone());
        let results = match &args.trace {
            Some(path) => traced::run_all(plan, path, runs > 1, &bar)?,
            None => {
                let threads = available_parallelism().map_or(1, usize::from);
                run_all(&plan.scenario, &plan.strategies, &plan.seeds, threads, &|_| bar.inc(1))
            }
        };
        results.iter().for_each(|result| wrong.extend(complaints(plan, result)));
        all.extend(results);
    }
    bar.finish_and_clear();
    let mut text = report::terminal(&all);
    if let Some(baseline) = baseline {
        text.push_str(&report::compare(&baseline, &all));
    }
    for complaint in &wrong {
        text.push_str(complaint);
    }
    let verdict =
        if wrong.is_empty() { "all as expected".to_owned() } else { format!("{} not as expected", wrong.len()) };
    text.push_str(&format!("{} of {}: {verdict}\n", counted(runs, "run"), counted(plans.len(), "scenario")));
    out.write_all(text.as_bytes()).context("cannot print")?;
    if let Some(dir) = &args.out {
        outcome::write(dir, &all)?;
    }
    Ok(if wrong.is_empty() { Exit::Ok } else { Exit::Negative })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Reads every file, so that all that is wrong is told at once.
fn plan(args: &SimulateArgs) -> anyhow::Result<Vec<Plan<'_>>> {
    let mut plans = Vec::new();
    let mut problems = Vec::new();
    for file in &args.files {
        match Scenario::load(file) {
            Ok(scenario) => plans.push(plan_one(args, file, scenario)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(plans)
}

fn plan_one<'a>(args: &SimulateArgs, file: &'a Path, scenario: Scenario) -> Plan<'a> {
    let mut strategies: Vec<&'static Registered> = Vec::new();
    for one in args.strategy.iter().filter_map(|name| strategy::find(name)) {
        if !strategies.contains(&one) {
            strategies.push(one);
        }
    }
    if strategies.is_empty() {
        strategies.clone_from(&scenario.strategies);
    }
    let first = args.seed.unwrap_or(scenario.seed);
    // one seed is meant where one is named
    let count = args.seeds.unwrap_or(if args.seed.is_some() { 1 } else { scenario.seeds });
    let seeds = (0..count).map(|n| first.wrapping_add(n)).collect();
    Plan { file, scenario, strategies, seeds }
}

/// Drawn on standard error, and only where that is a terminal.
fn progress_bar(runs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} runs, {elapsed}, {msg}");
    ProgressBar::new(runs).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What a run should not have come to, each with the command that shows it again.
fn complaints(plan: &Plan<'_>, result: &RunResult) -> Vec<String> {
    let again = format!(
        "  again: spillgate simulate {} --strategy {} --seed {}\n",
        plan.file.display(),
        result.strategy,
        result.seed
    );
    let scenario = &result.scenario;
    let failed = failures(&plan.scenario, result).into_iter().map(|f| format!("FAILED {scenario}: {f}\n{again}"));
    let violated = result.violations.iter().map(|v| {
        let key = v.key.as_ref().map(|key| format!(" of key {key}")).unwrap_or_default();
        let at = spillgate_core::time::Nanos(v.at);
        let run = format!("{}, seed {}", result.strategy, result.seed);
        format!("VIOLATION {scenario}: {run}: {}{key} at {at}: {}\n{again}", v.checker, v.what)
    });
    failed.chain(violated).collect()
}

#[cfg(test)]
mod tests;
