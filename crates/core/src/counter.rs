//! What each replica has granted and refunded under one key: a PN-counter on the crdts crate. It must not know
//! buckets, frames or time.
//!
//! News is cumulative state, so that applying it twice, late or out of order does nothing. What moves the bucket is
//! the step by which the counter moved.

use crdts::pncounter::{Dir, Op, PNCounter};
use crdts::{CmRDT, CvRDT, Dot, ResetRemove, VClock};

/// A replica's short name inside one node: peers are numbered as they come, the node itself is [`Slot::OWN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl Slot {
    /// This node's own replica.
    pub const OWN: Self = Self(0);
}

/// By how much one replica's counters grew with a piece of news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Tokens granted.
    pub granted: u64,
    /// Tokens refunded.
    pub refunded: u64,
}

/// The counters of all replicas under one key. A cumulative count of 0 means that the replica is unknown here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(PNCounter<Slot>);

impl Counts {
    /// Tokens granted by `slot` as far as known, from an arbitrary start; 0 when nothing is known.
    #[must_use]
    pub fn granted(&self, slot: Slot) -> u64 {
        self.0.inc_many(slot, 0).dot.counter
    }

    /// Tokens refunded by `slot` as far as known, from an arbitrary start; 0 when nothing is known.
    #[must_use]
    pub fn refunded(&self, slot: Slot) -> u64 {
        self.0.dec_many(slot, 0).dot.counter
    }

    /// Takes the larger of what is known and what is told, and says what moved.
    pub fn learn(&mut self, slot: Slot, granted: u64, refunded: u64) -> Step {
        let step = Step {
            granted: granted.saturating_sub(self.granted(slot)),
            refunded: refunded.saturating_sub(self.refunded(slot)),
        };
        if step.granted > 0 {
            self.0.apply(Op { dot: Dot::new(slot, granted), dir: Dir::Pos });
        }
        if step.refunded > 0 {
            self.0.apply(Op { dot: Dot::new(slot, refunded), dir: Dir::Neg });
        }
        step
    }

    /// The least state that holds all of both.
    pub fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }

    /// Drops all that is known of `slot`, whose replica is gone for good.
    pub fn forget(&mut self, slot: Slot) {
        self.0.reset_remove(&VClock::from(Dot::new(slot, u64::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts() -> impl Strategy<Value = Counts> {
        proptest::collection::vec((0..5u16, 0..1000u64, 0..1000u64), 0..20).prop_map(|news| {
            let mut counts = Counts::default();
            for (slot, granted, refunded) in news {
                counts.learn(Slot(slot), granted, refunded);
            }
            counts
        })
    }

    fn merged(a: &Counts, b: &Counts) -> Counts {
        let mut a = a.clone();
        a.merge(b.clone());
        a
    }

    proptest! {
        #[test]
        fn merge_is_commutative_associative_idempotent_and_monotone(a in counts(), b in counts(), c in counts()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a.clone());
            let ab = merged(&a, &b);
            for slot in (0..5).map(Slot) {
                prop_assert_eq!(ab.granted(slot), a.granted(slot).max(b.granted(slot)));
                prop_assert_eq!(ab.refunded(slot), a.refunded(slot).max(b.refunded(slot)));
            }
        }

        #[test]
        fn any_order_and_repetition_of_news_ends_the_same(
            news in proptest::collection::vec((0..5u16, 0..1000u64, 0..1000u64), 1..20),
            order in proptest::collection::vec(0..1000usize, 1..60),
        ) {
            let (mut straight, mut shuffled) = (Counts::default(), Counts::default());
            let mut steps = 0;
            for (slot, granted, refunded) in &news {
                straight.learn(Slot(*slot), *granted, *refunded);
            }
            for i in order.iter().map(|i| i % news.len()).chain(0..news.len()) {
                steps += shuffled.learn(Slot(news[i].0), news[i].1, news[i].2).granted;
            }
            prop_assert_eq!(&straight, &shuffled);
            // the steps handed to the bucket add up to the counters, whatever the order
            prop_assert_eq!(steps, (0..5).map(|s| shuffled.granted(Slot(s))).sum::<u64>());
        }
    }

    #[test]
    fn a_forgotten_replica_leaves_nothing_and_the_others_stay() {
        let mut counts = Counts::default();
        counts.learn(Slot(1), 5, 2);
        counts.learn(Slot(2), 7, 0);
        counts.forget(Slot(1));
        assert_eq!((counts.granted(Slot(1)), counts.refunded(Slot(1))), (0, 0));
        assert_eq!(counts.granted(Slot(2)), 7);
    }
}
