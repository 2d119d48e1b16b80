//! Token bucket and leaky bucket as one integer. It must not know windows or the wall clock.
//!
//! The generic cell rate algorithm (ITU-T I.371) in its virtual scheduling form: instead of a level and the time of
//! its last refill, the instant at which the bucket will be full again. It is counted in parts of which a nanosecond
//! has [`Rule::parts_per_ns`] and a token [`Rule::parts_per_token`], so that no refill is ever rounded.

use super::Level;
use crate::limit::Rule;
use crate::time::{Nanos, Now};

/// A bucket; what leaks from a leaky one is what refills a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The instant at which it is full, in parts since the node's start.
    full_at: i128,
}

impl Bucket {
    /// A bucket that has always been full.
    pub(super) const fn full() -> Self {
        Self { full_at: 0 }
    }

    /// A bucket from which `used` tokens are gone, rounded up to whole parts.
    pub(super) fn with_used(rule: &Rule, now: Now, used: Level) -> Self {
        let (token, unit) = (i128::from(rule.parts_per_token()), i128::from(used.unit));
        // the whole tokens and the rest apart: the product of both could overflow
        let (whole, rest) = (used.parts / unit, used.parts % unit);
        let rest = (rest * token + unit - 1) / unit;
        let backlog = whole.saturating_mul(token).saturating_add(rest);
        Self { full_at: instant(rule, now).saturating_add(backlog) }
    }

    /// A bucket that will be full after `full_in`.
    pub(super) fn full_after(rule: &Rule, now: Now, full_in: Nanos) -> Self {
        Self { full_at: instant(rule, now).saturating_add(i128::from(full_in.0) * i128::from(rule.parts_per_ns())) }
    }

    pub(super) fn level(self, rule: &Rule, now: Now) -> Level {
        Level { parts: parts(rule, rule.capacity()) - self.backlog(rule, now), unit: rule.parts_per_token() }
    }

    pub(super) fn charge(&mut self, rule: &Rule, now: Now, tokens: u64) {
        self.full_at = self.full_at.max(instant(rule, now)).saturating_add(parts(rule, tokens));
    }

    pub(super) fn charge_fraction(&mut self, rule: &Rule, now: Now, tokens: f64) {
        let parts = (tokens.max(0.0) * rule.parts_per_token() as f64).ceil() as i128;
        self.full_at = self.full_at.max(instant(rule, now)).saturating_add(parts);
    }

    pub(super) fn refund(&mut self, rule: &Rule, now: Now, tokens: u64) -> u64 {
        let given = tokens.min(self.missing(rule, now));
        // an instant that is past means full, so the rest of a token that no longer fits is not kept
        self.full_at = self.full_at.saturating_sub(parts(rule, given));
        given
    }

    pub(super) fn missing(self, rule: &Rule, now: Now) -> u64 {
        Level { parts: self.backlog(rule, now), unit: rule.parts_per_token() }.whole_ceil()
    }

    /// The time in which all that was charged leaks away, rounded up.
    pub(super) fn drained_in(self, rule: &Rule, now: Now) -> Nanos {
        time_for(rule, self.backlog(rule, now))
    }

    /// For at most the capacity.
    pub(super) fn wait_for(self, rule: &Rule, now: Now, tokens: u64) -> Nanos {
        let room = parts(rule, rule.capacity().saturating_sub(tokens));
        // the longest delay that can be told is no limit: a delay beyond it is told as that
        let queue = rule
            .spec()
            .max_delay
            .filter(|most| *most < Nanos::MAX)
            .map_or(room, |most| i128::from(most.0) * i128::from(rule.parts_per_ns()));
        time_for(rule, self.backlog(rule, now) - room.min(queue))
    }

    /// What is missing from a full bucket, in parts. A clock that went back only makes it more.
    fn backlog(self, rule: &Rule, now: Now) -> i128 {
        (self.full_at - instant(rule, now)).max(0)
    }
}

/// At most 2^64 * [`crate::limit::CAPACITY_MAX`], which is far from overflow.
fn instant(rule: &Rule, now: Now) -> i128 {
    i128::from(now.at.0) * i128::from(rule.parts_per_ns())
}

/// At most 2^64 * [`crate::rate::PERIOD_MAX`] in nanoseconds, 2^119.
fn parts(rule: &Rule, tokens: u64) -> i128 {
    i128::from(tokens) * i128::from(rule.parts_per_token())
}

/// The time in which so many parts are refilled, rounded up; zero for less than one.
fn time_for(rule: &Rule, parts: i128) -> Nanos {
    Nanos(Level { parts, unit: rule.parts_per_ns() }.whole_ceil())
}
