//! Runs the accuracy matrix: `matrix [TEXT...]`, the cells whose names (nodes,burst,delay_ms,loss,demand,load,wait_ms)
//! contain every TEXT. Prints each, and which promise did not hold; run whole, writes `simulations/matrix.csv`.

#[path = "../tests/matrix/mod.rs"]
mod matrix;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use matrix::Cell;
use spillgate_sim::run::run;

fn main() -> std::io::Result<()> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let cells: Vec<Cell> = Cell::all()
        .into_iter()
        .filter(|cell| only.iter().all(|text| cell.to_string().contains(text.as_str())))
        .collect();
    // where all is recorded anew, nothing is held against the record
    let before = if only.is_empty() { Vec::new() } else { matrix::recorded() };
    let (next, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let lines: Mutex<Vec<(usize, String)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((at, cell)) = {
                    let at = next.fetch_add(1, Relaxed);
                    cells.get(at).map(|cell| (at, cell))
                } {
                    let scenario = cell.scenario(&before);
                    for strategy in &scenario.strategies {
                        let result = run(&scenario, strategy, scenario.seed);
                        let line = matrix::line(cell, &result);
                        println!("{line}");
                        for complaint in matrix::complaints(&scenario, &result) {
                            wrong.fetch_add(1, Relaxed);
                            println!("  {complaint}");
                        }
                        lines.lock().expect("nobody panicked").push((at, line));
                    }
                }
            });
        }
    });
    let mut lines = lines.into_inner().expect("nobody panicked");
    lines.sort_by_key(|(at, _)| *at);
    let short = lines.iter().filter(|(_, line)| line.ends_with("no")).count();
    println!("{} runs: {} claims do not hold, {short} runs short of a goal", lines.len(), wrong.into_inner());
    if only.is_empty() {
        let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
        std::fs::write(matrix::path(), format!("{}\n{text}", matrix::HEADER))?;
    }
    Ok(())
}
