//! What one replica has granted and refunded under one key: its part of a PN-counter, on the crdts crate. It must not know
//! buckets, frames or time.
//!
//! News is cumulative state, so that applying it twice, late or out of order does nothing. What moves the bucket is
//! the step by which the counter moved.

use crdts::LWWReg;

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

/// The cumulative counts of one replica under one key, as far as known, from an arbitrary start. 0 means that nothing is
/// known.
///
/// A PN-counter is a pair of maxima for each replica. The crate's own keeps them in two trees a key; here they lie beside
/// what else is known of the replica. A register whose mark is the count itself is such a maximum: the last writer's is the
/// largest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    granted: LWWReg<(), u64>,
    refunded: LWWReg<(), u64>,
}

impl Count {
    /// Tokens granted.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.granted.marker
    }

    /// Tokens refunded.
    #[must_use]
    pub const fn refunded(&self) -> u64 {
        self.refunded.marker
    }

    /// Takes the larger of what is known and what is told, and says what moved.
    pub fn learn(&mut self, granted: u64, refunded: u64) -> Step {
        let step = Step {
            granted: granted.saturating_sub(self.granted()),
            refunded: refunded.saturating_sub(self.refunded()),
        };
        self.granted.update((), granted);
        self.refunded.update((), refunded);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crdts::pncounter::{Dir, Op, PNCounter};
    use crdts::{CmRDT as _, Dot};
    use proptest::prelude::*;

    fn count() -> impl Strategy<Value = Count> {
        (0..1000u64, 0..1000u64).prop_map(|(granted, refunded)| {
            let mut count = Count::default();
            count.learn(granted, refunded);
            count
        })
    }

    fn merged(a: &Count, b: &Count) -> Count {
        let mut a = a.clone();
        a.learn(b.granted(), b.refunded());
        a
    }

    proptest! {
        #[test]
        fn merge_is_commutative_associative_idempotent_and_monotone(a in count(), b in count(), c in count()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a.clone());
            let ab = merged(&a, &b);
            prop_assert_eq!(ab.granted(), a.granted().max(b.granted()));
            prop_assert_eq!(ab.refunded(), a.refunded().max(b.refunded()));
        }

        /// The crate's PN-counter is what it must not differ from.
        #[test]
        fn any_order_and_repetition_of_news_ends_the_same_as_in_a_pn_counter(
            news in proptest::collection::vec((0..5u16, 0..1000u64, 0..1000u64), 1..20),
            order in proptest::collection::vec(0..1000usize, 1..60),
        ) {
            let mut counts = [const { Count { granted: LWWReg { val: (), marker: 0 }, refunded: LWWReg { val: (), marker: 0 } } }; 5];
            let mut model = PNCounter::new();
            let mut steps = 0;
            for (slot, granted, refunded) in &news {
                model.apply(Op { dot: Dot::new(*slot, *granted), dir: Dir::Pos });
                model.apply(Op { dot: Dot::new(*slot, *refunded), dir: Dir::Neg });
            }
            for i in order.iter().map(|i| i % news.len()).chain(0..news.len()) {
                let (slot, granted, refunded) = news[i];
                steps += counts[usize::from(slot)].learn(granted, refunded).granted;
            }
            for (slot, count) in (0..).zip(&counts) {
                prop_assert_eq!(count.granted(), model.inc_many(slot, 0).dot.counter);
                prop_assert_eq!(count.refunded(), model.dec_many(slot, 0).dot.counter);
            }
            // the steps handed to the bucket add up to the counters, whatever the order
            prop_assert_eq!(steps, counts.iter().map(Count::granted).sum::<u64>());
        }
    }
}
