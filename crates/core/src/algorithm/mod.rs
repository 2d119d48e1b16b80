//! The four algorithms as small pure values. They must not know peers, counters or confirmations.
//!
//! Every number is an exact integer; fractions of a token are counted in parts, so many to the token. Nothing here
//! fails: what does not fit saturates, always against the caller.

mod bucket;
mod fixed_window;
mod kept;
mod level;
mod sliding_window;
#[cfg(test)]
mod tests;
mod window;

pub use bucket::Bucket;
pub use fixed_window::FixedWindow;
pub use kept::Kept;
pub use level::Level;
pub use sliding_window::SlidingWindow;
pub use window::CLOCK_TOLERANCE;

use crate::central::Used;
use crate::limit::{Algorithm, Rule};
use crate::time::{Nanos, Now};

/// What one key has used of its limit, in the way of the limit's algorithm.
///
/// It holds only what was used; capacity and rate come with the [`Rule`] of every call, which must be the one it was
/// made for or last rescaled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meter {
    /// Token bucket and leaky bucket.
    Bucket(Bucket),
    /// Fixed window.
    Fixed(FixedWindow),
    /// Sliding window.
    Sliding(SlidingWindow),
}

impl Meter {
    /// The meter of a key that has used nothing.
    #[must_use]
    pub fn full(rule: &Rule, now: Now) -> Self {
        match rule.algorithm() {
            Algorithm::TokenBucket | Algorithm::LeakyBucket => Self::Bucket(Bucket::full()),
            Algorithm::FixedWindow => Self::Fixed(FixedWindow::full(rule, now)),
            Algorithm::SlidingWindow => Self::Sliding(SlidingWindow::full(rule, now)),
        }
    }

    /// Moves to the present window; a bucket has none.
    ///
    /// Every other call that is given the present sees the present window by itself; this one is for
    /// [`Self::window`] and [`Self::roll_to`], which are not.
    pub fn roll(&mut self, rule: &Rule, now: Now) {
        match self {
            Self::Bucket(_) => {}
            Self::Fixed(m) => *m = m.rolled(rule, now),
            Self::Sliding(m) => *m = m.rolled(rule, now),
        }
    }

    /// The number of the window it stands in, counted from the Unix epoch; `None` for a bucket.
    #[must_use]
    pub const fn window(&self) -> Option<u64> {
        match self {
            Self::Bucket(_) => None,
            Self::Fixed(m) => Some(m.window()),
            Self::Sliding(m) => Some(m.window()),
        }
    }

    /// Tokens left, negative in debt.
    #[must_use]
    pub fn level(&self, rule: &Rule, now: Now) -> Level {
        match self {
            Self::Bucket(m) => m.level(rule, now),
            Self::Fixed(m) => m.rolled(rule, now).level(rule),
            Self::Sliding(m) => m.rolled(rule, now).level(rule, now),
        }
    }

    /// Takes `tokens`, covered or not: what is not covered is debt.
    pub fn charge(&mut self, rule: &Rule, now: Now, tokens: u64) {
        self.roll(rule, now);
        match self {
            Self::Bucket(m) => m.charge(rule, now, tokens),
            Self::Fixed(m) => m.charge(tokens),
            Self::Sliding(m) => m.charge(tokens),
        }
    }

    /// Takes a number of tokens that need not be whole from a bucket, rounded up to whole parts; a window counts whole
    /// requests, and takes nothing.
    pub fn charge_fraction(&mut self, rule: &Rule, now: Now, tokens: f64) {
        if let Self::Bucket(m) = self {
            m.charge_fraction(rule, now, tokens);
        }
    }

    /// Gives `tokens` back, at most what is [missing](Self::missing), and returns how many those were.
    pub fn refund(&mut self, rule: &Rule, now: Now, tokens: u64) -> u64 {
        self.roll(rule, now);
        match self {
            Self::Bucket(m) => m.refund(rule, now, tokens),
            Self::Fixed(m) => m.refund(tokens),
            Self::Sliding(m) => m.refund(tokens),
        }
    }

    /// Whole tokens to refund so that nothing counts as used any more, rounded up: what a reset refunds.
    ///
    /// Of a sliding window that is all of both windows, though the older one weighs less: each node weighs by its own
    /// clock, so only all of it clears it everywhere.
    #[must_use]
    pub fn missing(&self, rule: &Rule, now: Now) -> u64 {
        match self {
            Self::Bucket(m) => m.missing(rule, now),
            Self::Fixed(m) => m.rolled(rule, now).missing(),
            Self::Sliding(m) => m.rolled(rule, now).missing(),
        }
    }

    /// How long a request granted now, and not charged yet, must wait for its turn; zero but for a leaky bucket.
    #[must_use]
    pub fn delay(&self, rule: &Rule, now: Now) -> Nanos {
        match self {
            Self::Bucket(m) if rule.algorithm() == Algorithm::LeakyBucket => m.drained_in(rule, now),
            _ => Nanos::ZERO,
        }
    }

    /// Whether [`Self::delay`] is longer than the rule lets a request wait: then it is not to be granted.
    #[must_use]
    pub fn delayed_too_long(&self, rule: &Rule, now: Now) -> bool {
        rule.spec().max_delay.is_some_and(|most| self.delay(rule, now) > most)
    }

