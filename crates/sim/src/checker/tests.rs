//! Checkers on hand-made observations and on sound runs.

use spillgate_core::time::Nanos;
use spillgate_core::view::{Explanation, ReplicaCount, ReplicaId};

use super::*;
use crate::observe::{Decided, Fault, Reason, Request, Verdict};
use crate::run::run;
use crate::scenario::Endpoint;
use crate::strategy;

const PLAIN: &str = "
duration = '2s'
[[limit]]
rate = '10/s'
burst = 100
[[workload]]
rate = '10/s'
";

fn scenario(text: &str) -> Scenario {
    Scenario::parse("test", text, &|_| Err("no such file".into())).expect("a scenario")
}

fn request(ms: u64, node: Endpoint, cost: u64) -> Request {
    let at = Nanos::from_millis(ms);
    Request { id: ms, first: ms, attempt: 1, workload: 0, limit: 0, key: 0, cost, node, at }
}

fn granted(ms: u64, cost: u64) -> Decided {
    Decided { at: Nanos::from_millis(ms), request: request(ms, 0, cost), verdict: Verdict::ALLOWED }
}

/// What the checkers of `strategy` find in what was seen.
fn find(scenario: &Scenario, strategy: &str, seen: &[Observation<'_>]) -> Vec<(&'static str, Finding)> {
    let mut checkers = all(scenario, strategy);
    let stage = crate::world::Stage::new(scenario, 1);
    let mut found = Vec::new();
    for checker in &mut checkers {
        for node in 0..3 {
            checker.observe(&Observation::Fault { at: Nanos::ZERO, fault: Fault::Up(node) });
        }
        for one in seen {
            checker.observe(one);
        }
        found.extend(checker.at_end(&stage).map(|finding| (checker.name(), finding)));
    }
    found
}

fn names(found: &[(&'static str, Finding)]) -> Vec<&'static str> {
    found.iter().map(|(name, _)| *name).collect()
}

#[test]
fn strict_may_never_be_over_and_bounded_by_what_it_promises() {
    let scenario = scenario(PLAIN);
    let (full, five, six) = (granted(0, 100), granted(0, 5), granted(0, 6));
    let within = [Observation::Decided(&full), Observation::Decided(&five)];
    assert_eq!(names(&find(&scenario, "bounded", &within)), [""; 0]);
    let strict = find(&scenario, "strict", &within);
    assert_eq!(names(&strict), ["promise"]);
    assert_eq!(strict[0].1.key.as_deref(), Some("api/k"), "{strict:?}");
    let beyond = [Observation::Decided(&full), Observation::Decided(&six)];
    assert_eq!(names(&find(&scenario, "bounded", &beyond)), ["promise"]);
    assert_eq!(names(&find(&scenario, "gossip", &beyond)), [""; 0]);
}

#[test]
fn no_promise_holds_once_live_peers_are_taken_for_lost() {
    let scenario = scenario(&format!("{PLAIN}[nodes]\nforget_after = '5s'\n"));
    let (early, late) = (granted(1000, 101), granted(9000, 101));
    let cut = Observation::Links { at: Nanos::ZERO, label: "partition", over: false };
    assert_eq!(names(&find(&scenario, "strict", &[cut, Observation::Decided(&early)])), ["promise"]);
    let cut = Observation::Links { at: Nanos::ZERO, label: "partition", over: false };
    assert_eq!(names(&find(&scenario, "strict", &[cut, Observation::Decided(&late)])), [""; 0]);
}

#[test]
fn a_stated_bound_below_the_truth_is_found() {
    let scenario = scenario(PLAIN);
    let over = granted(50, 104);
    let state = |ms, tokens| Observation::Bound { at: Nanos::from_millis(ms), node: 0, limit: 0, tokens, growth: 0.0 };
    let seen = [state(0, 4.0), Observation::Decided(&over), state(100, 1.0)];
    assert_eq!(names(&find(&scenario, "gossip", &seen)), [""; 0]);
    let seen = [state(0, 3.0), Observation::Decided(&over), state(100, 1.0)];
    assert_eq!(names(&find(&scenario, "gossip", &seen)), ["live-bound"]);
}

fn explanation(counts: &[(&str, u64)], unacked: f64) -> Explanation {
    let count = |(node, granted): &(&str, u64)| ReplicaCount {
        replica: ReplicaId { node: (*node).into(), incarnation: 1 },
        granted: *granted,
        refunded: 0,
        demand: 0.0,
        age: Nanos::ZERO,
    };
    Explanation {
        algorithm: "token-bucket",
        accuracy: "strict",
        rate: "10/s".parse().expect("a rate"),
        capacity: 100,
        level: 100.0,
        unacked,
        allowance: 33.0,
        weight: 0.3,
        demand: 0.0,
        bound: 0.0,
        window: None,
        replicas: counts.iter().map(count).collect(),
    }
}

/// What is found when the first node says `one` of itself and the second `two`, after `seconds`.
fn known(one: &Explanation, two: &Explanation, seconds: u64) -> Vec<(&'static str, Finding)> {
    let at = Nanos::from_secs(seconds);
    let known = |node, explanation| Observation::Known { at, node, limit: 0, key: 0, explanation: Some(explanation) };
    find(&scenario(PLAIN), "strict", &[known(0, one), known(1, two)])
}

#[test]
fn counts_from_nowhere_and_counts_that_never_arrive_are_found() {
    let one = explanation(&[("n1", 10)], 0.0);
    let (same, more, less) = (
        explanation(&[("n2", 5), ("n1", 10)], 0.0),
        explanation(&[("n2", 5), ("n1", 11)], 0.0),
        explanation(&[("n2", 5), ("n1", 9)], 0.0),
    );
    assert_eq!(names(&known(&one, &same, 60)), [""; 0]);
    assert_eq!(names(&known(&one, &more, 0)), ["counters-grow"]);
    assert_eq!(names(&known(&one, &less, 0)), [""; 0]);
    assert_eq!(names(&known(&one, &less, 60)), ["agreement"]);
    let unconfirmed = explanation(&[("n1", 10)], 2.0);
    assert_eq!(names(&known(&unconfirmed, &same, 60)), ["agreement"]);
}

#[test]
fn a_counter_that_shrinks_is_found() {
    let scenario = scenario(PLAIN);
    let (before, after) = (explanation(&[("n1", 10)], 0.0), explanation(&[("n1", 9)], 0.0));
    let known = |ms, explanation| Observation::Known {
        at: Nanos::from_millis(ms),
        node: 0,
        limit: 0,
        key: 0,
        explanation: Some(explanation),
    };
    let found = find(&scenario, "strict", &[known(1, &before), known(2, &after)]);
    assert_eq!((names(&found), found[0].1.at), (vec!["counters-grow"], Nanos::from_millis(2)));
}

#[test]
fn a_full_bucket_that_refuses_after_quiet_is_found() {
    let scenario = scenario(PLAIN);
    let refused = |ms, reason| Decided { verdict: Verdict::denied(reason), ..granted(ms, 1) };
    let full = granted(0, 100);
    for (ms, reason, expected) in [
        (60_000, Reason::OverLimit, vec!["not-for-good"]),
        (60_000, Reason::Unconfirmed, vec!["not-for-good"]),
        // not refilled yet
        (5_000, Reason::OverLimit, vec![]),
        (60_000, Reason::Unreachable, vec![]),
    ] {
        let probed = refused(ms, reason);
        let found = find(&scenario, "strict", &[Observation::Decided(&full), Observation::Probed(&probed)]);
        assert_eq!(names(&found), expected, "{ms} {reason:?}");
    }
}

#[test]
fn too_many_keys_are_found() {
    let scenario = scenario(&format!("{PLAIN}[nodes]\nmax_keys = 10\n"));
    let table = |keys| Observation::Table { at: Nanos::ZERO, node: 1, keys, evictions: 0 };
    assert_eq!(names(&find(&scenario, "bounded", &[table(10)])), [""; 0]);
    assert_eq!(names(&find(&scenario, "bounded", &[table(11)])), ["memory"]);
}

#[test]
fn a_run_that_does_not_repeat_is_found_and_tells_how_to_see_it() {
    let (scenario, strict) = (scenario(PLAIN), strategy::find("strict").expect("it exists"));
    let first = run(&scenario, strict, 7);
    assert_eq!(repeats(&scenario, strict, &first), None);
    let other = crate::run::RunResult { hash: "0".to_owned(), ..first };
    let violation = repeats(&scenario, strict, &other).expect("the hashes differ");
    let text = violation.to_string();
    assert!(text.contains("repeat: seed 7") && text.ends_with("test.toml --strategy strict --seed 7"), "{text}");
}

#[test]
fn sound_runs_with_faults_violate_nothing() {
    let text = "
duration = '6s'
settle = '6s'
[nodes]
count = 4
[network]
latency = '3ms'
loss = 0.05
[[limit]]
rate = '500/s'
[[workload]]
load = 1.5
[[event]]
at = '1s'
kind = 'partition'
sides = [['n1', 'n2'], ['n3', 'n4']]
for = '2s'
[[event]]
at = '4s'
kind = 'crash'
node = 'n2'
for = '500ms'
";
    let scenario = scenario(text);
    for name in ["strict", "bounded", "gossip"] {
        let result = run(&scenario, strategy::find(name).expect("it exists"), 3);
        assert_eq!(result.violations, [], "{name}");
    }
}

/// Passes on half of what nodes state.
struct Halved<'s>(Box<dyn Checker + 's>);

impl Checker for Halved<'_> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        match *seen {
            Observation::Bound { at, node, limit, tokens, growth } => {
                self.0.observe(&Observation::Bound { at, node, limit, tokens: tokens / 2.0, growth: growth / 2.0 });
            }
            _ => self.0.observe(seen),
        }
    }

    fn at_end(&mut self, stage: &Stage<'_>) -> Option<Finding> {
        self.0.at_end(stage)
    }
}

