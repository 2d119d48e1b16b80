//! Offered load: a smoothed rate of the tokens asked for. It must not know whether they were granted.

use crate::time::Nanos;

/// Demand is smoothed over slots of this length.
pub(super) const SLOT: Nanos = Nanos::from_millis(10);
/// The weight of a slot: the time constant is ten slots, 100 ms.
const ALPHA: f32 = 0.1;
/// Below this many tokens a second a demand is none.
const NONE: f32 = 0.5;
/// A smoothed rate of offered tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    smoothed: f32,
    pending: f32,
    slot: u64,
}

impl Demand {
    /// `cost` more tokens were asked for.
    pub fn offer(&mut self, now: Nanos, cost: u64) {
        self.fold(now);
        self.pending += cost as f32;
    }

    /// Tokens a second, over the slots that are complete; 0 when it is next to nothing.
    pub fn per_second(&mut self, now: Nanos) -> f32 {
        self.fold(now);
        self.smoothed
    }

    fn fold(&mut self, now: Nanos) {
        let slot = now.0 / SLOT.0;
        if slot <= self.slot {
            return;
        }
        let offered = self.pending * (Nanos::SECOND.0 / SLOT.0) as f32;
        self.smoothed += ALPHA * (offered - self.smoothed);
        self.smoothed *= power(1.0 - ALPHA, slot - self.slot - 1);
        if self.smoothed < NONE {
            self.smoothed = 0.0;
        }
        self.pending = 0.0;
        self.slot = slot;
    }
}

/// `base^n` by squaring: the platform's own `powi` may round otherwise on another machine, and runs must repeat.
fn power(mut base: f32, mut n: u64) -> f32 {
    let mut result = 1.0;
    while n > 0 && base > 0.0 {
        if n & 1 == 1 {
            result *= base;
        }
        base *= base;
        n >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = Nanos::from_millis(1);

    #[test]
    fn demand_settles_at_the_offered_rate_and_fades_to_none() {
        let mut demand = Demand::default();
        let mut now = Nanos::ZERO;
        for _ in 0..1000 {
            demand.offer(now, 1);
            now = now.plus(MS);
        }
        assert!((demand.per_second(now) - 1000.0).abs() < 10.0);
        assert_eq!(demand.per_second(now.plus(Nanos::from_secs(2))), 0.0);
    }

    #[test]
    fn folding_slot_by_slot_is_folding_at_once() {
        let (mut often, mut seldom) = (Demand::default(), Demand::default());
        often.offer(Nanos::ZERO, 500);
        seldom.offer(Nanos::ZERO, 500);
        for i in 1..=40 {
            often.per_second(SLOT.times(i));
        }
        let (often, seldom) = (often.per_second(SLOT.times(40)), seldom.per_second(SLOT.times(40)));
        assert!((often - seldom).abs() < 1e-3 * often, "{often} {seldom}");
    }
}
