//! One key: its bucket, its rule and its gossip; decides, charges, and takes in what peers say. It must not know other
//! keys, the table or the links to peers.

use std::sync::Arc;

use crate::algorithm::{Kept, Level, Meter};
use crate::counter::Slot;
use crate::decision::Reason;
use crate::limit::{Accuracy, Algorithm, OnPartition, Rule};
use crate::news::{self, News, PeerNews, Said};
use crate::stability::{self, Common, Outlook};
use crate::time::{Nanos, Now};
use crate::wire::{Describe, Refunds, StateCount, Update, Used};

/// The hash of limit and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u128);

impl KeyId {
    /// As it travels.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// As it came.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

/// All that is known of one key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Hash of limit and key.
    pub key: KeyId,
    /// The bucket, with every charge that is known.
    pub meter: Meter,
    /// The rule that the key meets.
    pub rule: Arc<Rule>,
    /// The key's text; `None` while only peers have spoken of it.
    pub text: Option<Box<str>>,
    /// Gossip, while there is something to say or hear.
    pub news: Option<Box<News>>,
    /// Tokens granted at this node since the key came into the table.
    pub granted: u64,
    /// Requests denied at this node since then.
    pub denied: u64,
    /// Where its limit is counted.
    pub tally: u16,
    /// Whether the level rests on what peers said at first contact, or on a time when none was heard: then a level that
    /// a peer reports is better.
    pub guessed: bool,
    /// Whether the level rests on this node's snapshot: then one that was there when it was taken knows better.
    pub restored: bool,
}

/// Who reports in a state transfer.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// Whose counters the report's indexes mean here; `None` for replicas that are not known here.
    pub slots: &'a [Option<Slot>],
    /// Whether it was a peer already when this node's snapshot was taken, and knows all that has happened since.
    pub witness: bool,
    /// Whether it is joining itself: a level of its own that is higher may be that of a bucket it took for full.
    pub joining: bool,
    /// The slot of this node's own earlier run, whose counters its snapshot has.
    pub own_before: Option<Slot>,
}

/// The rule's numbers for one key, as a decision and its explanation use them.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Own charges that are not common knowledge, tokens.
    pub unacked: f64,
    /// This node's weight.
    pub weight: f64,
    /// The most that may be unacked after a grant, tokens.
    pub allowance: f64,
}

impl Entry {
    /// A key that has used nothing: what an absent one is taken for.
    #[must_use]
    pub fn full(key: KeyId, rule: Arc<Rule>, now: Now) -> Self {
        let meter = Meter::full(&rule, now);
        Self {
            key,
            meter,
            rule,
            text: None,
            news: None,
            granted: 0,
            denied: 0,
            tally: 0,
            guessed: false,
            restored: false,
        }
    }

    /// Moves to the present window, if the limit has windows.
    pub fn roll(&mut self, now: Now) {
        let before = self.meter.window();
        if before.is_some() {
            self.meter.roll(&self.rule, now);
            self.window_moved(before);
        }
    }

    pub(crate) fn window_moved(&mut self, before: Option<u64>) {
        if self.meter.window() == before {
            return;
        }
        if let Some(news) = &mut self.news {
            match self.meter {
                Meter::Fixed(_) => news.new_fixed_window(),
                Meter::Bucket(_) | Meter::Sliding(_) => {
                    news.new_sliding_window(before.is_some_and(|window| self.meter.window() == Some(window + 1)));
                }
            }
        }
    }

    /// Tokens left as this node sees it; during a silence, less what the silent are assumed to have spent.
    #[must_use]
    pub fn level(&self, now: Now) -> Level {
        self.meter.level(&self.rule, now)
    }

    /// What is common knowledge, as this key's limit sees it.
    pub fn common(&self, outlook: &Outlook) -> Common {
        self.outlook(outlook).common(self.rule.spec().accuracy)
    }

    /// The outlook as this key's limit sees it.
    pub(crate) fn outlook(&self, outlook: &Outlook) -> Outlook {
        match self.rule.spec().on_partition {
            OnPartition::Continue => outlook.without_dead(),
            OnPartition::Share | OnPartition::Deny => *outlook,
        }
    }

