//! `live-bound`: the bound that nodes state is never below the truth.
//!
//! **Derivation.** A node states the most that could have been admitted beyond a limit, cluster-wide, from what it knows
//! now: how many replicas there are and how long news takes. The truth is the queue of `measure::Excess` over all nodes.
//! Nodes are asked now and then, so what happened between two samples is held against the more of what any of them said
//! at either; what was true before somebody joined, or before links got slower, is no one's to know. Keys with a rule of
//! their own are left out, since the bound speaks of the limit's. Where promises end is said in `ground`, and a crash is
//! such a place here: what it took along is stated by nobody.

use spillgate_core::time::Nanos;

use super::ground::{ByKey, Ground, named};
use super::{Checker, Finding};
use crate::measure::Excess;
use crate::observe::{Decided, Observation};
use crate::scenario::{KeyIndex, LimitIndex, Scenario};
use crate::world::Stage;

const ROUNDING: f64 = 1e-6;

/// What was said of one limit, and what was true since.
#[derive(Clone, Debug, Default)]
struct Stated {
    at: Nanos,
    any: bool,
    present: f64,
    before: f64,
    worst: Option<(Nanos, KeyIndex, f64)>,
}

pub(super) struct LiveBound<'s> {
    ground: Ground<'s>,
    /// Plain gossip states what late news may cost, and nothing for news that does not come.
    gossip: bool,
    excess: ByKey<Excess>,
    faster: f64,
    stated: Vec<Stated>,
    found: Option<Finding>,
}

impl<'s> LiveBound<'s> {
    pub fn new(scenario: &'s Scenario, strategy: &str) -> Self {
        Self {
            ground: Ground::new(scenario),
            gossip: strategy == "gossip",
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
        let worst = &mut self.stated[request.limit].worst;
        if over <= worst.map_or(0.0, |(.., most)| most)
            || self.ground.crashed > 0
            || (self.gossip && self.ground.troubled)
        {
            return;
        }
        let own = rule == self.ground.scenario.limits[request.limit].own_rule();
        if own && self.ground.holds_for(rule, *at) {
            self.stated[request.limit].worst = Some((*at, request.key, over));
        }
    }

    fn bound(&mut self, at: Nanos, limit: LimitIndex, tokens: f64) {
        if self.stated[limit].at != at || !self.stated[limit].any {
            self.compare(limit);
            let before = self.stated[limit].present;
            self.stated[limit] = Stated { at, any: true, present: 0.0, before, worst: None };
        }
        let stated = &mut self.stated[limit];
        stated.present = stated.present.max(tokens);
    }

    fn compare(&mut self, limit: LimitIndex) {
        let Stated { any: true, present, before, worst: Some((at, key, over)), .. } = self.stated[limit] else {
            return;
        };
        let most = present.max(before);
        let scenario = self.ground.scenario;
        let rounding = ROUNDING * scenario.rule(limit, key).capacity() as f64;
        if self.found.is_none() && over > most + rounding {
            let what = format!("{over:.3} tokens over, the nodes state {most:.3} at most");
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
            Observation::Bound { at, limit, tokens, .. } => self.bound(*at, *limit, *tokens),
            _ => {}
        }
    }

    fn at_end(&mut self, _: &Stage<'_>) -> Option<Finding> {
        for limit in 0..self.stated.len() {
            self.compare(limit);
        }
        self.found.take()
    }
}
