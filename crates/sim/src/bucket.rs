//! Buckets by limit and key, decided with core's own arithmetic and nothing else: what one place that knows everything
//! does. It must not know where that place is.

use spillgate_core::algorithm::Meter;
use spillgate_core::limit::Rule;
use spillgate_core::time::{Nanos, Now};

use crate::observe::{Reason, Verdict};
use crate::scenario::{KeyIndex, LimitIndex};

/// A bucket (or what else the limit's algorithm counts by) for each limit and key that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Buckets(Vec<Vec<Option<Meter>>>);

impl Buckets {
    /// Decides, and charges what it grants.
    pub fn decide(&mut self, rule: &Rule, now: Now, limit: LimitIndex, key: KeyIndex, cost: u64) -> Verdict {
        decide(self.meter(rule, now, limit, key), rule, now, cost)
    }

    /// The bucket itself; a full one where there was none.
    pub fn meter(&mut self, rule: &Rule, now: Now, limit: LimitIndex, key: KeyIndex) -> &mut Meter {
        if self.0.len() <= limit {
            self.0.resize_with(limit + 1, Vec::new);
        }
        let keys = &mut self.0[limit];
        if keys.len() <= key as usize {
            keys.resize(key as usize + 1, None);
        }
        keys[key as usize].get_or_insert_with(|| Meter::full(rule, now))
    }
}

/// Decides by one bucket, and charges it what it grants.
pub fn decide(meter: &mut Meter, rule: &Rule, now: Now, cost: u64) -> Verdict {
    if cost > rule.capacity() {
        return Verdict { retry_after: Nanos::MAX, ..Verdict::denied(Reason::TooLarge) };
    }
    if !meter.level(rule, now).covers(cost) || meter.delayed_too_long(rule, now) {
        let retry_after = meter.wait_for(rule, now, cost);
        return Verdict { retry_after, ..Verdict::denied(Reason::OverLimit) };
    }
    let delay = meter.delay(rule, now);
    meter.charge(rule, now, cost);
    Verdict { delay, ..Verdict::ALLOWED }
}