    /// The stability window for a request of `cost` at a level of `level` tokens.
    pub fn window(&mut self, now: Now, outlook: &Outlook, level: f64, cost: u64) -> Window {
        let outlook = self.outlook(outlook);
        let common = outlook.common(self.rule.spec().accuracy);
        let (unacked, own, others, aside) = match &mut self.news {
            Some(news) => {
                // first: what is confirmed of the demand is known after it
                let unacked = news.unacked(now.at, common);
                let (own, others) = news.demands(now.at, outlook.heard, outlook.silent > 0);
                (unacked, own, others, news.aside)
            }
            None => (0.0, 0.0, 0.0, 0),
        };
        let weight = stability::weight(own, others, aside, &outlook);
        let allowance = stability::allowance(&self.rule, &outlook, weight, level, unacked, cost as f64);
        Window { unacked, weight, allowance }
    }

    /// Why `cost` tokens, leaving `reserved`, can't be granted now; `None` when they can.
    ///
    /// Call [`Self::roll`] before.
    pub fn refusal(&mut self, now: Now, outlook: &Outlook, cost: u64, reserved: u64) -> Option<Reason> {
        if self.rule.can_never_grant(cost, reserved) {
            return Some(Reason::TooLarge);
        }
        let level = self.level(now);
        let late = self.rule.algorithm() == Algorithm::LeakyBucket && self.meter.delayed_too_long(&self.rule, now);
        if !level.covers(cost.saturating_add(reserved)) || (late && cost > 0) {
            return Some(Reason::OverLimit);
        }
        if cost == 0 {
            return None;
        }
        if !outlook.admitted {
            return Some(Reason::Unconfirmed);
        }
        let silent = self.outlook(outlook).silent > 0;
        if silent && self.rule.spec().on_partition == OnPartition::Deny {
            return Some(Reason::Partition);
        }
        if outlook.replicas == 1 || matches!(self.rule.spec().accuracy, Accuracy::Gossip) {
            return None;
        }
        let window = self.window(now, outlook, level.tokens(), cost);
        if window.unacked + cost as f64 <= window.allowance {
            return None;
        }
        Some(if silent { Reason::Partition } else { Reason::Unconfirmed })
    }

    /// Grants `cost` tokens. The news must be there, see [`Self::news_or`].
    pub fn charge(&mut self, now: Now, cost: u64) {
        self.note_level(now);
        self.granted = self.granted.saturating_add(cost);
        if let Some(news) = &mut self.news {
            news.granted += cost;
        }
        self.meter.charge(&self.rule, now, cost);
    }

    /// Gives back at most `cost` tokens; returns how many.
    pub fn refund(&mut self, now: Now, cost: u64) -> u64 {
        let refunded = self.meter.refund(&self.rule, now, cost);
        if let Some(news) = &mut self.news {
            news.refunded += refunded;
        }
        refunded
    }

    /// The gossip, begun from what `totals` says if there was none: (granted, refunded) counts above any told before.
    pub fn news_or(&mut self, now: Nanos, totals: (u64, u64)) -> &mut News {
        self.news.get_or_insert_with(|| Box::new(News::new(now, totals.0, totals.1)))
    }

    /// Goes over to another rule; what was used stays used.
    pub fn set_rule(&mut self, rule: Arc<Rule>, now: Now) {
        if *self.rule == *rule {
            self.rule = rule;
            return;
        }
        let before = self.meter.window();
        let old = std::mem::replace(&mut self.rule, rule);
        self.meter.rescale(&old, &self.rule, now);
        self.window_moved(before);
        if let Some(news) = &mut self.news {
            news.described = 0;
        }
    }

    /// What there is to tell of the key now: its state for the wire, noted as told in `tick`.
    pub fn tell(&mut self, now: Now, tick: u64, outlook: &Outlook) -> Option<Update> {
        self.roll(now);
        let common = self.common(outlook);
        let news = self.news.as_mut()?;
        let demand = news.tell(now.at, tick, common);
        let describe = news.described == 0 || news.described > outlook.heard;
        // what says nothing brings the key into no peer's table, and a description with it is lost
        if news.described == 0 && news.matters(demand) {
            news.described = tick;
        }
        self.update(demand, describe)
    }

