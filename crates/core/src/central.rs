//! What a key and a central store that decides in this node's place tell each other. It must not know the store, nor
//! other keys.
//!
//! The store counts for all nodes that ask it. With each question a node tells it what it charged by itself since it told
//! last ([`Brief::owed`]), and where the store knows nothing of the key, what is used of it ([`Brief::known`]). What the
//! store grants is charged here like any other grant ([`Entry::charge_granted`]), so that it goes round by gossip, once.
//!
//! While nobody else is heard of, what the store says to be used beyond what is known here was spent by the silent peers.
//! It is charged ([`Entry::align`]), and set against what they tell when they are back.

use std::sync::Arc;

use crate::algorithm::Meter;
use crate::counter::Slot;
use crate::entry::{Entry, KeyId};
use crate::limit::Rule;
use crate::news::Account;
use crate::stability::Outlook;
use crate::time::Now;

/// What is used of a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Used {
    /// Of a bucket: tokens that are missing from it, 0 or more.
    Bucket(f64),
    /// Of a window.
    Window {
        /// Its number, counted from the Unix epoch.
        number: u64,
        /// Tokens used in it.
        current: u64,
        /// Tokens used in the one before; a sliding window counts a part of them.
        previous: u64,
    },
}

/// What a central store must be told to decide a request.
#[derive(Clone, Debug)]
pub struct Brief {
    /// Hash of limit and key.
    pub key: KeyId,
    /// The rule that the key meets.
    pub rule: Arc<Rule>,
    /// Tokens that a grant must leave behind.
    pub reserved: u64,
    /// What this node holds to be used, with what it assumes of the silent, and without what it [owes](Self::owed) the
    /// store.
    pub known: Used,
    /// Whether the store must take at least [`Self::known`] as used though it knows the key: it has not answered since the
    /// node began to ask, and others may have spent without the store until then.
    pub first: bool,
    /// Tokens charged here that the store has not counted; negative: given back. In the window of [`Self::known`].
    pub owed: i64,
    /// The same of the window before.
    pub owed_before: i64,
    /// Which account of this node's it belongs to.
    stamp: u32,
}

/// A central store's word on one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Word {
    /// Whether the tokens are there for it.
    pub granted: bool,
    /// What is used after the decision.
    pub used: Used,
    /// The store's wall clock, nanoseconds since the Unix epoch: it numbers the store's windows.
    pub wall: u64,
}

impl Used {
    /// What the meter of a key shows.
    fn of(meter: &Meter, rule: &Rule, now: Now) -> Self {
        let Some(number) = meter.window() else {
            return Self::Bucket((rule.capacity() as f64 - meter.level(rule, now).tokens()).max(0.0));
        };
        let (current, previous) = meter.used_by_window(rule, now);
        Self::Window { number, current, previous }
    }

    /// With so many tokens less.
    fn less(self, tokens: f64) -> Self {
        match self {
            Self::Bucket(used) => Self::Bucket((used - tokens).max(0.0)),
            Self::Window { number, current, previous } => {
                Self::Window { number, current: (current as f64 - tokens).max(0.0) as u64, previous }
            }
        }
    }

    /// Tokens used that count in the present.
    const fn present(self) -> f64 {
        match self {
            Self::Bucket(used) => used,
            Self::Window { current, .. } => current as f64,
        }
    }
}

impl Brief {
    /// On a key of which nothing is known.
    pub(crate) fn of_none(key: KeyId, rule: Arc<Rule>, reserved: u64, now: Now) -> Self {
        let known = Used::of(&Meter::full(&rule, now), &rule, now);
        Self { key, rule, reserved, known, first: true, owed: 0, owed_before: 0, stamp: 0 }
    }
}

impl Entry {
    /// What a central store must be told to decide on this key; what is owed is under way from now on. `episode` is
    /// another one each time the node begins to ask.
    pub fn brief(&mut self, now: Now, outlook: &Outlook, reserved: u64, episode: u32) -> Brief {
        self.roll(now);
        let used = Used::of(&self.meter, &self.rule, now);
        let common = self.common(outlook);
        let (key, rule) = (self.key, Arc::clone(&self.rule));
        let Some(news) = &mut self.news else {
            return Brief { known: used, ..Brief::of_none(key, rule, reserved, now) };
        };
        let net = news.net();
        let before = news.account.as_deref().copied().filter(|a| a.episode == episode);
        let mut account = before.unwrap_or_else(|| {
            // what the others know as well is in everybody's word, once; what only this node knows comes on top
            let own = news.unacked(now.at, common).min(used.present()).ceil() as i64;
            Account { episode, heard: false, told: net.wrapping_sub(own), under_way: 0, stamp: 0, before: 0 }
        });
        // what is under way may be lost, and owed again: it is not known either
        let uncounted = net.wrapping_sub(account.told);
        let owed = uncounted.wrapping_sub(account.under_way);
        let owed_before = std::mem::take(&mut account.before);
        account.under_way = uncounted;
        news.account = Some(Box::new(account));
        let (known, first) = (used.less(uncounted as f64), !account.heard);
        Brief { key, rule, reserved, known, first, owed, owed_before, stamp: account.stamp }
    }

