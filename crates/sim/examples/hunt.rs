//! Runs a swarm's seeds on all cores and prints every violation: `hunt FILE FROM COUNT [STRATEGY]`; with `text` for COUNT,
//! the scenario that the seed draws. A file without `[swarm]` is run as it is.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use spillgate_sim::checker::{self, Checker};
use spillgate_sim::run::{Options, RunResult};
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy::{self, Registered};
use spillgate_sim::swarm::Agreement;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let scenario = Scenario::load(Path::new(&args.next().ok_or("which scenario?")?))?;
    let from: u64 = args.next().unwrap_or_default().parse().unwrap_or(scenario.seed);
    let count = args.next().unwrap_or_default();
    if count == "text" {
        println!("{}", scenario.swarm.ok_or("the scenario draws nothing")?.text(from));
        return Ok(());
    }
    let count: u64 = count.parse().unwrap_or(1);
    let only = args.next();
    let strategies: Vec<&Registered> = match &only {
        Some(name) => vec![strategy::find(name).ok_or("no such strategy")?],
        None => scenario.strategies.clone(),
    };
    let (next, bad) = (AtomicU64::new(from), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    for strategy in &strategies {
                        for complaint in one(&scenario, strategy, seed) {
                            bad.fetch_add(1, Relaxed);
                            println!("seed {seed} {}: {complaint}", strategy.name);
                        }
                    }
                }
            });
        }
    });
    println!("{} violations in {count} seeds", bad.into_inner());
    Ok(())
}

fn one(scenario: &Scenario, strategy: &Registered, seed: u64) -> Vec<String> {
    let drawn = scenario.drawn(seed).map(|d| d.expect("what is drawn can be read"));
    let scenario = drawn.as_ref().unwrap_or(scenario);
    let mut agreement = Agreement::new(scenario);
    let checkers = checker::all(scenario, strategy.name);
    let result: RunResult = {
        let observers: Vec<Box<dyn spillgate_sim::observe::Observer + '_>> = vec![Box::new(&mut agreement)];
        (strategy.run)(strategy.name, scenario, seed, Options { checkers, observers })
    };
    let mut complaints: Vec<String> = result.violations.iter().map(|v| format!("{v:?}")).collect();
    if let Some(v) = agreement.verdict() {
        complaints.push(format!("{}: {:?}: {} at {}", agreement.name(), v.key, v.what, v.at));
    }
    if std::env::var_os("MEASURES").is_some() {
        for limit in &result.measures.limits {
            let (over, admitted) = (limit.overshoot_percent, limit.admitted);
            println!(
                "{} seed {seed} {}: {} over {over:.2} %, admitted {admitted}",
                scenario.name, strategy.name, limit.name
            );
        }
    }
    complaints
}
