//! Results as files. It must not know which runs they are of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use spillgate_sim::report::{self, tables};
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

/// A page with tables to be made anew.
pub(super) struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    /// Reads it, so that one that can't be filled in is told of before anything is run.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(!tables::names(&text).is_empty(), "{}: {}", path.display(), tables::TableError::NoMarks);
        Ok(Self { path: path.to_path_buf(), text })
    }

    /// Writes it with its tables made from `outcomes`.
    pub fn fill(&self, outcomes: &[tables::Outcome<'_>]) -> anyhow::Result<()> {
        let text = tables::fill(&self.text, outcomes).with_context(|| self.path.display().to_string())?;
        fs::write(&self.path, text).with_context(|| format!("cannot write {}", self.path.display()))
    }
}
