//! Runs of which every decision is written down. It must not know what is asked for on the command line.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use spillgate_sim::checker;
use spillgate_sim::run::{Job, Options, RunResult};
use spillgate_sim::strategy::Registered;
use spillgate_sim::trace::TraceWriter;

use super::Plan;
use super::progress::Progress;

/// Makes all runs of `plans`, and writes each run's decisions: to `path`, or where there are several, beside it.
pub(super) fn run_all(plans: &[Plan], path: &Path, progress: &Progress) -> anyhow::Result<Vec<RunResult>> {
    let runs: usize = plans.iter().map(Plan::runs).sum();
    let mut results = Vec::with_capacity(runs);
    for plan in plans {
        for Job { strategy, seed, .. } in Job::all(&plan.scenario, &plan.strategies, &plan.seeds) {
            let path = if runs > 1 { beside(path, plan, strategy, seed) } else { path.to_path_buf() };
            let result = run(plan, strategy, seed, &path);
            progress.done(results.len());
            results.push(result.with_context(|| format!("cannot write {}", path.display()))?);
        }
    }
    Ok(results)
}

/// `decisions.csv` becomes `decisions.flash-crowd.strict.7.csv`.
fn beside(path: &Path, plan: &Plan, strategy: &Registered, seed: u64) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map_or_else(|| "csv".into(), |e| e.to_string_lossy());
    path.with_file_name(format!("{stem}.{}.{}.{seed}.{ending}", plan.scenario.name, strategy.name))
}

fn run(plan: &Plan, strategy: &Registered, seed: u64, path: &Path) -> std::io::Result<RunResult> {
    let scenario = &plan.scenario;
    let mut writer = TraceWriter::new(scenario, BufWriter::new(File::create(path)?))?;
    let checkers = checker::all(scenario, strategy.name);
    let options = Options { checkers, observers: vec![Box::new(&mut writer)] };
    let result = (strategy.run)(strategy.name, scenario, seed, options);
    writer.finish()?;
    Ok(result)
}
