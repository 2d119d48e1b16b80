//! Frames under way to a peer: which of them the next one rests on, and which are said again by later ones. It must not know
//! what keys are, or when a frame is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::entry::KeyId;
use crate::time::Nanos;
use crate::wire::Ack;

/// With more frames under way, which of them are superseded is not worked out: a lost one is told again all the same.
const SUPERSEDE_MAX: usize = 64;
/// A frame under way.
#[derive(Debug)]
pub(super) struct Sent {
    pub seq: u64,
    pub at: Nanos,
    /// The oldest tick whose news it carries; `None`: it carries none.
    pub tick: Option<u64>,
    /// The stable tick it announces.
    pub stable: u64,
    /// Bytes of news in it.
    pub bytes: usize,
    /// Whether the peer has confirmed receiving it, though this node does not have all that the peer had said before.
    pub arrived: bool,
    pub keys: Arc<[KeyId]>,
}

/// News that goes into one frame.
#[derive(Clone, Debug)]
pub struct Cargo {
    /// The oldest tick whose news it is.
    pub tick: u64,
    /// Bytes of it.
    pub bytes: usize,
    /// Of which keys, in order.
    pub keys: Arc<[KeyId]>,
}

/// What every frame says of this node.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// This node's incarnation.
    pub own: u64,
    /// The newest of its ticks that all live peers have confirmed.
    pub stable: u64,
    /// The digest of all replicas that it counts.
    pub members: u64,
}

/// The frames under way, oldest first.
#[derive(Debug, Default)]
pub(super) struct Flight(pub VecDeque<Sent>);

impl Flight {
    /// The oldest tick whose news is under way.
    pub fn oldest(&self) -> Option<u64> {
        self.0.iter().filter_map(|sent| sent.tick).min()
    }

    /// The same of news that the peer has not confirmed receiving.
    pub fn oldest_missing(&self) -> Option<u64> {
        self.0.iter().filter(|sent| !sent.arrived).filter_map(|sent| sent.tick).min()
    }

    /// Lets go of the frames that the peer had received when it said `ack`, since all that it had told before is known
    /// here; returns the newest stable tick that they announced.
    pub fn let_go(&mut self, ack: &Ack) -> Option<u64> {
        let mut stable = None;
        self.0.retain(|sent| {
            let known = sent.arrived && ack.follows(sent.seq);
            if known {
                stable = stable.max(Some(sent.stable));
            }
            !known
        });
        stable
    }

    /// Which of these the peer must have beside frame `seq`, which tells `keys`, to know all that they tell; `None` when one
    /// is too old to be named.
    pub fn needed(&self, seq: u64, keys: &[KeyId]) -> Option<u64> {
        let mut needs = 0;
        for sent in self.0.iter().filter(|sent| sent.tick.is_some() && !sent.arrived) {
            let again = self.0.len() <= SUPERSEDE_MAX && sent.keys.iter().all(|key| keys.binary_search(key).is_ok());
            if !again {
                needs |= 1u64.checked_shl(u32::try_from(seq - 1 - sent.seq).ok()?)?;
            }
        }
        Some(needs)
    }

    /// Lets go of what a frame says, where a later one that was received says it again: news is state.
    ///
    /// So a frame lost on the way costs nothing for a key that is told in every tick anyway. The later one stands for its tick
    /// from then on: it may have been received by a peer of which not all is known.
    pub fn supersede(&mut self, got: &impl Fn(u64) -> bool) {
        if self.0.len() > SUPERSEDE_MAX {
            return;
        }
        let told: Vec<(u64, Arc<[KeyId]>)> = self
            .0
            .iter()
            .filter(|sent| sent.tick.is_some() && (sent.arrived || got(sent.seq)))
            .map(|sent| (sent.seq, Arc::clone(&sent.keys)))
            .collect();
        let mut stands_for: Vec<(u64, u64)> = Vec::new();
        for sent in self.0.iter_mut().filter(|sent| !sent.arrived && !got(sent.seq)) {
            let Some(tick) = sent.tick else { continue };
            let again = |key: &KeyId| {
                told.iter().find(|(seq, keys)| *seq > sent.seq && keys.binary_search(key).is_ok()).map(|(seq, _)| *seq)
            };
            let before = stands_for.len();
            stands_for.extend(sent.keys.iter().filter_map(again).map(|seq| (seq, tick)));
            if stands_for.len() > before {
                sent.keys = sent.keys.iter().copied().filter(|key| again(key).is_none()).collect();
                if sent.keys.is_empty() {
                    sent.tick = None;
                }
            }
        }
        for (seq, tick) in stands_for {
            for sent in self.0.iter_mut().filter(|sent| sent.seq == seq) {
                sent.tick = sent.tick.min(Some(tick));
            }
        }
    }
}
