//! What a peer has still to be told, each key once, with the oldest tick whose news of it is missing. It must not know
//! what there is to tell.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use crate::entry::KeyId;

/// The most keys queued one by one; beyond, the peer is told everything anew.
const KEYS_MAX: usize = 100_000;

/// What a peer has still to be told.
#[derive(Debug)]
pub enum Backlog {
    /// Keys.
    Keys(Keys),
    /// Every key that has something to say, as of a tick: the two have just met, or met again.
    Everything(u64),
}

/// Keys to be told, in turn.
#[derive(Debug, Default)]
pub struct Keys {
    /// The oldest tick whose news each one lacks.
    ticks: BTreeMap<KeyId, u64>,
    /// The oldest of all.
    oldest: Option<u64>,
    /// Where the next turn begins.
    last: Option<KeyId>,
}

impl Backlog {
    /// The oldest tick whose news is missing.
    pub const fn oldest(&self) -> Option<u64> {
        match self {
            Self::Keys(keys) => keys.oldest,
            Self::Everything(tick) => Some(*tick),
        }
    }

    /// Adds keys that lack the news of `tick`; says whether that is too many to tell one by one.
    pub fn add(&mut self, keys: &[KeyId], tick: u64) -> bool {
        let Self::Keys(queued) = self else { return false };
        for key in keys {
            let oldest = queued.ticks.entry(*key).or_insert(tick);
            *oldest = tick.min(*oldest);
        }
        if !keys.is_empty() {
            queued.oldest = Some(queued.oldest.map_or(tick, |oldest| oldest.min(tick)));
        }
        queued.ticks.len() > KEYS_MAX
    }

    /// Takes up to `most` keys, each in its turn, and the oldest tick whose news they lack.
    pub fn take(&mut self, most: usize) -> (Vec<KeyId>, u64) {
        let Self::Keys(queued) = self else { return (Vec::new(), 0) };
        let from = queued.last.map_or(Unbounded, Excluded);
        let turn = queued.ticks.range((from, Unbounded)).chain(&queued.ticks).take(most.min(queued.ticks.len()));
        let taken: Vec<(KeyId, u64)> = turn.map(|(key, tick)| (*key, *tick)).collect();
        for (key, _) in &taken {
            queued.ticks.remove(key);
        }
        if let Some((key, _)) = taken.last() {
            queued.last = Some(*key);
            queued.oldest = queued.ticks.values().min().copied();
        }
        let oldest = taken.iter().map(|(_, tick)| *tick).min().unwrap_or(0);
        (taken.into_iter().map(|(key, _)| key).collect(), oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_told_once_in_its_turn_with_the_oldest_tick_it_lacks() {
        let mut backlog = Backlog::Keys(Keys::default());
        assert_eq!(backlog.oldest(), None);
        backlog.add(&[KeyId(1), KeyId(2), KeyId(3)], 7);
        backlog.add(&[KeyId(2)], 5);
        assert_eq!(backlog.oldest(), Some(5));
        assert_eq!(backlog.take(2), (vec![KeyId(1), KeyId(2)], 5));
        assert_eq!(backlog.oldest(), Some(7));
        backlog.add(&[KeyId(1)], 9);
        assert_eq!(backlog.take(1), (vec![KeyId(3)], 7), "key 1 has had its turn");
        assert_eq!(backlog.take(9), (vec![KeyId(1)], 9));
        assert_eq!(backlog.oldest(), None);
    }
}