    /// The key's state for a peer that missed it, with a description; the demand is the one told last, since no peer may
    /// hold a lesser one than those that [`News::demand_confirmed`] reckons with.
    pub fn tell_again(&mut self, now: Now) -> Option<Update> {
        self.roll(now);
        let demand = self.news.as_ref()?.told_demand();
        self.update(demand, true)
    }

    fn update(&self, demand: f32, describe: bool) -> Option<Update> {
        let news = self.news.as_ref()?;
        let refunds_fresh = news.refunded - news.refunded_base;
        Some(Update {
            key: self.key.to_bytes(),
            granted: news.granted,
            fresh: news.fresh(),
            refunds: (refunds_fresh > 0).then_some(Refunds { refunded: news.refunded, fresh: refunds_fresh }),
            window: self.meter.window(),
            previous: (news.previous > 0).then_some(news.previous),
            demand: news::to_wire(demand),
            alone: news.alone(),
            describe: describe.then(|| describe_rule(&self.rule)),
        })
    }

    /// Takes in what the replica in `slot` says of itself in its frame number `seq`, and moves the bucket by what its
    /// counters moved.
    pub fn learn(&mut self, slot: Slot, seq: u64, update: &Update, now: Now, totals: (u64, u64)) {
        self.roll(now);
        self.note_level(now);
        self.news_or(now.at, totals);
        if let Some(window) = update.window {
            let before = self.meter.window();
            self.meter.roll_to(&self.rule, now, window);
            self.window_moved(before);
        }
        let capacity = self.rule.capacity();
        let Some(news) = &mut self.news else { return };
        let first = news.counted(slot).0 == 0;
        let (refunded, refunds_fresh) = update.refunds.map_or((0, 0), |r| (r.refunded, r.fresh));
        let step = news.learn(slot, update.granted, refunded, now.at);
        // counters are merged whatever the order; a demand is a word that a later frame has taken back
        let said = Said {
            demand: news::from_wire(update.demand),
            settled: update.fresh == 0 && refunds_fresh == 0,
            fresh: update.fresh,
            alone: update.alone,
        };
        let by_time = news.hear(slot, seq, said, now.at).unwrap_or(0);
        // at first contact the whole count is no news: only what is newer than the baseline, and no more than fits
        let charged = if first { update.fresh.min(capacity) } else { step.granted.min(update.fresh) };
        let refunded = if first { refunds_fresh } else { step.refunded.min(refunds_fresh) };
        // charges of the window before that were missed; what else the counter moved by it began anew above
        let missed = if first { capacity } else { step.granted - charged };
        let older = update.previous.map_or(0, |previous| previous.min(missed).min(capacity));
        let older = older - news.set_off_stored_before(older);
        let charged = charged - news.set_off(slot, charged, by_time);
        let charged = charged - news.set_off_stored(slot, charged);
        self.guessed |= first && charged > 0;
        let window = update.window.unwrap_or(0);
        self.meter.charge_window(&self.rule, now, window.saturating_sub(1), older);
        self.meter.charge_window(&self.rule, now, window, charged);
        // a refund in a window that is over gives nothing back in the present one
        if self.meter.window().is_none_or(|present| window >= present) {
            self.meter.refund(&self.rule, now, refunded);
        }
    }

