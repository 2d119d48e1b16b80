//! `static`: every node holds its fixed part of the limit and never talks to the others.
//!
//! Source: the advice that load balancers' and proxies' manuals give for limits without shared state (nginx `limit_req`,
//! Envoy's local rate limit): divide by the number of instances. The number is that of all nodes the scenario ever has,
//! so that the parts never come to more than the limit. A bucket's rate is divided exactly; of burst, and of a window's
//! content, the first nodes get one token more where it can't be divided; a node whose part is nothing refuses.
//!
//! Simplified: nobody changes the division when nodes come and go. It must not know its peers.

use std::collections::BTreeMap;

use spillgate_core::limit::{Origin, Rule, RuleSpec};
use spillgate_core::rate::Rate;

use super::Strategy;
use super::meters::{Key, Meters};
use crate::observe::{Fault, Reason, Request, Verdict};
use crate::scenario::Scenario;
use crate::world::World;

/// All nodes.
#[derive(Debug)]
pub(super) struct FixedSplit {
    nodes: Vec<Meters>,
    /// The rules of the nodes, by limit, and by key where keys have their own.
    rules: BTreeMap<Key, Vec<Option<Rule>>>,
}

impl Strategy for FixedSplit {
    type Message = ();

    fn new(_name: &'static str, scenario: &Scenario) -> Self {
        let nodes = scenario.nodes.all.iter().map(|_| Meters::default()).collect();
        Self { nodes, rules: BTreeMap::new() }
    }

    fn arrival(&mut self, world: &mut World<'_, ()>, request: &Request) {
        let key = if world.scenario().limits[request.limit].has_overrides() { request.key } else { 0 };
        let whole = world.rule(request);
        let nodes = self.nodes.len() as u64;
        let rules = self
            .rules
            .entry((request.limit, key))
            .or_insert_with(|| (0..nodes).map(|node| part(whole, node, nodes)).collect());
        let verdict = match &rules[request.node] {
            // a part of a limit can be too small where the limit is not
            Some(rule) if request.cost <= rule.capacity() || request.cost > whole.capacity() => {
                self.nodes[request.node].decide(rule, world.clock(request.node), request)
            }
            _ => Verdict::denied(Reason::OverLimit),
        };
        world.decide(request, verdict);
    }

    fn fault(&mut self, world: &mut World<'_, ()>, fault: Fault) {
        match fault {
            Fault::Up(node) => self.nodes[node] = Meters::default(),
            Fault::Leaving(node) => world.gone(node),
            _ => {}
        }
    }
}

/// The rule of one of so many nodes; none where its part is nothing.
fn part(whole: &Rule, node: u64, nodes: u64) -> Option<Rule> {
    let split = |tokens: u64| tokens / nodes + u64::from(node < tokens % nodes);
    let rate = whole.rate();
    let capacity = split(whole.capacity());
    let spec = if whole.algorithm().windowed() {
        RuleSpec { rate: Rate::new(capacity, rate.period()).ok()?, ..whole.spec().clone() }
    } else {
        let exact = Rate::new(rate.tokens(), rate.period().times(nodes));
        let rate = exact.or_else(|_| Rate::new(split(rate.tokens()), rate.period())).ok()?;
        RuleSpec { rate, burst: Some(capacity), ..whole.spec().clone() }
    };
    Rule::new(whole.limit(), Origin::Configured, spec).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillgate_core::limit::Algorithm;

    fn parts(algorithm: Algorithm, rate: &str, burst: Option<u64>, nodes: u64) -> Vec<(u64, f64)> {
        let spec = RuleSpec { burst, ..RuleSpec::new(algorithm, rate.parse().unwrap()) };
        let whole = Rule::new("test", Origin::Configured, spec).unwrap();
        let one = |node| part(&whole, node, nodes).map_or((0, 0.0), |r| (r.capacity(), r.rate().per_second()));
        (0..nodes).map(one).collect()
    }

    #[test]
    fn the_parts_come_to_the_whole() {
        let bucket = parts(Algorithm::TokenBucket, "10/s", Some(7), 3);
        assert_eq!(bucket.iter().map(|p| p.0).collect::<Vec<_>>(), [3, 2, 2]);
        assert!((bucket.iter().map(|p| p.1).sum::<f64>() - 10.0).abs() < 1e-9);
        let window = parts(Algorithm::FixedWindow, "10/s", None, 4);
        assert_eq!(window.iter().map(|p| p.0).collect::<Vec<_>>(), [3, 3, 2, 2]);
        assert_eq!(parts(Algorithm::TokenBucket, "10/s", Some(2), 3)[2], (0, 0.0));
    }
}
