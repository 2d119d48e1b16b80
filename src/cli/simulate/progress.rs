//! How far it has come, on standard error: a bar where that is a terminal, else a line a scenario. It must not know what
//! runs come to.

use std::io::{IsTerminal as _, stderr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use indicatif::{ProgressBar, ProgressStyle};

/// Runs done, scenario by scenario.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Name, first job and how many runs are to come.
    scenarios: Vec<(String, usize, AtomicUsize)>,
    /// Whether lines are written: there is no terminal, and more than one scenario to wait for.
    lines: bool,
    over: AtomicUsize,
}

impl Progress {
    /// Of scenarios with so many runs each, whose jobs are numbered through in this order.
    pub fn new<'n>(scenarios: impl Iterator<Item = (&'n str, usize)>) -> Self {
        let mut first = 0;
        let mut all = Vec::new();
        for (name, runs) in scenarios {
            all.push((name.to_owned(), first, AtomicUsize::new(runs)));
            first += runs;
        }
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} runs, {elapsed}, {msg}");
        let bar = ProgressBar::new(first as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let lines = all.len() > 1 && !stderr().is_terminal();
        Self { bar, scenarios: all, lines, over: AtomicUsize::new(0) }
    }

    /// The job of that number is done.
    pub fn done(&self, job: usize) {
        self.bar.inc(1);
        let place = self.scenarios.partition_point(|(_, first, _)| *first <= job).saturating_sub(1);
        let Some((name, _, left)) = self.scenarios.get(place) else { return };
        self.bar.set_message(name.clone());
        if left.fetch_sub(1, Relaxed) == 1 {
            let over = self.over.fetch_add(1, Relaxed) + 1;
            if self.lines {
                let seconds = self.bar.elapsed().as_secs_f64();
                eprintln!("{over} of {} scenarios in {seconds:.1} s: {name}", self.scenarios.len());
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