/// Where the sides of a partition do not share, the bound is never below the truth, and not twice what it must be.
#[test]
fn the_bound_stated_in_a_silence_covers_the_truth_and_half_of_it_does_not() {
    let text = |on_partition: &str| {
        format!(
            "
duration = '6s'
[nodes]
count = 2
[network]
latency = '2ms'
[[limit]]
rate = '500/s'
burst = 200
on_partition = '{on_partition}'
[[workload]]
load = 3
[[event]]
at = '1s'
kind = 'partition'
sides = [['n1'], ['n2']]
for = '3s'
"
        )
    };
    for (name, on_partition) in [("gossip", "share"), ("strict", "continue"), ("bounded", "continue")] {
        let (scenario, strategy) = (scenario(&text(on_partition)), strategy::find(name).expect("it exists"));
        for halved in [false, true] {
            let wrap = |checker: Box<dyn Checker>| -> Box<dyn Checker> {
                if halved { Box::new(Halved(checker)) } else { checker }
            };
            let checkers = all(&scenario, name).into_iter().map(wrap).collect();
            let options = crate::run::Options { checkers, observers: Vec::new() };
            let result = (strategy.run)(strategy.name, &scenario, 1, options);
            let found: Vec<_> = result.violations.iter().map(|v| v.checker.as_str()).collect();
            let most = result.measures.value("bound_max");
            let over = result.measures.value("overshoot");
            assert_eq!(
                found,
                if halved { vec!["live-bound"] } else { vec![] },
                "{name}: {over:?} of {most:?}: {:?}",
                result.violations
            );
        }
    }
}
