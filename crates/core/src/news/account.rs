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

    /// Whether a central store has told of peers that have not spoken for themselves yet.
    #[must_use]
    pub fn has_stored(&self) -> bool {
        self.silence.as_ref().is_some_and(|silence| !silence.stored.of.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Slot = Slot(1);
    const FAR: Slot = Slot(2);

    fn seconds(n: u64) -> Nanos {
        Nanos::from_secs(n)
    }

    /// A key of which a store has told that the two silent have spent so many tokens.
    fn told(tokens: f64) -> News {
        let mut news = News::new(Nanos::ZERO, 1, 1);
        news.store_spent(&[NEAR, FAR], tokens, Nanos::ZERO);
        news
    }

    #[test]
    fn what_the_store_told_is_set_off_once_whoever_of_the_silent_tells_it() {
        let mut news = told(10.0);
        assert_eq!(news.set_off_stored(Slot(3), 4), 0, "of it the store told nothing");
        assert_eq!(news.set_off_stored(NEAR, 4), 4);
        assert_eq!(news.set_off_stored(FAR, 9), 6, "what is beyond the store's word is new");
        assert_eq!(news.set_off_stored(NEAR, 1), 0);
        assert_eq!(news.end_silence(0.0, Nanos::ZERO), 0, "nothing is left to give back");
    }

    #[test]
    fn without_a_word_of_the_store_nothing_is_set_off() {
        let mut news = News::new(Nanos::ZERO, 1, 1);
        assert_eq!(
            (news.set_off_stored(NEAR, 5), news.set_off_stored_before(5), news.take_back_stored(5.0)),
            (0, 0, 0)
        );
        assert_eq!(news.end_silence(1.0, seconds(1)), 0);
    }

    #[test]
    fn parts_of_tokens_stay_until_they_are_whole() {
        let mut news = told(1.75);
        assert_eq!(news.set_off_stored(NEAR, 2), 1);
        news.store_spent(&[NEAR], 0.5, Nanos::ZERO);
        assert_eq!(news.set_off_stored(NEAR, 2), 1);
        assert_eq!(news.set_off_stored(NEAR, 2), 0);
    }

    #[test]
    fn what_nobody_told_comes_back_at_the_end_less_what_was_refilled_since() {
        assert_eq!(told(10.0).end_silence(0.0, seconds(9)), 10, "in a window nothing is refilled");
        assert_eq!(told(10.0).end_silence(3.0, seconds(2)), 4);
        assert_eq!(told(10.0).end_silence(3.0, seconds(4)), 0);
        let mut news = told(10.0);
        // told again, later: it has only begun to come back
        news.store_spent(&[NEAR], 1.0, seconds(2));
        assert_eq!(news.end_silence(3.0, seconds(3)), 8);
        assert_eq!(news.end_silence(0.0, seconds(3)), 0, "once");
    }

    #[test]
    fn a_lesser_word_of_the_store_takes_back_its_own_and_then_what_was_assumed() {
        let mut news = told(10.0);
        assert_eq!(news.take_back_stored(4.5), 4, "whole tokens");
        assert_eq!(news.set_off_stored(NEAR, 10), 6);
        // five more are assumed of it by time
        assert_eq!(news.assume(NEAR, Nanos::ZERO, seconds(5), 1.0), 5.0);
        news.note_assumed(5.0, 0.0);
        assert_eq!(news.take_back_stored(3.0), 3);
        assert_eq!(news.take_back_stored(3.0), 2, "no more than was charged for them");
        assert_eq!(news.set_off(NEAR, 5, 5), 0, "and what was taken back is not set off");
    }

    #[test]
    fn who_is_heard_again_is_not_told_of_any_more() {
        let mut news = told(10.0);
        news.assume_only(|slot| slot == FAR);
        assert_eq!(news.set_off_stored(NEAR, 10), 0);
        assert_eq!(news.set_off_stored(FAR, 10), 10);
    }

    #[test]
    fn a_new_window_keeps_the_word_on_the_one_before_apart() {
        let mut news = told(10.0);
        news.account_new_window();
        news.store_spent(&[NEAR], 3.0, Nanos::ZERO);
        assert_eq!(news.set_off_stored(NEAR, 5), 3);
        assert_eq!(news.set_off_stored_before(4), 4);
        assert_eq!(news.set_off_stored_before(9), 6);
        news.account_new_window();
        assert_eq!(news.set_off_stored_before(9), 0, "two windows ago is over");
    }

    #[test]
    fn of_a_refilled_bucket_no_more_is_news_than_is_missing_and_each_in_its_part() {
        let mut news = told(30.0);
        news.granted += 30;
        news.thin(59.0);
        assert_eq!((news.fresh(), news.set_off_stored(NEAR, 0)), (30, 0), "by less than a token it stays");
        news.thin(20.0);
        assert_eq!(news.fresh(), 10);
        assert_eq!(news.set_off_stored(NEAR, 30), 10);
        news.thin(0.0);
        assert_eq!(news.fresh(), 0, "a full bucket has no news");
    }
}
