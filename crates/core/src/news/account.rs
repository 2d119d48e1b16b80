//! What a central store has counted of a key, and what it says of the silent. It must not know the store or its words.

use super::News;
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

/// What a central store says of the silent: charged here, and set against what they tell when they are back.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// Of whom it tells.
    pub(super) of: Vec<Slot>,
    /// Tokens that they spent between them beyond what was known here, which nobody has told of.
    pub(super) spent: f64,
    /// The same of the window before the present one.
    pub(super) spent_before: f64,
    /// When it told last.
    pub(super) at: Nanos,
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
        if let Some(silence) = &mut self.silence {
            let stored = &mut silence.stored;
            (stored.spent_before, stored.spent) = (stored.spent, 0.0);
        }
    }

    /// A central store tells of the `silent`: between them they have spent `tokens` more than was known here.
    pub fn store_spent(&mut self, silent: &[Slot], tokens: f64, now: Nanos) {
        self.begin_silence(false);
        if let Some(silence) = &mut self.silence {
            let stored = &mut silence.stored;
            let new = silent.iter().filter(|slot| !stored.of.contains(slot)).copied().collect::<Vec<_>>();
            stored.of.extend(new);
            stored.spent += tokens;
            stored.at = now;
        }
    }

    /// By the store's word the silent have spent less than is charged here for them, by so much; returns the whole tokens
    /// to refund.
    ///
    /// What is assumed of them by time is given back too, since nobody spends without the store, and its bucket says what
    /// was lost by being full.
    pub fn take_back_stored(&mut self, tokens: f64) -> u64 {
        let Some(silence) = &mut self.silence else { return 0 };
        let back = tokens.min(silence.stored.spent + silence.credit).floor();
        let stored = back.min(silence.stored.spent);
        silence.stored.spent -= stored;
        silence.credit -= back - stored;
        back as u64
    }

    /// Nobody is silent any more, and all have told all. Returns the whole tokens to refund: what the store told of and
    /// nobody else, less what has come back since at `rate` tokens a second, which a full bucket has lost.
    pub fn end_silence(&mut self, rate: f64, now: Nanos) -> u64 {
        let Some(silence) = self.silence.take() else { return 0 };
        let stored = &silence.stored;
        rate.mul_add(-now.since(stored.at).as_secs_f64(), stored.spent).max(0.0) as u64
    }

    /// Of a bucket from which `used` tokens are missing, no more of the own charges than that is news to anybody, and no
    /// more of the others'; what was charged first has come back first.
    pub fn thin(&mut self, used: f64) {
        let fresh = self.fresh() as f64;
        let all = fresh + self.silence.as_ref().map_or(0.0, |silence| silence.stored.spent);
        // by less than a token it is but the time that has passed since
        if all > used + 1.0 {
            let part = used.max(0.0) / all;
            self.base = self.granted - (fresh * part).ceil().min(fresh) as u64;
            if let Some(silence) = &mut self.silence {
                silence.stored.spent *= part;
            }
        }
    }

    /// Of `tokens` that `slot` tells of, those charged here by a central store's word.
    pub fn set_off_stored(&mut self, slot: Slot, tokens: u64) -> u64 {
        match &mut self.silence {
            Some(silence) if silence.stored.of.contains(&slot) => take_whole(&mut silence.stored.spent, tokens),
            _ => 0,
        }
    }

    /// The same of the window before the present one.
    pub fn set_off_stored_before(&mut self, tokens: u64) -> u64 {
        self.silence.as_mut().map_or(0, |silence| take_whole(&mut silence.stored.spent_before, tokens))
    }
}

/// Takes at most `tokens` of `sum`; returns how many.
fn take_whole(sum: &mut f64, tokens: u64) -> u64 {
    let taken = tokens.min(*sum as u64);
    *sum -= taken as f64;
    taken
}