    /// Takes in what a peer reports of the key in a state transfer: the lower level of the two, unless its own is a guess
    /// and the peer's is not, and the counters it holds. `reported` is of this entry's rule.
    ///
    /// What is known here beyond the report's counters is charged on top of the reported level, since that can't hold
    /// it, and the reverse. Of two snapshots, each may hold charges that the other's node never heard of.
    ///
    /// Where a central store has told of the silent no report is taken: its word covers all that is used, and both levels
    /// hold by it what no counter does. What the silent spent is set against it as they tell it themselves.
    pub fn adopt(
        &mut self,
        mut reported: Meter,
        counts: &[StateCount],
        from: Reporter<'_>,
        now: Now,
        totals: (u64, u64),
    ) {
        self.roll(now);
        if self.news.as_ref().is_some_and(|news| news.has_stored()) {
            return;
        }
        let kept = self.restored && !from.witness;
        let news = self.news_or(now.at, totals);
        let (mut reported_lacks, mut known_lacks) = (0u64, 0u64);
        let (mut told_own, mut told_before) = (0, false);
        for count in counts {
            let slot = from.slots.get(usize::from(count.replica)).copied().flatten();
            if slot == Some(Slot::OWN) {
                told_own = told_own.max(count.granted.min(news.granted));
                continue;
            }
            let known = slot.map_or(0, |slot| news.counted(slot).0);
            if kept && known == 0 {
                known_lacks = known_lacks.saturating_add(count.unheard);
            }
            let Some(slot) = slot else { continue };
            told_before |= from.own_before == Some(slot);
            let step = news.learn(slot, count.granted, count.refunded, now.at);
            if known > 0 {
                known_lacks = known_lacks.saturating_add(step.granted);
                reported_lacks = reported_lacks.saturating_add(known.saturating_sub(count.granted));
            } else {
                news.hear(slot, 0, Said::default(), now.at);
            }
        }
        // of whom the reporter had heard nothing
        let reported_of = |p: &&PeerNews| {
            counts.iter().any(|c| from.slots.get(usize::from(c.replica)).copied().flatten() == Some(p.slot))
        };
        for peer in news.peers.iter().filter(|p| !reported_of(p)) {
            reported_lacks = reported_lacks.saturating_add(peer.said.fresh);
        }
        // the baseline moves with the window, whatever was heard of the one before
        let own = (news.granted - told_own).min(news.fresh().saturating_add(news.previous));
        reported_lacks = reported_lacks.saturating_add(own);
        if kept && !told_before {
            reported_lacks = reported_lacks.saturating_add(news.unheard_before);
        }
        let rule = Arc::clone(&self.rule);
        // What one of the two lacks may be old, and was refilled since. Nobody but plain gossip spends what is not there, so
        // the truth is not below empty.
        let spent = |meter: &Meter, lacks: u64| match rule.spec().accuracy {
            Accuracy::Gossip => lacks,
            Accuracy::Strict | Accuracy::Bounded { .. } => {
                lacks.min(meter.level(&rule, now).tokens().max(0.0).ceil() as u64)
            }
        };
        reported.charge(&rule, now, spent(&reported, reported_lacks));
        let before = self.meter.window();
        self.meter.charge(&rule, now, spent(&self.meter, known_lacks));
        // a joiner's own level may be no more than first words charged to a bucket that it took for full
        let better = if self.restored { from.witness } else { self.guessed && !from.joining };
        if better || reported.level(&rule, now).parts < self.meter.level(&rule, now).parts {
            self.meter = reported;
            (self.guessed, self.restored) = (self.guessed && from.joining, kept);
        }
        self.window_moved(before);
    }
}

impl From<Kept> for Used {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Bucket(full_in) => Self::Bucket(full_in.0),
            Kept::Window(number, used, previous) => Self::Window(number, used, previous),
        }
    }
}

impl From<Used> for Kept {
    fn from(used: Used) -> Self {
        match used {
            Used::Bucket(full_in) => Self::Bucket(Nanos(full_in)),
            Used::Window(number, used, previous) => Self::Window(number, used, previous),
        }
    }
}

/// A rule for the wire.
#[must_use]
pub fn describe_rule(rule: &Rule) -> Describe {
    let (accuracy, overshoot) = match rule.spec().accuracy {
        Accuracy::Strict => (0, 0.0),
        Accuracy::Bounded { max_overshoot } => (1, max_overshoot),
        Accuracy::Gossip => (2, 0.0),
    };
    Describe {
        limit: rule.limit().to_owned(),
        inline: rule.origin() == crate::limit::Origin::Inline,
        algorithm: match rule.algorithm() {
            Algorithm::TokenBucket => 0,
            Algorithm::LeakyBucket => 1,
            Algorithm::FixedWindow => 2,
            Algorithm::SlidingWindow => 3,
        },
        tokens: rule.rate().tokens(),
        period: rule.rate().period().0,
        capacity: rule.capacity(),
        accuracy,
        overshoot_ppm: (overshoot * 1e6) as u32,
    }
}
