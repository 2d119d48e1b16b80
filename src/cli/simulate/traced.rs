//! Runs of which every decision is written down. It must not know what is asked for on the command line.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::ProgressBar;
use spillgate_sim::checker;
use spillgate_sim::run::{Options, RunResult};
use spillgate_sim::strategy::Registered;
use spillgate_sim::trace::TraceWriter;

use super::Plan;

/// Runs all of `plan`, and writes each run's decisions: to `path`, or where there are `several`, beside it.
pub(super) fn run_all(
    plan: &Plan<'_>,
    path: &Path,
    several: bool,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<RunResult>> {
    let mut results = Vec::with_capacity(plan.runs());
    for seed in &plan.seeds {
        for strategy in &plan.strategies {
            let path = if several { beside(path, plan, strategy, *seed) } else { path.to_path_buf() };
            let result = run(plan, strategy, *seed, &path);
            results.push(result.with_context(|| format!("cannot write {}", path.display()))?);
            bar.inc(1);
        }
    }
    Ok(results)
}

/// `decisions.csv` becomes `decisions.flash-crowd.strict.7.csv`.
fn beside(path: &Path, plan: &Plan<'_>, strategy: &Registered, seed: u64) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map_or_else(|| "csv".into(), |e| e.to_string_lossy());
    path.with_file_name(format!("{stem}.{}.{}.{seed}.{ending}", plan.scenario.name, strategy.name))
}

fn run(plan: &Plan<'_>, strategy: &Registered, seed: u64, path: &Path) -> std::io::Result<RunResult> {
    let scenario = &plan.scenario;
    let mut writer = TraceWriter::new(scenario, BufWriter::new(File::create(path)?))?;
    let checkers = checker::all(scenario, strategy.name);
    let options = Options { checkers, observers: vec![Box::new(&mut writer)] };
    let result = (strategy.run)(strategy.name, scenario, seed, options);
    writer.finish()?;
    Ok(result)
}
