//! A meter as it outlives its process: durations and window numbers, never instants of a clock that ends with it.

use super::{Bucket, FixedWindow, Meter, SlidingWindow};
use crate::limit::{Algorithm, Rule};
use crate::time::{Nanos, Now};

/// What of a [`Meter`] is kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A bucket: how long until it is full again. Exact, whatever its rate.
    Bucket(Nanos),
    /// A window: its number, the tokens used in it, and in the one before.
    Window(u64, u64, u64),
}

impl Kept {
    /// Whether it says no more than a meter of which nothing was ever used.
    #[must_use]
    pub const fn is_full(self) -> bool {
        matches!(self, Self::Bucket(Nanos::ZERO) | Self::Window(_, 0, 0))
    }

    /// The number of the window; `None` for a bucket.
    #[must_use]
    pub const fn window(self) -> Option<u64> {
        match self {
            Self::Bucket(_) => None,
            Self::Window(number, ..) => Some(number),
        }
    }

    /// The same after `passed`, as far as a duration tells; a window moves on by its number.
    #[must_use]
    pub const fn aged(self, passed: Nanos) -> Self {
        match self {
            Self::Bucket(full_in) => Self::Bucket(full_in.since(passed)),
            Self::Window(..) => self,
        }
    }
}

impl Meter {
    /// What is to be kept of it.
    #[must_use]
    pub fn keep(&self, rule: &Rule, now: Now) -> Kept {
        match self {
            Self::Bucket(_) => Kept::Bucket(self.full_in(rule, now)),
            Self::Fixed(_) | Self::Sliding(_) => {
                let mut present = self.clone();
                present.roll(rule, now);
                let (used, previous) = present.used_by_window(rule, now);
                Kept::Window(present.window().unwrap_or_default(), used, previous)
            }
        }
    }

    /// The meter of which `kept` was kept, moved on to the present window; `None` where the rule's algorithm keeps
    /// something else.
    #[must_use]
    pub fn of(kept: Kept, rule: &Rule, now: Now) -> Option<Self> {
        let mut meter = match (kept, rule.algorithm()) {
            (Kept::Bucket(full_in), Algorithm::TokenBucket | Algorithm::LeakyBucket) => {
                Self::Bucket(Bucket::full_after(rule, now, full_in))
            }
            (Kept::Window(number, used, _), Algorithm::FixedWindow) => {
                Self::Fixed(FixedWindow::with_used(rule, now, Some(number), used))
            }
            (Kept::Window(number, used, previous), Algorithm::SlidingWindow) => {
                let mut window = SlidingWindow::with_used(rule, now, Some(number), used);
                if let Some(before) = number.checked_sub(1) {
                    window.charge_window(before, previous);
                }
                Self::Sliding(window)
            }
            _ => return None,
        };
        meter.roll(rule, now);
        Some(meter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::{Origin, RuleSpec};

    fn rule(algorithm: Algorithm) -> Rule {
        let rate = "1000/d".parse().expect("a rate");
        Rule::new("r", Origin::Configured, RuleSpec::new(algorithm, rate)).expect("a rule")
    }

    const ALGORITHMS: [Algorithm; 4] =
        [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];
    const NOON: u64 = 20_000 * 86_400_000_000_000 + 43_200_000_000_000;

    proptest! {
        /// Whatever the start of the clock, the level after a restart is the one that an uninterrupted node would have.
        #[test]
        fn a_restart_takes_nothing_and_gives_nothing(
            which in 0..4usize, used in 0..3000u64, down in 0..200_000_000_000_000u64, up in 0..86_400_000_000_000u64,
        ) {
            let rule = rule(ALGORITHMS[which]);
            let before = Now { at: Nanos(up), wall: NOON };
            let mut meter = Meter::full(&rule, before);
            meter.charge(&rule, before, used);
            let kept = meter.keep(&rule, before);
            // the new process counts from another start
            let after = Now { at: Nanos(7), wall: NOON + down };
            let restored = Meter::of(kept.aged(Nanos(down)), &rule, after).expect("the same algorithm");
            let lasting = Now { at: Nanos(up + down), wall: NOON + down };
            let (restored, lasting) = (restored.level(&rule, after), meter.level(&rule, lasting));
            prop_assert!((restored.tokens() - lasting.tokens()).abs() < 1e-4, "{restored:?} {lasting:?}");
            prop_assert!(restored.parts <= lasting.parts, "never a token given");
        }
    }

    #[test]
    fn a_clock_that_went_back_a_day_gives_no_token_back() {
        for algorithm in ALGORITHMS {
            let rule = rule(algorithm);
            let before = Now { at: Nanos::from_secs(9), wall: NOON };
            let mut meter = Meter::full(&rule, before);
            meter.charge(&rule, before, 1);
            let left = meter.level(&rule, before).whole();
            let after = Now { at: Nanos(0), wall: NOON - 86_400_000_000_000 };
            let restored = Meter::of(meter.keep(&rule, before), &rule, after).expect("the same algorithm");
            assert_eq!(restored.level(&rule, after).whole(), left, "{algorithm:?}");
        }
    }

    #[test]
    fn what_is_full_again_says_so() {
        let kept = Kept::Bucket(Nanos(5));
        assert!(!kept.aged(Nanos(4)).is_full() && kept.aged(Nanos(5)).is_full() && kept.aged(Nanos(6)).is_full());
    }
}
