//! Turns at a key whose limit has no whole token for each node: when a node wants one, and whom it lets go first. The rule
//! behind it is in [`crate::stability`]; what is said and confirmed of a turn stands in [`crate::news::Turn`].

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::decision::Reason;
use crate::entry::{Entry, KeyId};
use crate::stability::{self, Outlook};
use crate::time::{Nanos, Now};
use crate::view::ReplicaId;

/// A turn takes at least so long, however short the round trip.
const TURN_MIN: Nanos = Nanos::from_millis(1);
/// Ranks are dealt anew so often: longer than it takes to use a turn on a LAN, so that no node waits for many.
const DEAL: Nanos = Nanos::from_millis(10);
/// With so many tokens for each of those that want the key none need wait for another.
const TOKENS_EACH: f64 = 2.0;

impl Entry {
    /// Whether nodes take turns at the key now: its limit is too small to share, and a request that waits for its turn is
    /// held for long enough.
    fn goes_by_turns(&self, outlook: &Outlook) -> bool {
        let small = stability::too_small_to_share(&self.rule, outlook.replicas);
        small && self.rule.spec().confirm_wait >= outlook.round_trip && outlook.replicas > 1
    }

    /// A request was decided: whether this node wants its turn depends on why it was refused, if it was.
    pub fn want_or_not(&mut self, now: Now, outlook: &Outlook, reason: Option<Reason>) {
        let waits = reason == Some(Reason::Unconfirmed) && self.goes_by_turns(&self.outlook(outlook));
        let Some(news) = &mut self.news else { return };
        if waits {
            news.want_turn(now.at, patience(outlook));
        } else {
            news.end_want();
        }
    }

    /// Comes to where this node stands among those that take turns at the key, before it is told.
    pub fn settle_turn(&mut self, now: Now, outlook: &Outlook) {
        if self.news.as_ref().is_some_and(|news| news.has_turns()) {
            let active = self.goes_by_turns(&self.outlook(outlook));
            if let Some(news) = &mut self.news {
                news.settle_turn(now.at, active);
            }
        }
    }

    /// The peer `theirs` of this node `own` asks for its turn; says whether this node stands aside, and is to say so.
    pub fn give_way(&mut self, now: Now, outlook: &Outlook, own: &ReplicaId, theirs: &ReplicaId) -> bool {
        let seen = self.outlook(outlook);
        // while a peer is silent nobody can take what is given up
        if !self.goes_by_turns(&seen) || seen.silent > 0 {
            return false;
        }
        let level = self.level(now).tokens();
        let common = self.common(outlook);
        let Some(news) = &mut self.news else { return false };
        let crowded = level + news.unacked(now.at, common) < TOKENS_EACH * f64::from(1 + news.holders());
        let goes_first = crowded && rank(theirs, self.key, now.wall) > rank(own, self.key, now.wall);
        news.give_way(now.at, goes_first, patience(&seen))
    }
}

/// A request that waits for its turn is tried again in less than this, and one that gives way has its own back after it.
fn patience(outlook: &Outlook) -> Nanos {
    outlook.round_trip.max(TURN_MIN).times(2)
}

/// The place of `replica` in the queue for `key` at a wall time: who has the greater one goes first.
///
/// All compute alike as far as their clocks agree; where they do not, two may give way to each other, and ask again.
fn rank(replica: &ReplicaId, key: KeyId, wall: u64) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write_u64(wall / DEAL.0);
    hasher.write_u128(key.0);
    hasher.write_u64(replica.incarnation);
    hasher.write(replica.node.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_differ_and_are_dealt_anew() {
        let replica = |i: usize| ReplicaId { node: format!("n{i}").into(), incarnation: 1 };
        let first = |wall: u64| (0..4).max_by_key(|i| rank(&replica(*i), KeyId(7), wall * DEAL.0));
        let firsts: std::collections::BTreeSet<_> = (0..100).map(first).collect();
        assert_eq!(firsts.len(), 4);
    }
}
