//! Results as text and files. It must not know which runs they are of.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use spillgate_sim::measure;
use spillgate_sim::run::RunResult;

/// What the table shows of each run; the files have it all.
const SHOWN: [&str; 4] = ["overshoot", "overshoot_percent", "utilisation_percent", "unanswered"];

/// A table, a run a line.
pub(super) fn terminal(results: &[RunResult]) -> String {
    let mut text = format!("{:<24} {:<16} {:>6}", "scenario", "strategy", "seed");
    for name in SHOWN {
        let _ = write!(text, " {name:>20}");
    }
    text.push('\n');
    for r in results {
        let _ = write!(text, "{:<24} {:<16} {:>6}", r.scenario, r.strategy, r.seed);
        for name in SHOWN {
            let value = r.measures.value(name).map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
            let _ = write!(text, " {value:>20}");
        }
        text.push('\n');
    }
    text
}

/// What is different from `before`, a line a measure.
pub(super) fn compare(before: &[RunResult], now: &[RunResult]) -> String {
    let mut text = String::new();
    for r in now {
        let same = |b: &&RunResult| b.scenario == r.scenario && b.strategy == r.strategy && b.seed == r.seed;
        let run = format!("{}, {}, seed {}", r.scenario, r.strategy, r.seed);
        let Some(old) = before.iter().find(same) else {
            let _ = writeln!(text, "new: {run}");
            continue;
        };
        for name in measure::NAMES {
            let (was, is) = (old.measures.value(name), r.measures.value(name));
            if was != is {
                let show = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
                let _ = writeln!(text, "changed: {run}: {name} from {} to {}", show(was), show(is));
            }
        }
    }
    text
}

/// The results of an earlier results.json.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<RunResult>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the baseline {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no results.json of this version; write it anew with --out", path.display()))
}

/// Writes the files of `--out`.
pub(super) fn write(dir: &Path, results: &[RunResult]) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(results).context("cannot write results as JSON")?;
    let csv = {
        let mut text = format!("scenario,strategy,seed,hash,{}\n", measure::NAMES.join(","));
        for r in results {
            let _ = write!(text, "{},{},{},{}", r.scenario, r.strategy, r.seed, r.hash);
            for name in measure::NAMES {
                let _ = write!(text, ",{}", r.measures.value(name).map_or_else(String::new, |v| v.to_string()));
            }
            text.push('\n');
        }
        text
    };
    for (name, text) in [("results.json", json), ("results.csv", csv)] {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
