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
    /// So a frame lost on the way costs nothing for a key that is told in every tick anyway. The later one stands for the
    /// older tick from then on: that it was received does not make it known yet.
    pub fn supersede(&mut self, got: &impl Fn(u64) -> bool) {
        if self.0.len() > SUPERSEDE_MAX {
            return;
        }
        let (mut received, missing): (Vec<&mut Sent>, Vec<&mut Sent>) =
            self.0.iter_mut().filter(|sent| sent.tick.is_some()).partition(|sent| sent.arrived || got(sent.seq));
        for sent in missing {
            for again in received.iter_mut().filter(|again| again.seq > sent.seq) {
                let told = |key: &KeyId| again.keys.binary_search(key).is_ok();
                if sent.keys.iter().any(told) {
                    sent.keys = sent.keys.iter().copied().filter(|key| !told(key)).collect();
                    again.tick = again.tick.min(sent.tick);
                }
            }
            if sent.keys.is_empty() {
                sent.tick = None;
            }
        }
    }
}
