//! Runs the accuracy matrix: `matrix [TEXT...]`, the cells whose names (nodes,burst,delay_ms,loss,demand,load,wait_ms)
//! contain every TEXT. Prints each, and which claim did not hold; run whole, writes `simulations/matrix.csv`.

#[path = "../tests/matrix/mod.rs"]
mod matrix;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;

use matrix::Cell;
use spillgate_sim::measure::Measures;
use spillgate_sim::run::{RunResult, run};

fn main() -> std::io::Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |cell: &Cell| only.iter().all(|text| cell.to_string().contains(text.as_str()));
    let cells: Vec<Cell> = Cell::all().into_iter().filter(chosen).collect();
    let recorded = matrix::recorded();
    let (next, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let lines: Mutex<Vec<(usize, String)>> = Mutex::default();
    let work = || {
        while let Some((at, cell)) = cells.iter().enumerate().nth(next.fetch_add(1, Relaxed)) {
            let scenario = cell.scenario(&recorded);
            for strategy in &scenario.strategies {
                let result = run(&scenario, strategy, scenario.seed);
                let line = line(cell, &result);
                let complaints = matrix::complaints(&scenario, &result);
                wrong.fetch_add(complaints.len(), Relaxed);
                let told: String = complaints.iter().map(|complaint| format!("\n  {complaint}")).collect();
                println!("{line}{told}");
                lines.lock().expect("nobody panicked").push((at, line));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut lines = lines.into_inner().expect("nobody panicked");
    // a cell's two lines come in order already
    lines.sort_by_key(|(at, _)| *at);
    let short = lines.iter().filter(|(_, line)| line.ends_with("no")).count();
    println!("{} runs: {} claims do not hold, {short} short of a goal", lines.len(), wrong.into_inner());
    if only.is_empty() {
        let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        std::fs::write(matrix::path(), format!("{}\n{text}", matrix::HEADER))?;
    }
    Ok(())
}

/// A line of the record.
fn line(cell: &Cell, result: &RunResult) -> String {
    let value = |name| result.measures.value(name).unwrap_or(f64::NAN);
    let goal = cell.goal(result.strategy == "strict").map(|goal| goal.to_string()).unwrap_or_default();
    let reached = if reached(cell, &result.strategy, &result.measures) { "yes" } else { "no" };
    format!(
        "{cell},{},{:.2},{:.2},{:.3},{:.3},{:.3},{goal},{reached}",
        result.strategy,
        value("overshoot"),
        value("utilisation_percent"),
        value("false_refusals_percent"),
        value("fairness"),
        value("fairness_oracle"),
    )
}

/// Whether all goals were reached.
fn reached(cell: &Cell, strategy: &str, measures: &Measures) -> bool {
    let value = |name| measures.value(name).unwrap_or(f64::NAN);
    let used = cell.goal(strategy == "strict").is_none_or(|goal| value("utilisation_percent") >= goal);
    let most = cell.false_refusals().filter(|_| strategy == "bounded");
    used && most.is_none_or(|most| value("false_refusals_percent") <= most)
}
