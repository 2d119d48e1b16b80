//! When Redis decides, and when the nodes decide again. It must not know Redis, nor peers by name.
//!
//! In fallback mode the store decides once the node has been cut off for [`CUT_OFF_AFTER`], and until the cluster has
//! been back for [`BACK_AFTER`]: a link that flaps switches nothing.

use spillgate_core::time::Nanos;
use spillgate_core::view::PeerState;

/// How long a node must be cut off before the store decides. Longer than what a node says of itself at the store is
/// believed (a second), so that a peer that crashed is known to be gone by then.
pub const CUT_OFF_AFTER: Nanos = Nanos::from_millis(1200);
/// How long the cluster must be back before the nodes decide again.
pub const BACK_AFTER: Nanos = Nanos::SECOND;
/// How long a node that has said at the store how it decides is taken to go on so.
pub const PRESENCE_BELIEVED: Nanos = Nanos::SECOND;

/// What was switched to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decider {
    /// The nodes by themselves.
    Nodes,
    /// The store.
    Store,
}

/// Who decides, and since when that might change.
#[derive(Clone, Debug)]
pub struct Switch {
    decider: Decider,
    /// Since when the other one should.
    other_since: Option<Nanos>,
}

impl Switch {
    /// In the beginning.
    #[must_use]
    pub const fn new(decider: Decider) -> Self {
        Self { decider, other_since: None }
    }

    /// Takes in whether the node is cut off at `now`; returns who decides from now on where that has changed.
    pub fn look(&mut self, now: Nanos, cut_off: bool) -> Option<Decider> {
        let (wanted, patience) = if cut_off { (Decider::Store, CUT_OFF_AFTER) } else { (Decider::Nodes, BACK_AFTER) };
        if wanted == self.decider {
            self.other_since = None;
            return None;
        }
        let since = *self.other_since.get_or_insert(now);
        if now.since(since) < patience {
            return None;
        }
        *self = Self::new(wanted);
        Some(wanted)
    }
}

/// Whether a node is cut off: it has or expects peers, and hears of fewer than `min_peers`.
#[must_use]
pub const fn is_cut_off(alive: usize, expected: bool, min_peers: u64) -> bool {
    expected && (alive as u64) < min_peers
}

/// Whether a peer spends without the store, so that this node's share must hold beside what the store says. `said` is what
/// it told at the store, not long ago.
///
/// A silent one that says nothing there has crashed, or asks nobody. One that is heard decides by itself as a rule: also
/// while this node still asks the store, for [`BACK_AFTER`], and then nobody tells the store what it spends.
#[must_use]
pub fn goes_on_without_store(state: PeerState, said: Option<Decider>) -> bool {
    match state {
        PeerState::Alive => said != Some(Decider::Store),
        _ => state == PeerState::Silent && said == Some(Decider::Nodes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_switches_after_a_while_and_a_flap_begins_it_anew() {
        let mut switch = Switch::new(Decider::Nodes);
        let ms = Nanos::from_millis;
        assert_eq!(switch.look(ms(0), true), None);
        assert_eq!(switch.look(ms(1199), true), None);
        assert_eq!(switch.look(ms(1199), false), None);
        assert_eq!(switch.look(ms(1200), true), None, "heard of in between");
        assert_eq!(switch.look(ms(2399), true), None);
        assert_eq!(switch.look(ms(2400), true), Some(Decider::Store));
        assert_eq!(switch.look(ms(9000), true), None, "told once");
        assert_eq!(switch.look(ms(10_000), false), None);
        assert_eq!(switch.look(ms(10_999), true), None);
        assert_eq!(switch.look(ms(11_000), false), None);
        assert_eq!(switch.look(ms(11_999), false), None);
        assert_eq!(switch.look(ms(12_000), false), Some(Decider::Nodes));
    }

    #[test]
    fn a_node_that_expects_nobody_is_never_cut_off() {
        assert!(!is_cut_off(0, false, 1));
        assert!(is_cut_off(0, true, 1));
        assert!(!is_cut_off(1, true, 1));
        assert!(is_cut_off(1, true, 2));
    }

    #[test]
    fn who_spends_without_the_store_is_whoever_is_heard_or_says_so() {
        use {Decider as D, PeerState as P};
        for (state, said, goes_on) in [
            (P::Alive, None, true),
            (P::Alive, Some(D::Nodes), true),
            (P::Alive, Some(D::Store), false),
            (P::Silent, None, false),
            (P::Silent, Some(D::Nodes), true),
            (P::Silent, Some(D::Store), false),
        ] {
            assert_eq!(goes_on_without_store(state, said), goes_on, "{state:?} {said:?}");
        }
    }
}
