//! How much news may be under way to a peer at a time: additive increase, multiplicative decrease, as TCP's (RFC 5681).
//! It must not know what is under way.
//!
//! Without it a link too narrow for the news carries less and less of it: what overflows is told again, and crowds out
//! what is new. News is state, so what has to wait is told later with the values of then, each key once.

use crate::time::Nanos;

/// Bytes that may always be under way: where frames are lost by chance, news of a few keys must not wait for them.
const LEAST: f64 = 8_192.0;
/// At first.
const FIRST: f64 = 65_536.0;
/// At the most: more is not worth the memory.
const MOST: f64 = 4_194_304.0;
/// By so many bytes it grows in a round trip, once it is near what the path carries.
const STEP: f64 = 1_200.0;

/// Bytes of news that may be under way to a peer.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    bytes: f64,
    /// Above it the increase is slow: half of what was under way when the path was full last.
    gently_from: f64,
    reduced: Nanos,
    under_way: usize,
}

impl Budget {
    /// Of a link of which nothing is known.
    pub const fn new() -> Self {
        Self { bytes: FIRST, gently_from: MOST, reduced: Nanos::ZERO, under_way: 0 }
    }

    /// How many bytes may go out.
    pub fn room(&self) -> usize {
        (self.bytes as usize).saturating_sub(self.under_way)
    }

    /// So many bytes went out.
    pub const fn sent(&mut self, bytes: usize) {
        self.under_way += bytes;
    }

    /// So many have arrived.
    pub fn arrived(&mut self, bytes: usize) {
        self.under_way = self.under_way.saturating_sub(bytes);
        let bytes = bytes as f64;
        let grown = if self.bytes < self.gently_from { bytes } else { STEP * bytes / self.bytes };
        self.bytes = (self.bytes + grown).min(MOST);
    }

    /// So many are lost; it shrinks once in a round trip.
    pub fn lost(&mut self, bytes: usize, now: Nanos, round_trip: Nanos) {
        self.under_way = self.under_way.saturating_sub(bytes);
        if bytes > 0 && now.since(self.reduced) > round_trip {
            self.bytes = (self.bytes / 2.0).max(LEAST);
            (self.gently_from, self.reduced) = (self.bytes, now);
        }
    }

    /// Nothing is under way any more.
    pub const fn start_over(&mut self) {
        self.under_way = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Nanos = Nanos::from_millis(10);

    #[test]
    fn it_doubles_in_a_round_trip_until_the_first_loss_and_grows_by_a_frame_after_it() {
        let mut budget = Budget::new();
        let trip = |budget: &mut Budget| {
            let bytes = budget.room();
            budget.sent(bytes);
            assert_eq!(budget.room(), 0);
            budget.arrived(bytes);
            bytes
        };
        assert_eq!(trip(&mut budget) * 2, trip(&mut budget));
        budget.sent(1000);
        budget.lost(1000, TRIP.times(2), TRIP);
        let halved = trip(&mut budget);
        assert_eq!(halved, FIRST as usize * 2);
        assert_eq!(trip(&mut budget) - halved, STEP as usize);
    }

    #[test]
    fn many_losses_at_once_are_one_and_something_may_always_go_out() {
        let mut budget = Budget::new();
        for _ in 0..10 {
            budget.lost(100, TRIP.times(2), TRIP);
        }
        assert_eq!(budget.room(), FIRST as usize / 2);
        for i in 0..100 {
            budget.lost(100, TRIP.times(4 + 2 * i), TRIP);
        }
        assert_eq!(budget.room(), LEAST as usize);
    }
}
