//! `spillgate simulate`: its arguments, what it prints and which files it writes. It must not know how a run goes, nor
//! how anything is measured.

mod outcome;
mod progress;
mod traced;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use clap::builder::PossibleValuesParser;
use spillgate_sim::judge::failures;
use spillgate_sim::report::{self, tables::Outcome};
use spillgate_sim::run::{Job, RunResult, run_jobs};
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy::{self, Registered};

use super::Exit;
use progress::Progress;

const EXAMPLES: &str = "\
Examples:
  spillgate simulate simulations/flash-crowd.toml
  spillgate simulate simulations --out report               all of a directory; writes report/report.html
                                                            and more
  spillgate simulate simulations --table README.md          fills in the tables that README.md marks
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

const TABLE: &str = "\
Make the tables of this page of Markdown anew, each between its lines <!-- simulated: NAME --> and
<!-- /simulated -->; may be given several times. NAME is
  questions   overshoot and utilisation, strategies by scenarios
  rivals      who goes over by no more than spillgate and admits more, and where
  or whose published figures are to be shown beside the runs of the same set-ups";

/// Arguments of `spillgate simulate`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArgs {
    /// Scenario files, and directories of which all *.toml are run.
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
    /// Make the tables of this page of Markdown anew, each between its lines `<!-- simulated: NAME -->` and
    /// `<!-- /simulated -->`; may be given several times.
    #[arg(long, value_name = "FILE", long_help = TABLE)]
    pub table: Vec<PathBuf>,
    /// Say what is different from this earlier results.json.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(strategy::ALL.iter().map(|s| s.name))
}

/// What is run of one file.
struct Plan {
    file: PathBuf,
    scenario: Scenario,
    strategies: Vec<&'static Registered>,
    seeds: Vec<u64>,
}

impl Plan {
    const fn runs(&self) -> usize {
        self.strategies.len() * self.seeds.len()
    }
}

/// Runs what is asked for and says what came of it.
pub(super) fn run(args: &SimulateArgs, out: &mut impl Write) -> anyhow::Result<Exit> {
    let plans = plan(args)?;
    let baseline = args.baseline.as_deref().map(outcome::read).transpose()?;
    let pages = args.table.iter().map(|path| outcome::Page::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(dir) = &args.out {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    let all = run_all(&plans, args.trace.as_deref())?;
    let mut wrong = Vec::new();
    let mut outcomes = Vec::new();
    let mut rest = all.as_slice();
    for plan in &plans {
        let (results, others) = rest.split_at(plan.runs());
        rest = others;
        results.iter().for_each(|result| wrong.extend(complaints(plan, result)));
        outcomes.push(Outcome { scenario: &plan.scenario, results });
    }
    let mut text = report::terminal(&all);
    if let Some(baseline) = baseline {
        text.push_str(&report::compare(&baseline, &all));
    }
    text.extend(wrong.iter().map(String::as_str));
    let violations: usize = all.iter().map(|result| result.violations.len()).sum();
    let verdict = match wrong.len() + violations {
        0 => "all as expected".to_owned(),
        count => format!("{count} not as expected"),
    };
    text.push_str(&format!("{} of {}: {verdict}\n", counted(all.len(), "run"), counted(plans.len(), "scenario")));
    out.write_all(text.as_bytes()).context("cannot print")?;
    if let Some(dir) = &args.out {
        outcome::write(dir, &all)?;
    }
    pages.iter().try_for_each(|page| page.fill(&outcomes))?;
    Ok(if wrong.is_empty() && violations == 0 { Exit::Ok } else { Exit::Negative })
}

/// The results come plan by plan.
fn run_all(plans: &[Plan], trace: Option<&Path>) -> anyhow::Result<Vec<RunResult>> {
    let progress = Progress::new(plans.iter().map(|plan| (plan.scenario.name.as_str(), plan.runs())));
    if let Some(path) = trace {
        return traced::run_all(plans, path, &progress);
    }
    let jobs: Vec<Job<'_>> =
        plans.iter().flat_map(|plan| Job::all(&plan.scenario, &plan.strategies, &plan.seeds)).collect();
    let threads = available_parallelism().map_or(1, usize::from);
    Ok(run_jobs(&jobs, threads, &|job| progress.done(job)))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Reads every file, so that all that is wrong is told at once.
fn plan(args: &SimulateArgs) -> anyhow::Result<Vec<Plan>> {
    let mut plans = Vec::new();
    let mut problems = Vec::new();
    for file in files(&args.files)? {
        match Scenario::load(&file) {
            Ok(scenario) => plans.push(plan_one(args, file, scenario)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(plans)
}

/// What is named; of a directory all scenarios in it, by name.
fn files(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let context = || format!("cannot list the directory {}", path.display());
        let entries = fs::read_dir(path).with_context(context)?;
        let mut within = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().with_context(context)?;
        within.retain(|file| file.extension() == Some(OsStr::new("toml")));
        within.sort();
        if within.is_empty() {
            bail!("{}: no scenario in this directory; their names end in .toml", path.display());
        }
        files.extend(within);
    }
    Ok(files)
}

fn plan_one(args: &SimulateArgs, file: PathBuf, scenario: Scenario) -> Plan {
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

/// What a run claimed and did not come to, each with the command that shows it again.
fn complaints(plan: &Plan, result: &RunResult) -> Vec<String> {
    let again = format!(
        "  again: spillgate simulate {} --strategy {} --seed {}\n",
        plan.file.display(),
        result.strategy,
        result.seed
    );
    let scenario = &result.scenario;
    failures(&plan.scenario, result).into_iter().map(|f| format!("FAILED {scenario}: {f}\n{again}")).collect()
}

#[cfg(test)]
mod tests;
