//! What is taken, and what is refused and where.

use super::*;

fn parse(text: &str) -> Result<Scenario, Vec<Problem>> {
    Scenario::parse("test", text, &|path| Err(format!("{}: no such file", path.display())))
}

#[test]
fn the_smallest_scenario_is_complete() {
    let scenario = parse("duration = '10s'\n[[limit]]\nrate = '1000/s'\n[[workload]]\nload = 1.5\n").unwrap();
    assert_eq!((scenario.nodes.initial(), scenario.limits[0].name()), (3, "api"));
    assert!((scenario.workloads[0].rate - 1500.0).abs() < 1e-9);
}
