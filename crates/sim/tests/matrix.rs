//! A sample of the accuracy matrix comes to what is claimed, and what is recorded of the whole is whole. All of it:
//! `cargo run --release -p spillgate-sim --example matrix`.

#[path = "matrix/mod.rs"]
mod matrix;

use matrix::Cell;
use spillgate_sim::run::run;

/// One cell in so many: a prime, so that all values of each dimension are met.
const EVERY: usize = 89;

#[test]
fn a_sample_of_the_matrix_comes_to_its_claims() {
    let recorded = matrix::recorded();
    let cells: Vec<Cell> = Cell::all().into_iter().filter(|cell| cell.nodes <= 10).step_by(EVERY).collect();
    assert!(cells.len() > 10);
    let mut wrong = Vec::new();
    for cell in cells {
        let scenario = cell.scenario(&recorded);
        for strategy in &scenario.strategies {
            wrong.extend(matrix::complaints(&scenario, &run(&scenario, strategy, scenario.seed)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A claim leans on what was recorded where a goal was missed, so nothing may be left out of the record.
#[test]
fn the_record_has_every_cell() {
    let text = std::fs::read_to_string(matrix::path()).expect("simulations/matrix.csv");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(matrix::HEADER));
    for cell in Cell::all() {
        for strategy in ["strict", "bounded"] {
            let line = lines.next().unwrap_or_default();
            assert!(line.starts_with(&format!("{cell},{strategy},")), "{cell} {strategy}: {line}");
        }
    }
    assert_eq!(lines.next(), None);
}
