//! How long things took, in constant room: counts by duration, a sixteenth apart. It must not know what took so long.

use serde::{Deserialize, Serialize};
use spillgate_core::time::Nanos;

/// Parts of an octave.
const PARTS: u64 = 16;
/// Each octave of nanoseconds in a `u64`.
const SLOTS: usize = 64 * PARTS as usize;

/// Counts of durations. Quantiles are exact to a sixteenth, never too low; the largest is exact.
#[derive(Clone, Debug)]
pub struct Durations {
    slots: Vec<u64>,
    most: Nanos,
}

impl Default for Durations {
    fn default() -> Self {
        Self { slots: vec![0; SLOTS], most: Nanos::ZERO }
    }
}

/// What durations come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many there were.
    pub count: u64,
    /// Half of them took at most so long, milliseconds.
    pub median_ms: f64,
    /// 99 in 100 took at most so long, milliseconds.
    pub p99_ms: f64,
    /// The longest, milliseconds.
    pub max_ms: f64,
    /// How many took at most so long (milliseconds) and longer than the bar before; bars without any are left out.
    pub bars: Vec<(f64, u64)>,
}

fn slot(nanos: u64) -> usize {
    if nanos < PARTS {
        return nanos as usize;
    }
    let octave = u64::from(nanos.ilog2());
    ((octave - 3) * PARTS + (nanos >> (octave - 4)) - PARTS) as usize
}

/// The longest duration that a slot counts.
const fn upper(slot: usize) -> u64 {
    let slot = slot as u64;
    if slot < PARTS {
        return slot;
    }
    let (octave, part) = (slot / PARTS + 3, slot % PARTS);
    let low = (PARTS + part) << (octave - 4);
    low + (1 << (octave - 4)) - 1
}

impl Durations {
    /// Counts one.
    pub fn add(&mut self, took: Nanos) {
        self.slots[slot(took.0)] += 1;
        self.most = self.most.max(took);
    }

    /// What they come to.
    #[must_use]
    pub fn spread(&self) -> Spread {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let count: u64 = self.slots.iter().sum();
        let quantile = |part: f64| {
            let rank = (count as f64 * part).ceil() as u64;
            let mut seen = 0;
            let place = self.slots.iter().position(|n| {
                seen += n;
                seen >= rank.max(1)
            });
            place.map_or(0.0, |place| ms(upper(place).min(self.most.0)))
        };
        // four bars an octave are enough to look at
        let bars = self.slots.chunks(4).enumerate().filter_map(|(at, slots)| {
            let sum: u64 = slots.iter().sum();
            (sum > 0).then(|| (ms(upper(at * 4 + 3)), sum))
        });
        Spread {
            count,
            median_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            max_ms: ms(self.most.0),
            bars: bars.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut all = Durations::default();
        for ms in 1..=100 {
            all.add(Nanos::from_millis(ms));
        }
        let spread = all.spread();
        assert_eq!((spread.count, spread.max_ms), (100, 100.0));
        assert!((50.0..=54.0).contains(&spread.median_ms), "{spread:?}");
        assert!((99.0..=100.0).contains(&spread.p99_ms), "{spread:?}");
        assert_eq!(spread.bars.iter().map(|(_, n)| n).sum::<u64>(), 100);
    }

    #[test]
    fn nothing_counted_is_nothing() {
        assert_eq!(Durations::default().spread(), Spread::default());
    }

    proptest! {
        #[test]
        fn a_slot_is_no_shorter_and_a_sixteenth_longer_at_most(nanos in 0..u64::MAX / 2) {
            let top = upper(slot(nanos));
            prop_assert!(top >= nanos && top - nanos <= nanos / 16, "{nanos} {top}");
        }
    }
}
