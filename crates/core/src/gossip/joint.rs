//! What the peers come to together, kept while single links move: a frame changes one link, and looking at all the
//! others for it would make a round of news cost the cube of the number of nodes. It must not know links.

use crate::time::Nanos;

/// What one live peer adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The newest tick up to which it has confirmed everything.
    pub confirmed: u64,
    /// The newest stable tick that it has confirmed hearing of.
    pub stable: u64,
    /// Its round trip.
    pub round_trip: Nanos,
}

/// The least of some numbers, and how many of them are that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Least {
    value: u64,
    holders: usize,
}

impl Least {
    const NONE: Self = Self { value: u64::MAX, holders: 0 };

    const fn add(&mut self, value: u64) {
        if value < self.value || self.holders == 0 && value == self.value {
            *self = Self { value, holders: 1 };
        } else if value == self.value {
            self.holders += 1;
        }
    }

    /// One of them changes; says whether the least is still known.
    const fn change(&mut self, from: u64, to: u64) -> bool {
        if from == self.value {
            self.holders = self.holders.saturating_sub(1);
        }
        self.add(to);
        self.holders > 0
    }
}

/// All peers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joint {
    confirmed: Least,
    stable: Least,
    /// Of what each round trip lacks to the longest there could be.
    quickness: Least,
    /// How many peers are silent.
    pub silent: u32,
    /// How many of those membership calls dead.
    pub dead: u32,
}

impl Joint {
    /// Of nobody.
    pub const NONE: Self =
        Self { confirmed: Least::NONE, stable: Least::NONE, quickness: Least::NONE, silent: 0, dead: 0 };

    /// Takes in one more live peer.
    pub const fn add(&mut self, mark: Mark) {
        self.confirmed.add(mark.confirmed);
        self.stable.add(mark.stable);
        self.quickness.add(u64::MAX - mark.round_trip.0);
    }

    /// One live peer changes; says whether all is still known, else everybody has to be looked at.
    pub const fn change(&mut self, from: Mark, to: Mark) -> bool {
        let confirmed = self.confirmed.change(from.confirmed, to.confirmed);
        let stable = self.stable.change(from.stable, to.stable);
        let quickness = self.quickness.change(u64::MAX - from.round_trip.0, u64::MAX - to.round_trip.0);
        confirmed && stable && quickness
    }

    /// The least, but for the round trip, which is the longest; `None` of nobody.
    pub fn mark(&self) -> Option<Mark> {
        let Self { confirmed, stable, quickness, .. } = self;
        (confirmed.holders > 0).then_some(Mark {
            confirmed: confirmed.value,
            stable: stable.value,
            round_trip: Nanos(u64::MAX - quickness.value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark() -> impl Strategy<Value = Mark> {
        (0..5u64, 0..5u64, 0..5u64).prop_map(|(confirmed, stable, trip)| Mark {
            confirmed,
            stable,
            round_trip: Nanos(trip),
        })
    }

    fn of(all: &[Mark]) -> Joint {
        let mut joint = Joint::NONE;
        all.iter().for_each(|mark| joint.add(*mark));
        joint
    }

    proptest! {
        /// Whatever moves, what is known is what looking at all comes to; and it is not given up without need.
        #[test]
        fn one_by_one_is_as_all_at_once(
            mut all in proptest::collection::vec(mark(), 1..8),
            changes in proptest::collection::vec((0..8usize, mark()), 0..40),
        ) {
            let mut joint = of(&all);
            for (place, to) in changes {
                let place = place % all.len();
                let from = std::mem::replace(&mut all[place], to);
                let before = of(&all.iter().enumerate().map(|(i, m)| if i == place { from } else { *m }).collect::<Vec<_>>());
                if joint.change(from, to) {
                    prop_assert_eq!(joint, of(&all));
                } else {
                    let rose = |of: fn(&Mark) -> u64| of(&to) > of(&from);
                    prop_assert!(rose(|m| m.confirmed) || rose(|m| m.stable) || rose(|m| u64::MAX - m.round_trip.0));
                    prop_assert!(before.mark().is_some());
                    joint = of(&all);
                }
            }
        }
    }

    #[test]
    fn of_nobody_there_is_nothing() {
        assert_eq!(Joint::NONE.mark(), None);
    }
}
