//! The scenarios that are shipped: all can be read, the quick ones come to what they claim. All of them, in full:
//! `cargo run --release -- simulate simulations`.

use std::path::{Path, PathBuf};

use spillgate_sim::judge::failures;
use spillgate_sim::run::{run, run_all};
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy;

/// Those that take a fraction of a second each.
const QUICK: [&str; 8] = [
    "crash-restart",
    "one-node",
    "one-way-link",
    "partition-even",
    "partition-minority",
    "rateguard-one-of-five",
    "sigcomm-load-change",
    "sigcomm-two-limiters",
];

/// What the design promises to ship.
const PROMISED: [&str; 20] = [
    "steady-even",
    "steady-zipf",
    "one-node",
    "moving-node",
    "flash-crowd",
    "cold-flash-crowd",
    "on-off",
    "small-limits",
    "many-keys",
    "lossy-wan",
    "three-regions",
    "partition-even",
    "partition-minority",
    "one-way-link",
    "crash-restart",
    "rolling-restart",
    "join-leave",
    "gc-pause",
    "clock-skew",
    "retry-storm",
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../simulations")
}

fn load(name: &str) -> Scenario {
    let path = directory().join(format!("{name}.toml"));
    Scenario::load(&path).expect("what is shipped can be read")
}

fn shipped() -> Vec<String> {
    let files =
        std::fs::read_dir(directory()).expect("it is there").map(|entry| entry.expect("it can be listed").path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let mut names: Vec<String> =
        files.map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn every_shipped_scenario_can_be_read_says_what_to_expect_and_claims_it() {
    let names = shipped();
    for name in &names {
        let scenario = load(name);
        assert!(!scenario.question.is_empty(), "{name} asks nothing");
        let text = std::fs::read_to_string(directory().join(format!("{name}.toml"))).unwrap();
        let told: String = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(told.contains("xpect"), "{name} does not say what to expect");
        // of a swarm nothing is claimed but what the checkers hold
        let claims = |strategy: &str| scenario.expects.iter().any(|e| e.strategies.iter().any(|s| s == strategy));
        assert!(name == "swarm" || (claims("strict") && claims("bounded")), "{name} claims nothing");
    }
    for name in PROMISED {
        assert!(names.iter().any(|n| n == name), "{name} is not shipped");
    }
}

#[test]
fn the_quick_ones_come_to_what_they_claim() {
    for name in QUICK {
        let scenario = load(name);
        let results = run_all(&scenario, &scenario.strategies, &[scenario.seed], 2, &|_| {});
        assert_eq!(results.len(), scenario.strategies.len());
        for result in &results {
            let failed: Vec<String> = failures(&scenario, result).iter().map(ToString::to_string).collect();
            assert!(failed.is_empty() && result.violations.is_empty(), "{name}: {failed:#?} {:#?}", result.violations);
        }
    }
}

#[test]
fn equal_seeds_give_equal_runs_and_others_do_not() {
    let scenario = load("partition-even");
    let strict = strategy::find("strict").unwrap();
    let (first, second) = (run(&scenario, strict, 1), run(&scenario, strict, 1));
    assert_eq!((&first.hash, first.events), (&second.hash, second.events));
    assert_eq!(first, second);
    assert_ne!(first.hash, run(&scenario, strict, 2).hash);
}

/// Bugs that scenarios have found, each reduced: see the files.
#[test]
fn what_was_found_is_mended() {
    for name in ["join-staggered-news", "heal-two-nodes", "heal-five-costs", "joiner-in-debt"] {
        let scenario = load(&format!("../crates/sim/tests/found/{name}"));
        let seeds: Vec<u64> = (0..scenario.seeds).map(|n| scenario.seed + n).collect();
        let results = run_all(&scenario, &scenario.strategies, &seeds, 2, &|_| {});
        let failed = results.iter().flat_map(|r| failures(&scenario, r)).map(|f| f.to_string());
        assert_eq!(failed.collect::<Vec<_>>(), Vec::<String>::new(), "{name}");
    }
}