    /// The store has not heard `brief`, or may not have: what was owed is owed again.
    pub fn unsaid(&mut self, brief: &Brief) {
        let Some(account) = self.account_of(brief) else { return };
        account.under_way = account.under_way.wrapping_sub(brief.owed);
        account.before = account.before.wrapping_add(brief.owed_before);
    }

    /// The store has heard `brief` and counted a grant of `cost` tokens beside it, whether they are charged here or not.
    pub fn note_counted(&mut self, brief: &Brief, cost: u64) {
        if let Some(account) = self.account_of(brief) {
            account.under_way = account.under_way.wrapping_sub(brief.owed);
            account.told = account.told.wrapping_add(brief.owed).wrapping_add_unsigned(cost);
            account.heard = true;
        }
    }

    fn account_of(&mut self, brief: &Brief) -> Option<&mut Account> {
        self.news.as_mut()?.account.as_deref_mut().filter(|account| account.stamp == brief.stamp)
    }

    /// Charges `cost` tokens that the store granted in the window of `used`. The news must be there.
    pub fn charge_granted(&mut self, now: Now, used: Used, cost: u64) {
        let Used::Window { number, .. } = used else {
            self.charge(now, cost);
            return;
        };
        let before = self.meter.window();
        self.meter.roll_to(&self.rule, now, number);
        self.window_moved(before);
        let late = self.meter.window().is_some_and(|present| number < present);
        self.granted = self.granted.saturating_add(cost);
        self.meter.charge_window(&self.rule, now, number, cost);
        if let Some(news) = &mut self.news {
            news.granted += cost;
            if late {
                // of a window that is over here: no news of the present one
                news.base += cost;
            }
        }
    }

    /// Takes the store's word for what is used, while nobody but the store tells of the `silent` peers.
    ///
    /// A bucket's counters of a long time are no debt: what has come back since was refilled. So own charges and the
    /// peers' count as news only as far as they are still missing from the bucket.
    pub fn align(&mut self, now: Now, used: Used, silent: &[Slot]) {
        let own = Used::of(&self.meter, &self.rule, now);
        if silent.is_empty()
            || !matches!((own, used), (Used::Bucket(_), Used::Bucket(_)) | (Used::Window { .. }, Used::Window { .. }))
        {
            return;
        }
        if let (Used::Window { number: here, .. }, Used::Window { number: there, .. }) = (own, used)
            && here != there
        {
            return;
        }
        let Some(news) = &mut self.news else { return };
        let beyond = (used.present() - own.present()).round();
        news.store_spent(silent, beyond.max(0.0), now.at);
        if beyond > 0.0 {
            self.meter.charge(&self.rule, now, beyond as u64);
        } else {
            let back = news.take_back_stored(-beyond);
            self.meter.refund(&self.rule, now, back);
        }
        if !self.rule.algorithm().windowed() {
            news.thin(Used::of(&self.meter, &self.rule, now).present());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Reporter;
    use crate::limit::{Algorithm, Origin, RuleSpec};
    use crate::time::Nanos;
    use crate::wire::{StateCount, Update};

    const NOW: Now = Now::at(Nanos(1_000_000_000));
    const PEER: Slot = Slot(1);

    /// A peer's table may come before its news does. Its level holds what the store told it of this node, in no counter.
    #[test]
    fn a_table_after_a_stand_still_counts_nothing_twice_that_the_store_told_of() {
        for charged_by_peer in [60, 40] {
            let spec =
                RuleSpec { burst: Some(100), ..RuleSpec::new(Algorithm::TokenBucket, "1/d".parse().expect("a rate")) };
            let rule = Arc::new(Rule::new("test", Origin::Configured, spec).expect("a rule"));
            let mut entry = Entry::full(KeyId(1), Arc::clone(&rule), NOW);
            entry.news_or(NOW.at, (1, 1));
            entry.charge_granted(NOW, Used::Bucket(40.0), 40);
            entry.align(NOW, Used::Bucket(100.0), &[PEER]);
            assert_eq!(entry.level(NOW).whole(), 0);
            // as after a stand-still: any peer's level is taken for better
            entry.guessed = true;
            let granted = 1 + charged_by_peer;
            let counts = [StateCount { replica: 0, granted, refunded: 1, unheard: 0 }];
            let from = Reporter { slots: &[Some(PEER)], witness: false, joining: false, own_before: None };
            entry.adopt(Meter::showing(&rule, NOW, Used::Bucket(100.0)), &counts, from, NOW, (1, 1));
            assert_eq!(entry.level(NOW).tokens(), 0.0, "a peer reported it");
            let update = Update {
                key: entry.key.to_bytes(),
                granted,
                fresh: charged_by_peer,
                refunds: None,
                window: None,
                previous: None,
                demand: 0.0,
                alone: None,
                describe: None,
            };
            entry.learn(PEER, 1, &update, NOW, (1, 1));
            assert_eq!(entry.level(NOW).tokens(), 0.0, "the peer told it");
            let back = entry.news.as_mut().map_or(0, |news| news.end_silence(0.0, NOW.at));
            assert_eq!(back, 60 - charged_by_peer, "only what nobody told comes back");
        }
    }
}
