//! What the peers may have granted that is not known here: the live bound rests on it. It must not know keys or limits.

use super::peer::Peer;
use crate::time::Nanos;

/// As of the last look at all peers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unheard {
    /// Up to when all is known that they granted, on average.
    pub known: Nanos,
    /// Peers that went on by themselves, or may have, and have not told all of it.
    pub apart: u32,
    /// The same of these.
    pub apart_known: Nanos,
}

impl Unheard {
    /// Looks up to when all is known that the peers granted, who tell at each `interval`.
    pub fn look(peers: &mut [Peer], interval: Nanos, now: Nanos) -> Self {
        let (mut known, mut apart_known, mut apart) = (0u128, 0u128, 0u32);
        for peer in &mut *peers {
            if peer.goes_on() {
                peer.apart_at = Some(now);
            }
            // what it granted since its last round it has not told
            let up_to = u128::from(peer.known.since(interval).0);
            known += up_to;
            if peer.apart_at.is_some_and(|at| at >= peer.known) {
                (apart, apart_known) = (apart + 1, apart_known + up_to);
            }
        }
        let mean = |sum: u128, of: usize| u64::try_from(sum / of.max(1) as u128).map_or(Nanos::MAX, Nanos);
        Self { known: mean(known, peers.len()), apart, apart_known: mean(apart_known, apart as usize) }
    }
}
