//! `live-bound`: the bound that nodes state is never below the truth.
//!
//! **Derivation.** A node states the most that could have been admitted beyond a limit, cluster-wide, from what it knows
//! now: how many replicas there are, how long news takes, up to when it knows what each of them granted, who goes on
//! alone. The truth is the queue of `measure::Excess` over all nodes, held against what any of them said as
//! `measure::Stated` says, in silences and partitions too, whatever the limit does in one. What was true before somebody
//! joined, or before links got slower, is no one's to know. Keys with a rule of their own are left out, since the bound
//! speaks of the limit's. Where promises end is said in `ground`; and what a crashed process took along nobody states
//! but strict limits, which charge it.

use spillgate_core::time::Nanos;

use super::ground::{ByKey, Ground, named};
use super::{Checker, Finding};
use crate::measure::{Excess, Stated, Uncovered};
use crate::observe::{Decided, Observation};
use crate::scenario::{LimitIndex, Scenario};
use crate::world::Stage;

const ROUNDING: f64 = 1e-6;

pub(super) struct LiveBound<'s> {
    ground: Ground<'s>,
    /// What a crash takes along is charged.
    strict: bool,
    excess: ByKey<Excess>,
    faster: f64,
    stated: Vec<Stated>,
    found: Option<Finding>,
}

impl<'s> LiveBound<'s> {
    pub fn new(scenario: &'s Scenario, strategy: &str) -> Self {
        Self {
            ground: Ground::new(scenario),
            strict: strategy == "strict",
            excess: ByKey::new(scenario),
            faster: super::ground::fastest(scenario),
            stated: vec![Stated::default(); scenario.limits.len()],
            found: None,
        }
    }

    fn admitted(&mut self, Decided { at, request, .. }: &Decided) {
        let rule = self.ground.scenario.rule(request.limit, request.key);
        let excess = self.excess.at(request.limit, request.key, &Excess::EMPTY);
        let over = excess.admit_faster(rule, *at, request.cost, self.faster);
        if over == 0.0 || (self.ground.crashed > 0 && !self.strict) {
            return;
        }
        let own = rule == self.ground.scenario.limits[request.limit].own_rule();
        if own && self.ground.bounds_hold_for(rule, *at) {
            self.stated[request.limit].admitted(*at, request.key, over);
        }
    }

    fn bound(&mut self, at: Nanos, limit: LimitIndex, tokens: f64, growth: f64) {
        let uncovered = self.stated[limit].state(at, tokens, growth);
        self.compare(limit, uncovered);
    }

    fn compare(&mut self, limit: LimitIndex, uncovered: Option<Uncovered>) {
        let Some(Uncovered { at, key, over, stated }) = uncovered else { return };
        let scenario = self.ground.scenario;
        let rounding = ROUNDING * scenario.rule(limit, key).capacity() as f64;
        if self.found.is_none() && over > stated + rounding {
            let what = format!("{over:.3} tokens over, the nodes state {stated:.3} at most");
            self.found = Some(Finding { at, key: Some(named(scenario, limit, key)), what });
        }
    }
}

impl Checker for LiveBound<'_> {
    fn name(&self) -> &'static str {
        "live-bound"
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        self.ground.note(seen);
        match seen {
            Observation::Decided(decided) | Observation::Probed(decided) if decided.verdict.allowed => {
                self.admitted(decided);
            }
            Observation::Bound { at, limit, tokens, growth, .. } => self.bound(*at, *limit, *tokens, *growth),
            _ => {}
        }
    }

    fn at_end(&mut self, _: &Stage<'_>) -> Option<Finding> {
        for limit in 0..self.stated.len() {
            self.compare(limit, self.stated[limit].uncovered());
        }
        self.found.take()
    }
}
