//! What is kept of a key while peers are silent: what they are assumed to spend, and own charges that only they have not
//! confirmed. The rule behind it is in [`crate::stability`] and [`crate::entry::Entry::assume`].

use super::{News, PeerNews};
use crate::counter::Slot;
use crate::time::Nanos;

/// What is kept of a key while peers are silent.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    /// The own demand that the silent had heard of: no more weight than that is claimed.
    pub(super) demand: f32,
    /// Up to when their spending was assumed.
    pub(super) until: Nanos,
    /// The part of a token that was assumed and not charged yet.
    pub(super) carry: f64,
    /// Tokens assumed since the bucket was full last: only those can be given back, what was there before has overflowed.
    pub(super) since_full: f64,
    /// Own charges that all but the silent have confirmed, tokens.
    pub(super) held: f64,
    /// The same of the window before, of a windowed limit.
    pub(super) held_before: f64,
    /// Tokens that, by a central store's word, the silent spent in the window before.
    pub(super) spent_before: f64,
}

impl News {
    /// A peer has fallen silent, if none was before.
    pub fn begin_silence(&mut self, now: Nanos) {
        let demand = self.spans.demand_confirmed(self.told_demand);
        self.silence.get_or_insert_with(|| Box::new(Silence { demand, until: now, ..Silence::default() }));
    }

    /// Seconds since this was asked last, during a silence.
    pub fn silent_for(&mut self, now: Nanos) -> f64 {
        self.silence.as_mut().map_or(0.0, |silence| {
            let passed = now.since(silence.until).as_secs_f64();
            silence.until = now;
            passed
        })
    }

    /// Notes that each of `spenders` is assumed to have spent so much, and that `released` of the held own charges may
    /// leave the window. Returns the whole tokens to charge for it; `full` says whether the bucket is.
    pub fn assume(&mut self, spenders: &[(Slot, f64)], released: f64, full: bool, now: Nanos) -> u64 {
        let mut sum = 0.0;
        for (slot, tokens) in spenders {
            sum += tokens;
            match self.peers.iter_mut().find(|p| p.slot == *slot) {
                Some(peer) => peer.assumed += tokens,
                None => self.peers.push(PeerNews { assumed: *tokens, ..PeerNews::new(*slot, now) }),
            }
        }
        let Some(silence) = &mut self.silence else { return 0 };
        silence.held = (silence.held - released).max(0.0);
        silence.since_full = if full { sum } else { silence.since_full + sum };
        silence.carry += sum;
        let whole = silence.carry.floor();
        silence.carry -= whole;
        whole as u64
    }

    /// Of `step` tokens that `slot` tells of, how many were not assumed and charged already.
    pub fn beyond_assumed(&mut self, slot: Slot, step: u64) -> u64 {
        let Some(peer) = self.peers.iter_mut().find(|p| p.slot == slot) else { return step };
        let known = step.min(peer.assumed as u64);
        peer.assumed -= known as f64;
        step - known
    }

    /// Peers that are not among the silent (any more) have told all: what was assumed of them beyond that is taken back.
    /// Returns the whole tokens to refund.
    pub fn take_back_assumed(&mut self, is_silent: impl Fn(Slot) -> bool) -> u64 {
        let mut back = 0.0;
        for peer in self.peers.iter_mut().filter(|p| p.assumed > 0.0 && !is_silent(p.slot)) {
            back += std::mem::take(&mut peer.assumed);
        }
        self.silence.as_mut().map_or(0, |silence| {
            let back = back.min(silence.since_full);
            silence.since_full -= back;
            back as u64
        })
    }
}