    /// How long until the level covers `tokens` and the delay is short enough, were nobody to charge.
    ///
    /// Exact: after that time it is so, a nanosecond earlier it is not. Zero when it is so now, [`Nanos::MAX`] when
    /// `tokens` is above the capacity. Windows count it in wall time.
    #[must_use]
    pub fn wait_for(&self, rule: &Rule, now: Now, tokens: u64) -> Nanos {
        match self {
            _ if tokens > rule.capacity() => Nanos::MAX,
            Self::Bucket(m) => m.wait_for(rule, now, tokens),
            Self::Fixed(m) => m.rolled(rule, now).wait_for(rule, now, tokens),
            Self::Sliding(m) => m.rolled(rule, now).wait_for(rule, now, tokens),
        }
    }

    /// How long until the whole capacity is there, were nobody to charge; zero when it is.
    #[must_use]
    pub fn full_in(&self, rule: &Rule, now: Now) -> Nanos {
        self.wait_for(rule, now, rule.capacity())
    }

    /// Takes `tokens` that a peer charged in its window number `window`; a bucket has no windows and takes them now.
    ///
    /// A window that no longer counts is dropped. A window later than this meter's counts as the present one: call
    /// [`Self::roll_to`] before.
    pub fn charge_window(&mut self, rule: &Rule, now: Now, window: u64, tokens: u64) {
        self.roll(rule, now);
        match self {
            Self::Bucket(m) => m.charge(rule, now, tokens),
            Self::Fixed(m) => m.charge_window(window, tokens),
            Self::Sliding(m) => m.charge_window(window, tokens),
        }
    }

    /// Follows a peer into its later window; nothing happens when `window` is not later, or for a bucket.
    ///
    /// Call [`Self::roll`] before: a window that begins later than [`CLOCK_TOLERANCE`] from now is not
    /// followed. The next roll would only come back from it, and a peer's broken clock would have renewed the quota.
    pub fn roll_to(&mut self, rule: &Rule, now: Now, window: u64) {
        match self {
            Self::Bucket(_) => {}
            Self::Fixed(m) => *m = m.rolled_to(rule, now, window),
            Self::Sliding(m) => *m = m.rolled_to(rule, now, window),
        }
    }

    /// Goes over to another rule and keeps what was used: capacity less level stays the same number of tokens,
    /// rounded up where the new rule can't hold it exactly.
    pub fn rescale(&mut self, from: &Rule, to: &Rule, now: Now) {
        self.roll(from, now);
        // windows of one length have the same numbers, and a peer's news for them stays right
        let window = self.window().filter(|_| from.rate().period() == to.rate().period());
        *self = match (&*self, to.algorithm()) {
            (Self::Sliding(m), Algorithm::SlidingWindow) if window.is_some() => Self::Sliding(*m),
            (m, Algorithm::TokenBucket | Algorithm::LeakyBucket) => {
                Self::Bucket(Bucket::with_used(to, now, m.used(from, now)))
            }
            (m, Algorithm::FixedWindow) => {
                Self::Fixed(FixedWindow::with_used(to, now, window, m.used(from, now).whole_ceil()))
            }
            (m, Algorithm::SlidingWindow) => {
                Self::Sliding(SlidingWindow::with_used(to, now, window, m.used(from, now).whole_ceil()))
            }
        };
    }

    /// Whole tokens used and not come back yet, rounded up, in the present window and in the one before; a bucket's are
    /// all in the first.
    #[must_use]
    pub fn used_by_window(&self, rule: &Rule, now: Now) -> (u64, u64) {
        match self {
            Self::Bucket(m) => (m.missing(rule, now), 0),
            Self::Fixed(m) => (m.rolled(rule, now).missing(), 0),
            Self::Sliding(m) => m.rolled(rule, now).used(),
        }
    }

    /// A meter that shows `used`; `now.wall` must be of the clock that numbered its windows.
    ///
    /// Tokens are taken to the millionth, so that the noise of a float makes no token of 99.999999999.
    #[must_use]
    pub fn showing(rule: &Rule, now: Now, used: Used) -> Self {
        const MILLIONTH: u64 = 1_000_000;
        let mut meter = Self::full(rule, now);
        match (&mut meter, used) {
            (Self::Bucket(_), Used::Bucket(tokens)) => {
                let parts = (tokens.max(0.0) * MILLIONTH as f64).round() as i128;
                meter = Self::Bucket(Bucket::with_used(rule, now, Level { parts, unit: MILLIONTH }));
            }
            (_, Used::Window { number, current, previous }) => {
                meter.roll_to(rule, now, number);
                meter.charge_window(rule, now, number.saturating_sub(1), previous);
                meter.charge_window(rule, now, number, current);
            }
            // a store that counts otherwise than the rule: nothing to show
            _ => {}
        }
        meter
    }

    /// Capacity less level, never negative.
    fn used(&self, rule: &Rule, now: Now) -> Level {
        let Level { parts, unit } = self.level(rule, now);
        Level { parts: (i128::from(rule.capacity()) * i128::from(unit)).saturating_sub(parts), unit }
    }
}
