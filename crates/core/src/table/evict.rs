//! Which key goes when a full shard takes in another. It must not know what comes in its place.

use super::Shard;
use crate::time::Now;

/// How many entries are looked at to find one to evict.
const EVICTION_SAMPLE: usize = 8;

impl Shard {
    /// Makes room for one: of a few entries the one that says least goes.
    pub(super) fn evict(&mut self, now: Now) {
        let mut least: Option<((f64, bool), usize)> = None;
        for _ in 0..EVICTION_SAMPLE.min(self.entries.len()) {
            let place = self.roll_dice();
            let entry = &self.entries[place];
            let level = entry.meter.level(&entry.rule, now).tokens() / entry.rule.capacity() as f64;
            // a full one may still say who may spend from it
            let says = (level, entry.news.as_ref().is_none_or(|news| news.told_demand() == 0.0));
            if least.is_none_or(|(fullest, _)| says > fullest) {
                least = Some((says, place));
            }
        }
        if let Some(((level, unclaimed), place)) = least {
            self.evictions += u64::from(level < 1.0 || !unclaimed);
            self.remove(place);
        }
    }

    /// Some entry's place. Not simply the next one: neighbours came together, and are often alike.
    ///
    /// Knuth's linear congruential generator (MMIX): its high bits are good enough for a sample, and the same each run.
    fn roll_dice(&mut self) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 32) as usize % self.entries.len()
    }
}
