//! `promise`: strict and bounded limits never go further over than they promise.
//!
//! **Derivation.** With the sum of weights at most 1 no node has more unconfirmed than its allowance, so by lemma 1 of
//! the accuracy page the cluster is over by at most (kappa - 1)(b + rW) + z sqrt(n (b + rW)) + n q. Strict has kappa 1
//! and z = q = 0: nothing. Bounded picks z and q such that the rest is at most `max_overshoot` of the capacity, or, where
//! the capacity is below [`SHARE_SMALL`] tokens a node, one charge for each node but one.
//!
//! Three things are allowed for. Nodes refill by their own clocks, so the virtual queue drains as fast as the fastest of
//! them. What a crashed node had granted and told nobody is charged for good by strict limits; bounded ones may forgive
//! it, at most a capacity a crash. And n counts every process that was started: those that are gone are counted until
//! they are forgotten. Where promises end altogether is said in `ground`.

use spillgate_core::limit::Rule;
use spillgate_core::stability::SHARE_SMALL;

use super::ground::{ByKey, Ground, fastest, named};
use super::{Checker, Finding};
use crate::measure::Excess;
use crate::observe::{Decided, Observation};
use crate::scenario::Scenario;
use crate::world::Stage;

/// What sums of doubles over a run may be off by, as a part of the capacity.
const ROUNDING: f64 = 1e-6;

pub(super) struct Promise<'s> {
    ground: Ground<'s>,
    strict: bool,
    /// Gossip promises nothing here.
    any: bool,
    faster: f64,
    largest_cost: u64,
    excess: ByKey<Excess>,
    found: Option<Finding>,
}

impl<'s> Promise<'s> {
    pub fn new(scenario: &'s Scenario, strategy: &str) -> Self {
        Self {
            ground: Ground::new(scenario),
            strict: strategy == "strict",
            any: strategy != "gossip",
            faster: fastest(scenario),
            largest_cost: 1,
            excess: ByKey::new(scenario),
            found: None,
        }
    }

    fn admitted(&mut self, Decided { at, request, .. }: &Decided) {
        let scenario = self.ground.scenario;
        let rule = scenario.rule(request.limit, request.key);
        self.largest_cost = self.largest_cost.max(request.cost);
        let excess = self.excess.at(request.limit, request.key, &Excess::EMPTY);
        let over = excess.admit_faster(rule, *at, request.cost, self.faster);
        if over == 0.0 || self.found.is_some() {
            return;
        }
        let allowed = self.allowed(rule, scenario.limits[request.limit].max_overshoot());
        if over > allowed + ROUNDING * rule.capacity() as f64 && self.ground.holds_for(rule, *at) {
            let what = format!("{over:.3} tokens over, at most {allowed:.3} are promised");
            self.found = Some(Finding { at: *at, key: Some(named(scenario, request.limit, request.key)), what });
        }
    }

    fn allowed(&self, rule: &Rule, max_overshoot: f64) -> f64 {
        if self.strict {
            return 0.0;
        }
        let (capacity, n) = (rule.capacity() as f64, self.ground.started as f64);
        let small = if capacity < SHARE_SMALL * n { (n - 1.0) * self.largest_cost as f64 } else { 0.0 };
        (max_overshoot * capacity).max(small) + self.ground.crashed as f64 * capacity
    }
}

impl Checker for Promise<'_> {
    fn name(&self) -> &'static str {
        "promise"
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        if !self.any {
            return;
        }
        self.ground.note(seen);
        if let Observation::Decided(decided) | Observation::Probed(decided) = seen
            && decided.verdict.allowed
        {
            self.admitted(decided);
        }
    }

    fn at_end(&mut self, _: &Stage<'_>) -> Option<Finding> {
        self.found.take()
    }
}
