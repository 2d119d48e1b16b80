//! Offered load: a smoothed rate of the tokens asked for, and what is claimed by it. It must not know whether they were
//! granted.

use crate::time::Nanos;

/// Demand is smoothed over slots of this length.
pub(super) const SLOT: Nanos = Nanos::from_millis(10);
/// The weight of a slot: the time constant is ten slots, 100 ms.
const ALPHA: f32 = 0.1;
/// Below this many tokens a second a demand is none.
const NONE: f32 = 0.5;
/// A demand is claimed for so many slots to twice as many, half a second to a second, after it was as high.
const HOLD: u32 = 50;
/// A node that was asked for nothing in this many slots, 50 ms, gives up at once what it claims beyond its present demand
/// when a peer is short of it.
const IDLE: u8 = 5;

/// A smoothed rate of offered tokens, and what is claimed by it.
///
/// Claimed is the highest of the last half to whole second. Load that comes and goes then finds its weight there: it takes
/// two rounds of news to have it counted again, in which a small bucket gives a node little (half a second on, half a
/// second off, ten nodes, 20 ms: 81 % of what there was to give under `strict`, 98 % with it). Chance moves a maximum less
/// than a mean, so less is told as well. What one holds and does not use, another may lack: see [`Demand::give_up`].
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    smoothed: f32,
    pending: f32,
    /// The highest in the present stretch of [`HOLD`] slots, and in the one before.
    highest: f32,
    highest_before: f32,
    slot: u32,
    /// Slots since the last with a request, as far as it counts.
    quiet: u8,
}

impl Demand {
    /// None, at `now`.
    #[must_use]
    pub const fn new(now: Nanos) -> Self {
        Self { smoothed: 0.0, pending: 0.0, highest: 0.0, highest_before: 0.0, slot: slot_at(now), quiet: 0 }
    }

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

    /// What this node claims, tokens a second.
    pub fn claimed(&mut self, now: Nanos) -> f32 {
        self.fold(now);
        self.highest.max(self.highest_before)
    }

    /// A peer is short of the key: what is held here for requests that do not come is let go.
    pub fn give_up(&mut self, now: Nanos) {
        self.fold(now);
        if self.quiet >= IDLE && self.pending == 0.0 {
            (self.highest, self.highest_before) = (self.smoothed, self.smoothed);
        }
    }

    fn fold(&mut self, now: Nanos) {
        let slot = slot_at(now);
        // numbers of slots begin anew after 497 days
        let passed = slot.wrapping_sub(self.slot);
        if passed == 0 || passed > u32::MAX / 2 {
            return;
        }
        let offered = self.pending * (Nanos::SECOND.0 / SLOT.0) as f32;
        self.smoothed += ALPHA * (offered - self.smoothed);
        self.quiet = if self.pending > 0.0 { 0 } else { self.quiet.saturating_add(1) };
        self.highest = self.highest.max(self.smoothed);
        self.smoothed *= power(1.0 - ALPHA, passed - 1);
        if self.smoothed < NONE {
            self.smoothed = 0.0;
        }
        self.quiet = self.quiet.saturating_add(u8::try_from(passed - 1).unwrap_or(u8::MAX));
        match (slot / HOLD).wrapping_sub(self.slot / HOLD) {
            0 => {}
            1 => (self.highest_before, self.highest) = (self.highest, self.smoothed),
            _ => (self.highest_before, self.highest) = (self.smoothed, self.smoothed),
        }
        self.pending = 0.0;
        self.slot = slot;
    }
}

const fn slot_at(now: Nanos) -> u32 {
    (now.0 / SLOT.0) as u32
}

/// `base^n` by squaring: the platform's own `powi` may round otherwise on another machine, and runs must repeat.
fn power(mut base: f32, mut n: u32) -> f32 {
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
        let mut demand = Demand::new(Nanos::ZERO);
        let mut now = Nanos::ZERO;
        for _ in 0..1000 {
            demand.offer(now, 1);
            now = now.plus(MS);
        }
        assert!((demand.per_second(now) - 1000.0).abs() < 10.0);
        assert_eq!(demand.per_second(now.plus(Nanos::from_secs(2))), 0.0);
    }

    /// Ten requests of one token, a slot apart.
    fn busy_until(end: u64) -> (Demand, f32) {
        let mut demand = Demand::new(Nanos::ZERO);
        (end - 10..end).for_each(|slot| demand.offer(SLOT.times(slot), 1));
        let most = demand.per_second(SLOT.times(end));
        (demand, most)
    }

    #[test]
    fn what_was_asked_for_is_claimed_for_half_a_second_at_least_and_a_second_at_most() {
        for end in (100..150).step_by(7) {
            let (mut demand, most) = busy_until(end);
            assert_eq!(demand.claimed(SLOT.times(end + 50)), most);
            assert!(demand.per_second(SLOT.times(end + 50)) < 0.01 * most);
            assert!(demand.claimed(SLOT.times(end + 101)) < 0.01 * most);
        }
    }

    #[test]
    fn a_claim_is_given_up_when_a_peer_is_short_unless_requests_still_come() {
        let (mut demand, most) = busy_until(100);
        demand.give_up(SLOT.times(103));
        assert_eq!(demand.claimed(SLOT.times(103)), most, "the last came 30 ms ago");
        demand.give_up(SLOT.times(110));
        assert!(demand.claimed(SLOT.times(110)) < 0.5 * most);
        demand.offer(SLOT.times(130), 1);
        let (now, before) = (SLOT.times(131), demand.claimed(SLOT.times(131)));
        demand.give_up(now);
        assert_eq!(demand.claimed(now), before);
    }

    /// Slots are counted in 32 bits.
    #[test]
    fn numbers_of_slots_may_begin_anew() {
        let last = SLOT.times(u64::from(u32::MAX));
        let mut demand = Demand::new(last);
        demand.offer(last, 1);
        assert!(demand.per_second(last.plus(SLOT)) > 0.0);
        assert_eq!(demand.claimed(last.plus(Nanos::from_secs(3))), 0.0);
    }

    #[test]
    fn folding_slot_by_slot_is_folding_at_once() {
        let (mut often, mut seldom) = (Demand::new(Nanos::ZERO), Demand::new(Nanos::ZERO));
        often.offer(Nanos::ZERO, 500);
        seldom.offer(Nanos::ZERO, 500);
        for i in 1..=40 {
            often.per_second(SLOT.times(i));
        }
        let (often, seldom) = (often.per_second(SLOT.times(40)), seldom.per_second(SLOT.times(40)));
        assert!((often - seldom).abs() < 1e-3 * often, "{often} {seldom}");
    }
}
