//! Which frames of a peer were received, as it is confirmed to it. It must not know what they say.

use crate::time::Nanos;
use crate::wire::{Ack, WINDOW};

/// The newest frame received, and which of those before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Received {
    high: u64,
    /// Bit i: `high - 1 - i` was, too.
    bits: u64,
    at: Nanos,
}

impl Received {
    /// What confirms it to the run `of` the peer; nothing before the first frame.
    #[must_use]
    pub fn ack(&self, of: u64, now: Nanos) -> Option<Ack> {
        let delay_us = now.since(self.at).0 / 1000;
        (self.high > 0).then_some(Ack { of, high: self.high, bits: self.bits, delay_us })
    }

    /// The newest frame and which of those before it, as [`Ack`] names them; `None` before the first.
    #[must_use]
    pub fn names(&self) -> Option<(u64, u64)> {
        (self.high > 0).then_some((self.high, self.bits))
    }

    /// Whether frame `seq` is newer than all that were received.
    #[must_use]
    pub const fn is_newest(&self, seq: u64) -> bool {
        seq > self.high
    }

    /// Whether all those before frame `seq` were received that have a bit in `needs`: bit i for `seq - 1 - i`.
    #[must_use]
    pub fn has_before(&self, seq: u64, needs: u64) -> bool {
        let behind = u32::try_from(self.high.saturating_sub(seq)).unwrap_or(u32::MAX);
        let needs = if needs == 0 { Some(0) } else { needs.checked_shl(behind).filter(|n| n >> behind == needs) };
        needs.is_some_and(|needs| needs & !self.bits == 0)
    }

    /// Notes a frame. False when it is a duplicate or too old to be told from one.
    pub fn note(&mut self, seq: u64, now: Nanos) -> bool {
        if self.is_newest(seq) {
            let ahead = seq - self.high;
            self.bits = match ahead {
                1..=63 => (self.bits << ahead) | (u64::from(self.high > 0) << (ahead - 1)),
                64 => u64::from(self.high > 0) << 63,
                _ => 0,
            };
            (self.high, self.at) = (seq, now);
            return true;
        }
        let behind = self.high - seq;
        if behind == 0 || behind > WINDOW || self.bits >> (behind - 1) & 1 == 1 {
            return false;
        }
        self.bits |= 1 << (behind - 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_frame_is_received_once_and_acks_tell_the_truth(seqs in proptest::collection::vec(1..200u64, 1..300)) {
            let mut received = Received::default();
            let mut seen = std::collections::BTreeSet::new();
            for seq in seqs {
                let high = seen.last().copied().unwrap_or(0);
                let fresh = received.note(seq, Nanos::ZERO);
                if seq + WINDOW < high {
                    prop_assert!(!fresh);
                } else {
                    prop_assert_eq!(fresh, seen.insert(seq));
                }
                let ack = received.ack(7, Nanos::ZERO).expect("something was received");
                prop_assert_eq!(Some(&ack.high), seen.last());
                for behind in 1..=WINDOW.min(ack.high) {
                    let told = ack.bits >> (behind - 1) & 1 == 1;
                    prop_assert_eq!(told, seen.contains(&(ack.high - behind)), "{} behind {}", behind, ack.high);
                }
            }
        }
    }
}
