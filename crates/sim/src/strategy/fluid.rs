//! A bucket of fractions of tokens whose rate and size change, for strategies that give a node a moving part of a limit.
//! It must not know how that part comes about.

use spillgate_core::limit::Rule;
use spillgate_core::time::Nanos;

use crate::observe::{Reason, Verdict};

/// A bucket; its level may be negative, where a strategy drains it by other than requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fluid {
    level: f64,
    at: Nanos,
}

impl Fluid {
    /// A full one.
    pub const fn full(size: f64, now: Nanos) -> Self {
        Self { level: size, at: now }
    }

    /// Lets time pass at `rate` tokens a second, which may be negative: never above `size` nor below none.
    pub fn settle(&mut self, now: Nanos, rate: f64, size: f64) {
        let come = rate * now.since(self.at).as_secs_f64();
        self.level = (self.level + come).clamp(0.0, size.max(0.0));
        self.at = self.at.max(now);
    }

    /// Takes `cost` tokens if they are there.
    pub fn take(&mut self, cost: u64, rate: f64) -> Verdict {
        let lacking = cost as f64 - self.level;
        // what doubles can't tell from a whole token is one
        if lacking <= 1e-9 {
            self.level -= cost as f64;
            return Verdict::ALLOWED;
        }
        let wait = lacking / rate * 1e9;
        let retry_after = if wait.is_finite() && wait > 0.0 { Nanos(wait as u64) } else { Nanos::ZERO };
        Verdict { retry_after, ..Verdict::denied(Reason::OverLimit) }
    }
}

/// The refusal of what no full bucket of the whole limit could grant.
pub(super) fn too_large(rule: &Rule, cost: u64) -> Option<Verdict> {
    (cost > rule.capacity()).then_some(Verdict { retry_after: Nanos::MAX, ..Verdict::denied(Reason::TooLarge) })
}

/// Tokens a second that bring as much as the limit does: of a window, its content a window.
pub(super) fn rate(rule: &Rule) -> f64 {
    rule.rate().per_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_to_its_size_and_drains_to_none() {
        let mut bucket = Fluid::full(5.0, Nanos::ZERO);
        assert!(bucket.take(5, 10.0).allowed);
        bucket.settle(Nanos::from_millis(150), 10.0, 5.0);
        let refused = bucket.take(2, 10.0);
        assert_eq!((refused.allowed, refused.retry_after), (false, Nanos::from_millis(50)));
        bucket.settle(Nanos::from_secs(9), 10.0, 5.0);
        assert!(bucket.take(5, 10.0).allowed && !bucket.take(1, 10.0).allowed);
        bucket.settle(Nanos::from_secs(10), -10.0, 5.0);
        assert_eq!(bucket.take(1, -10.0).retry_after, Nanos::ZERO);
    }
}
