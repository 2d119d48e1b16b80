//! Results as files. It must not know which runs they are of.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use spillgate_sim::report;
use spillgate_sim::run::RunResult;

/// The results of an earlier results.json.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<RunResult>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the baseline {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no results.json of this version; write it anew with --out", path.display()))
}

/// Writes the files of `--out`.
pub(super) fn write(dir: &Path, results: &[RunResult]) -> anyhow::Result<()> {
    let (json, csv, html) = (report::json(results), report::csv(results), report::html(results));
    for (name, text) in [("results.json", json), ("results.csv", csv), ("report.html", html)] {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
