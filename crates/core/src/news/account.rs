//! What a central store has counted of a key, and what it says of the silent. It must not know the store or its words.

use super::{News, PeerNews};
use crate::counter::Slot;
use crate::time::Nanos;

/// What a central store has counted of this node's charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Since when: another number each time the node begins to ask.
    pub episode: u32,
    /// Whether the store has answered since.
    pub heard: bool,
    /// Own grants less refunds that the store has counted, by its own word.
    pub told: i64,
    /// What it was told since and has not answered.
    pub under_way: i64,
    /// Counts the windows: what was under way in an older one is settled with it.
    pub stamp: u32,
    /// What the store has not counted of the window before the present one, tokens.
    pub before: i64,
}

impl News {
    /// Own grants less refunds, from an arbitrary start.
    #[must_use]
    pub const fn net(&self) -> i64 {
        self.granted.wrapping_sub(self.refunded).cast_signed()
    }

    /// The present window is a new one: what the store has not counted yet is of the one before.
    pub(super) fn account_new_window(&mut self) {
        let net = self.net();
        if let Some(account) = &mut self.account {
            account.before = net.wrapping_sub(account.told).wrapping_sub(account.under_way);
            (account.told, account.under_way) = (net, 0);
            account.stamp = account.stamp.wrapping_add(1);
        }
        let spent = self.peers_assumed();
        for peer in &mut self.peers {
            peer.assumed = 0.0;
        }
        if let Some(silence) = &mut self.silence {
            (silence.spent_before, silence.since_full) = (spent, 0.0);
        }
    }

    fn peers_assumed(&self) -> f64 {
        self.peers.iter().map(|p| p.assumed).sum()
    }

    /// Tokens charged to the bucket for what the silent are assumed to have spent.
    #[must_use]
    pub fn assumed(&self) -> f64 {
        let since_full = self.silence.as_ref().map_or(0.0, |s| s.since_full);
        self.peers_assumed().min(since_full)
    }

    /// The silent have spent so many whole tokens between them; who of them, they will tell.
    pub fn assume_spent(&mut self, silent: &[(Slot, bool)], tokens: f64, now: Nanos) {
        // whole ones, since of what was assumed only those are set against what they tell
        let each = (tokens / silent.len() as f64).floor();
        let mut rest = tokens - each * silent.len() as f64;
        for (slot, _) in silent {
            let extra = rest.min(1.0);
            rest -= extra;
            let each = each + extra;
            match self.peers.iter_mut().find(|p| p.slot == *slot) {
                Some(peer) => peer.assumed += each,
                None => self.peers.push(PeerNews { assumed: each, ..PeerNews::new(*slot, now) }),
            }
        }
        self.begin_silence(now);
        if let Some(silence) = &mut self.silence {
            silence.since_full += tokens;
        }
    }

    /// The silent have spent less than was assumed, by so much; returns the whole tokens to refund.
    pub fn take_back_some(&mut self, tokens: f64) -> u64 {
        let assumed = self.assumed();
        let back = tokens.min(assumed).floor();
        if back > 0.0 {
            self.scale_assumed((assumed - back) / assumed);
        }
        back as u64
    }

    /// Of a bucket from which `used` tokens are missing, no more of the own charges than that is news to anybody, and no
    /// more of the others'; what was charged first has come back first.
    pub fn thin(&mut self, used: f64) {
        let fresh = self.fresh() as f64;
        let all = fresh + self.assumed();
        // by less than a token it is but the time that has passed since
        if all > used + 1.0 {
            let part = used.max(0.0) / all;
            self.base = self.granted - (fresh * part).ceil().min(fresh) as u64;
            self.scale_assumed(part);
        }
    }

    fn scale_assumed(&mut self, part: f64) {
        for peer in &mut self.peers {
            peer.assumed *= part;
        }
        let sum = self.peers_assumed();
        if let Some(silence) = &mut self.silence {
            silence.since_full = sum;
        }
    }

    /// Of `tokens` that a peer charged in the window before the present one, how many a central store has told of.
    pub fn spent_before(&mut self, tokens: u64) -> u64 {
        let Some(silence) = &mut self.silence else { return 0 };
        let told = (tokens as f64).min(silence.spent_before).floor();
        silence.spent_before -= told;
        told as u64
    }
}
