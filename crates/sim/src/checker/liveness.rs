//! `not-for-good`: once it is quiet, nothing is refused for good.
//!
//! **Derivation.** After the workload and `settle` every node is asked for one token of each watched key, one node after
//! the other. Where `settle` is long enough to refill the whole bucket from as deep in debt as it went, and for all to
//! agree (`Ground::settling`), every node's level is the true one: a refusal as over the limit while the true level has a
//! token is a charge that never happened, or that came back. What is granted meanwhile a bucket that is full hears late,
//! and has lost what the true one was refilled by since: so it counts as if granted at the very moment. A node alone may
//! spend its part of what is left before its peers confirm, at least `EVEN_PART / n` but, after quiet, about 1/n: with
//! `SHARE_SMALL` tokens a node left no node
//! is refused for want of confirmation either. Not held against anybody are clusters with links or nodes still broken, or
//! `deny` while a crashed peer is awaited. Nor is a refusal for a partition: with a peer silent, a node that nobody asks
//! keeps 1/n of `EVEN_PART`, and charges that only the silent has not confirmed leave its window at that pace. And nothing
//! is held against nodes that have no room for all keys: whoever evicts a key takes back no demand that it told of it, and
//! the others leave it that weight. Plain gossip is asked only where news always came: it assumes nothing of the silent, so
//! that all they spent is charged at once when they are heard again, to a bucket that has lost its refill by being full.

use spillgate_core::limit::OnPartition;
use spillgate_core::stability::SHARE_SMALL;
use spillgate_core::time::Nanos;

use super::ground::{ByKey, Ground, named};
use super::{Checker, Finding};
use crate::measure::Excess;
use crate::observe::{Decided, Observation, Reason};
use crate::scenario::Scenario;
use crate::world::Stage;

pub(super) struct Liveness<'s> {
    ground: Ground<'s>,
    settling: Option<Nanos>,
    gossip: bool,
    /// Whether any link or node ever was in trouble.
    troubled: bool,
    /// When the last charge of the workload, or the last fault, was.
    quiet_since: Nanos,
    probing: bool,
    excess: ByKey<Excess>,
    /// Tokens granted since all was quiet.
    probed: ByKey<u64>,
    found: Option<Finding>,
}

impl<'s> Liveness<'s> {
    pub fn new(scenario: &'s Scenario, strategy: &str) -> Self {
        let ground = Ground::new(scenario);
        let (settling, excess) = (ground.settling(), ByKey::new(scenario));
        let gossip = strategy == "gossip";
        Self {
            ground,
            settling,
            gossip,
            troubled: false,
            quiet_since: Nanos::ZERO,
            probing: false,
            excess,
            probed: ByKey::new(scenario),
            found: None,
        }
    }

    fn refused(&mut self, Decided { at, request, verdict }: &Decided) {
        let scenario = self.ground.scenario;
        let rule = scenario.rule(request.limit, request.key);
        let level = self.excess.at(request.limit, request.key, &Excess::EMPTY).level(rule, *at);
        let probed = *self.probed.at(request.limit, request.key, &0);
        let level = level.min(rule.capacity() as f64 - probed as f64);
        let worst = self.excess.at(request.limit, request.key, &Excess::EMPTY).worst();
        let quiet = request.at.since(self.quiet_since);
        let refilled = if rule.algorithm().windowed() {
            quiet >= rule.rate().period().times(2)
        } else {
            // what was assumed of the silent, or charged for the lost, may be too much by a capacity, and is not given back
            let assumed = if self.troubled { rule.capacity() as f64 } else { 0.0 };
            quiet.as_secs_f64() * rule.rate().per_second() >= rule.capacity() as f64 + worst + assumed
        };
        let missing = !self.ground.nobody_missing();
        let excused = !self.ground.whole()
            || self.gossip && self.troubled
            || scenario.is_crowded()
            || missing && rule.spec().on_partition == OnPartition::Deny;
        let settled = self.settling.is_some_and(|settling| quiet >= settling);
        let enough = match verdict.reason {
            Reason::OverLimit => 1.0,
            Reason::Unconfirmed => SHARE_SMALL * self.ground.started as f64,
            _ => return,
        };
        if level >= enough && refilled && settled && !excused {
            let (name, reason) = (scenario.nodes.name(request.node), verdict.reason.as_str());
            let what = format!("{name} refuses ({reason}) after {quiet} of quiet, though {level:.1} tokens are left");
            let key = Some(named(scenario, request.limit, request.key));
            self.found.get_or_insert(Finding { at: *at, key, what });
        }
    }
}

impl Checker for Liveness<'_> {
    fn name(&self) -> &'static str {
        "not-for-good"
    }

    fn observe(&mut self, seen: &Observation<'_>) {
        self.ground.note(seen);
        self.troubled |= !self.ground.whole();
        self.probing |= matches!(seen, Observation::Probed(_));
        if !self.probing {
            self.quiet_since = self.ground.quiet_since();
        }
        let (Observation::Decided(decided) | Observation::Probed(decided)) = seen else { return };
        if decided.verdict.allowed {
            let Decided { at, request, .. } = decided;
            let rule = self.ground.scenario.rule(request.limit, request.key);
            self.excess.at(request.limit, request.key, &Excess::EMPTY).admit(rule, *at, request.cost);
            if matches!(seen, Observation::Probed(_)) {
                *self.probed.at(request.limit, request.key, &0) += request.cost;
            }
        } else if matches!(seen, Observation::Probed(_)) {
            self.refused(decided);
        }
    }

    fn at_end(&mut self, _: &Stage<'_>) -> Option<Finding> {
        self.found.take()
    }
}
