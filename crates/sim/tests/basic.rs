//! Whole runs: they repeat, and spillgate holds what it promises.

use spillgate_sim::run::{RunResult, run, run_all};
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy;

fn scenario(text: &str) -> Scenario {
    Scenario::parse("test", text, &|path| Err(format!("{}: no such file", path.display()))).expect("a scenario")
}

fn outcome(text: &str, strategy: &str, seed: u64) -> RunResult {
    run(&scenario(text), strategy::find(strategy).expect("it exists"), seed)
}

const PLAIN: &str = "
duration = '5s'
[[limit]]
rate = '1000/s'
[[workload]]
load = 1.5
";

#[test]
fn every_strategy_runs_and_repeats() {
    for one in strategy::ALL {
        let (first, second) = (outcome(PLAIN, one.name, 1), outcome(PLAIN, one.name, 1));
        assert_eq!(first, second);
        assert_ne!(first.hash, outcome(PLAIN, one.name, 2).hash, "{}", one.name);
    }
    for own in ["gossip", "bounded", "strict"] {
        let result = outcome(PLAIN, own, 1);
        assert!(result.measures.utilisation() > 0.95, "{result:#?}");
    }
}

#[test]
fn the_oracle_is_exact_and_strict_never_over() {
    let oracle = outcome(PLAIN, "oracle", 1);
    assert_eq!((oracle.measures.value("overshoot"), oracle.measures.utilisation()), (Some(0.0), 1.0));
    assert_eq!(outcome(PLAIN, "strict", 1).measures.value("overshoot"), Some(0.0));
}

#[test]
fn many_at_once_give_the_same_as_one_by_one() {
    let scenario = scenario(PLAIN);
    let strategies: Vec<_> = strategy::ALL.iter().collect();
    let many = run_all(&scenario, &strategies, &[1, 2], 2, &|_| {});
    let alone: Vec<_> = [1, 2]
        .iter()
        .flat_map(|seed| strategies.iter().map(|s| run(&scenario, s, *seed)).collect::<Vec<_>>())
        .collect();
    assert_eq!(many, alone);
}
