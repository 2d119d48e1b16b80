//! The truth of one key: what one central bucket fed with all that was admitted would hold, and how far below zero it
//! went. It must not know who admitted what, nor why.

use spillgate_core::limit::{Algorithm, Rule};
use spillgate_core::time::Nanos;

use crate::cluster::WALL_AT_START;

/// What whole nanoseconds and doubles cannot tell from nothing, tokens.
const NOTHING: f64 = 1e-6;

/// How much of one key was admitted beyond its limit, from its admissions alone, in constant room.
///
/// *Buckets*: a virtual queue that gains each charge and drains at the rate; it is over by what it holds above the
/// capacity. *Fixed windows*: by what the window admitted above its content. *Sliding windows*: by the estimate that
/// the algorithm itself promises to hold (the present fixed window, and of the last one the part that a window ending
/// now still covers), taken over the whole cluster; a true sliding sum would blame every cluster for the estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    /// The queue's tokens; of a window, those admitted in it.
    used: f64,
    /// Sliding windows: those admitted in the window before.
    previous: f64,
    /// When that was, on the scenario's clock; of a window, its number.
    since: u64,
    worst: f64,
}

impl Excess {
    /// Nothing was admitted yet.
    pub const EMPTY: Self = Self { used: 0.0, previous: 0.0, since: 0, worst: 0.0 };

    /// Takes in what was admitted at `now` since the start of the workload; says how far it is over, at least 0.
    pub fn admit(&mut self, rule: &Rule, now: Nanos, tokens: u64) -> f64 {
        self.admit_faster(rule, now, tokens, 0.0)
    }

    /// The same by clocks that run faster by the part `faster`.
    pub fn admit_faster(&mut self, rule: &Rule, now: Nanos, tokens: u64, faster: f64) -> f64 {
        self.turn(rule, now, faster);
        self.used += tokens as f64;
        let over = -self.left(rule, now);
        let over = if over > NOTHING { over } else { 0.0 };
        self.worst = self.worst.max(over);
        over
    }

    /// The tokens that are really left at `now`; below zero is what was admitted beyond the limit.
    pub fn level(&mut self, rule: &Rule, now: Nanos) -> f64 {
        self.turn(rule, now, 0.0);
        self.left(rule, now)
    }

    /// The most it ever was over, tokens.
    #[must_use]
    pub const fn worst(&self) -> f64 {
        self.worst
    }

    fn turn(&mut self, rule: &Rule, now: Nanos, faster: f64) {
        if !rule.algorithm().windowed() {
            let passed = now.since(Nanos(self.since)).as_secs_f64();
            self.used = (self.used - rule.rate().per_second() * (1.0 + faster) * passed).max(0.0);
            self.since = now.0;
            return;
        }
        let present = (WALL_AT_START + now.0) / rule.rate().period().0;
        if self.since != present {
            self.previous = if self.since + 1 == present { self.used } else { 0.0 };
            (self.used, self.since) = (0.0, present);
        }
    }

    fn left(&self, rule: &Rule, now: Nanos) -> f64 {
        let covered = if rule.algorithm() == Algorithm::SlidingWindow {
            let period = rule.rate().period().0;
            1.0 - ((WALL_AT_START + now.0) % period) as f64 / period as f64
        } else {
            0.0
        };
        rule.capacity() as f64 - self.used - self.previous * covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillgate_core::limit::{Origin, RuleSpec};

    fn rule(algorithm: Algorithm, burst: Option<u64>) -> Rule {
        let spec = RuleSpec { burst, ..RuleSpec::new(algorithm, "10/s".parse().unwrap()) };
        Rule::new("test", Origin::Configured, spec).unwrap()
    }

    #[test]
    fn a_bucket_is_over_by_what_its_queue_holds_above_the_burst() {
        let (rule, mut excess) = (rule(Algorithm::TokenBucket, Some(5)), Excess::EMPTY);
        assert_eq!(excess.admit(&rule, Nanos::ZERO, 5), 0.0);
        // two tokens have come back, four are taken
        assert_eq!(excess.admit(&rule, Nanos::from_millis(200), 4), 2.0);
        assert_eq!(excess.level(&rule, Nanos::from_millis(500)), 1.0);
        assert_eq!((excess.admit(&rule, Nanos::from_secs(10), 5), excess.worst()), (0.0, 2.0));
    }

    #[test]
    fn a_fixed_window_is_over_by_what_it_admitted_above_its_content() {
        let (rule, mut excess) = (rule(Algorithm::FixedWindow, None), Excess::EMPTY);
        excess.admit(&rule, Nanos::from_millis(999), 10);
        assert_eq!(excess.admit(&rule, Nanos::from_millis(1000), 10), 0.0);
        assert_eq!(excess.admit(&rule, Nanos::from_millis(1999), 3), 3.0);
    }

    #[test]
    fn of_the_last_window_a_sliding_one_counts_what_it_still_covers() {
        let (rule, mut excess) = (rule(Algorithm::SlidingWindow, None), Excess::EMPTY);
        excess.admit(&rule, Nanos::from_millis(900), 10);
        assert_eq!(excess.admit(&rule, Nanos::from_millis(1500), 5), 0.0);
        assert_eq!(excess.admit(&rule, Nanos::from_millis(1500), 2), 2.0);
        assert_eq!(excess.admit(&rule, Nanos::from_millis(3500), 10), 0.0);
    }
}
