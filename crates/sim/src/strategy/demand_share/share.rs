//! One key's demand and share on one node. It must not know peers, only what their demand comes to.

use std::collections::VecDeque;

use spillgate_core::time::Nanos;

use crate::math;
use crate::strategy::fluid::Fluid;

/// Between rounds.
pub(super) const PERIOD: Nanos = Nanos::from_millis(200);
/// The part of the limit that is shared out evenly.
pub(super) const BETA: f64 = 0.05;
/// Demand is smoothed over so much.
const TIME_CONSTANT: Nanos = Nanos::SECOND;
/// A key stays hot for so long.
const COOLDOWN: Nanos = Nanos::from_secs(5);
/// A higher share is taken so many rounds later.
const RISE_DELAY: usize = 2;
/// Past demand that is remembered, in rounds: as old as what a peer says may get.
const PAST_ROUNDS: usize = 64;

/// What a share is worked out from; rates in tokens a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// Of the whole cluster.
    pub limit: f64,
    /// This node included.
    pub members: usize,
    /// Own demand.
    pub own: f64,
    /// All others' demand.
    pub others: f64,
}

impl View {
    /// The node's part of the limit.
    pub fn share(&self) -> f64 {
        let even = self.limit / self.members as f64;
        let total = self.own + self.others;
        if total > 0.0 { BETA * even + (1.0 - BETA) * self.limit * self.own / total } else { even }
    }
}

/// A key on one node.
#[derive(Debug)]
pub(super) struct HotKey {
    pub bucket: Fluid,
    /// The rate at which the bucket runs.
    pub share: f64,
    /// Tokens asked for since the last round.
    pub attempted: u64,
    /// Smoothed, tokens a second.
    pub demand: f64,
    /// Whether it is hot by the node's own demand.
    pub primary: bool,
    hot_until: Option<Nanos>,
    rounded: Nanos,
    /// Demand at past rounds, the latest last.
    past: VecDeque<(Nanos, f64)>,
    /// What the share was worked out as in the last rounds.
    wanted: VecDeque<f64>,
}

impl HotKey {
    pub const fn new(bucket: Fluid, share: f64, now: Nanos) -> Self {
        Self {
            bucket,
            share,
            attempted: 0,
            demand: 0.0,
            primary: false,
            hot_until: None,
            rounded: now,
            past: VecDeque::new(),
            wanted: VecDeque::new(),
        }
    }

    /// A round has passed: whether the key is hot now, by more than `threshold` of its own or elsewhere.
    pub fn round(&mut self, now: Nanos, threshold: f64, elsewhere: bool) -> bool {
        let passed = now.since(self.rounded).as_secs_f64();
        if passed > 0.0 {
            let weight = 1.0 - math::exp(-passed / TIME_CONSTANT.as_secs_f64());
            self.demand += weight * (std::mem::take(&mut self.attempted) as f64 / passed - self.demand);
            self.rounded = now;
        }
        if self.demand > threshold {
            self.hot_until = Some(now.plus(COOLDOWN));
        }
        self.primary = self.hot_until.is_some_and(|until| now < until);
        self.past.push_back((now, self.demand));
        if self.past.len() > PAST_ROUNDS {
            self.past.pop_front();
        }
        self.primary || elsewhere
    }

    /// Own demand as it was at that time, or as it is now if that is less.
    pub fn demand_at(&self, as_of: Option<Nanos>) -> f64 {
        let Some(as_of) = as_of else { return self.demand };
        let then = self.past.iter().rev().find(|(at, _)| *at <= as_of).map_or(0.0, |(_, demand)| *demand);
        then.min(self.demand)
    }

    /// The share as it may be taken: a higher one only after some rounds.
    pub fn rising_late(&mut self, share: f64) -> f64 {
        let least = self.wanted.iter().copied().fold(share, f64::min);
        self.wanted.push_back(share);
        if self.wanted.len() > RISE_DELAY {
            self.wanted.pop_front();
        }
        least
    }

    /// From now on the bucket runs at this rate.
    pub fn set_share(&mut self, now: Nanos, share: f64) {
        self.bucket.settle(now, self.share, f64::MAX);
        self.share = share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_one_view_come_to_the_limit() {
        let demands = [1200.0, 150.0, 0.0, 30.0];
        let total: f64 = demands.iter().sum();
        let share = |own: &f64| View { limit: 1000.0, members: 4, own: *own, others: total - own }.share();
        assert!((demands.iter().map(share).sum::<f64>() - 1000.0).abs() < 1e-9);
        assert!((share(&0.0) - 12.5).abs() < 1e-9);
    }

    #[test]
    fn a_share_falls_at_once_and_rises_two_rounds_late() {
        let mut key = HotKey::new(Fluid::full(1.0, Nanos::ZERO), 1.0, Nanos::ZERO);
        let taken: Vec<f64> = [5.0, 9.0, 9.0, 9.0, 2.0].map(|share| key.rising_late(share)).to_vec();
        assert_eq!(taken, [5.0, 5.0, 5.0, 9.0, 2.0]);
    }
}
