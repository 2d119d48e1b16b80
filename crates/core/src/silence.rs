//! What a key's peers are assumed to spend that are not heard of: while they are silent, and when they are lost. The rule
//! behind it is in [`crate::stability`]; it must not know who is silent, or why.

use crate::counter::Slot;
use crate::entry::Entry;
use crate::gossip::Silent;
use crate::limit::{Accuracy, OnPartition};
use crate::stability::{self, Outlook};
use crate::time::{Nanos, Now};

/// The spending of the silent is assumed so far ahead: longer than from one look at it to the next.
const ASSUMED_AHEAD: Nanos = Nanos::from_millis(30);

impl Entry {
    /// Lets time pass for silent peers: a bucket is charged what each is assumed to spend, its weight's part of the rate,
    /// and own charges that only they have not confirmed leave the window at this node's part of it.
    ///
    /// The silent do the same, by what they knew when the silence began. So what one of them spends from any moment on is
    /// at most its part of the rate since then, which is charged here a little ahead of time, and what its window grows
    /// by, which it tells when it speaks again ([`Alone::released`](crate::wire::Alone::released) is what it did not grow by). Nothing that was
    /// assumed is given back: a bucket that was full meanwhile would get back what it had lost by being full.
    ///
    /// In a window nothing comes back, so there nothing is assumed and nothing leaves: each node has its share of it. Plain
    /// gossip has no window that would hold the silent to a share, so nothing is assumed of them either.
    pub fn assume(&mut self, now: Now, outlook: &Outlook, silent: &[Silent]) {
        let outlook = self.outlook(outlook);
        let goes_on_without_dead = self.rule.spec().on_partition == OnPartition::Continue;
        let silent: Vec<&Silent> = silent.iter().filter(|s| !(goes_on_without_dead && s.dead)).collect();
        let common = outlook.common(self.rule.spec().accuracy);
        let Some(news) = &mut self.news else { return };
        if outlook.silent == 0 {
            news.end_own_silence();
            if silent.is_empty() {
                self.end_silence(now);
                return;
            }
        }
        news.begin_silence(outlook.silent > 0);
        news.assume_only(|slot| silent.iter().any(|s| s.slot == slot));
        news.unacked(now.at, common);
        if self.rule.algorithm().windowed() || matches!(self.rule.spec().accuracy, Accuracy::Gossip) {
            return;
        }
        let rate = self.rule.rate().per_second();
        let own = f64::from(news.demand_confirmed(now.at, outlook.heard, outlook.silent > 0)).max(0.0);
        let (heard, known) = news.demand_in_silence(own);
        let even = 1.0 / f64::from(outlook.replicas);
        let part = if news.is_even() { even } else { stability::share(heard, known, outlook.replicas) };
        let released = if outlook.admitted { part } else { 0.0 };
        news.release_held(released * rate, now.at);
        let at_least = if news.others_may_be_even(|slot| silent.iter().any(|s| s.slot == slot)) { even } else { 0.0 };
        let theirs: f64 =
            silent.iter().filter_map(|s| news.heard_of(s.slot)).map(|p| f64::from(p.said.demand.max(0.0))).sum();
        let total = news.total_in_silence(own).max(own + theirs);
        let (mut assumed, mut parts) = (0.0, 0.0);
        for Silent { slot, since, .. } in silent {
            // of a key that it never spoke of, nothing is known to have been spent before now
            let (demand, since) =
                news.heard_of(*slot).map_or((0.0, now.at), |p| (f64::from(p.said.demand.max(0.0)), *since));
            let part = stability::share(demand, total, outlook.replicas).max(at_least);
            parts += part;
            assumed += news.assume(*slot, since, now.at.plus(ASSUMED_AHEAD), part * rate);
        }
        // never into debt: nothing is granted there anyway, and the true bucket is not below empty either. Where only some
        // links are cut the others spend what a silent peer does not, and the debt would only grow.
        self.note_level(now);
        let assumed = assumed.min(self.level(now).tokens().max(0.0));
        if let Some(news) = &mut self.news {
            news.note_assumed(assumed, parts.min(1.0) * stability::most_to_share(&self.rule, &outlook));
        }
        self.meter.charge_fraction(&self.rule, now, assumed);
    }

    /// While peers are silent: notes how much is left, before it changes.
    pub(crate) fn note_level(&mut self, now: Now) {
        if self.news.as_ref().is_some_and(|news| news.silence.is_some()) {
            let (level, capacity) = (self.level(now).tokens(), self.rule.capacity() as f64);
            if let Some(silence) = self.news.as_mut().and_then(|news| news.silence.as_mut()) {
                silence.note_level(level, capacity);
            }
        }
    }

    /// All that were silent have told all: what a central store said of them beyond that was not theirs.
    fn end_silence(&mut self, now: Now) {
        self.roll(now);
        let rate = if self.rule.algorithm().windowed() { 0.0 } else { self.rule.rate().per_second() };
        let back = self.news.as_mut().map_or(0, |news| news.end_silence(rate, now.at));
        if back > 0 {
            self.meter.refund(&self.rule, now, back);
        }
    }

    /// A replica is gone without a last word: what it may have granted that nobody heard of is charged, since it will
    /// never be told. That is its window at most, and no more than what is left: the others had left it that. A bounded
    /// limit charges what was asked of it in the time that news takes, which is what it is likely to have granted.
    pub fn lose(&mut self, now: Now, slot: Slot, outlook: &Outlook) {
        self.roll(now);
        let Some(news) = &mut self.news else { return };
        let own = f64::from(news.demand_confirmed(now.at, outlook.heard, outlook.silent > 0));
        let demand = news.heard_of(slot).map_or(0.0, |p| f64::from(p.said.demand.max(0.0)));
        let weight = if demand > 0.0 && stability::too_small_to_share(&self.rule, outlook.replicas) {
            // it held the key: all others may have stood aside for it
            1.0
        } else {
            let total = news.total_in_silence(own.max(0.0)).max(own + demand);
            let at_least =
                if news.others_may_be_even(|of| of == slot) { 1.0 / f64::from(outlook.replicas) } else { 0.0 };
            stability::share(demand, total, outlook.replicas).max(at_least)
        };
        let capacity = self.rule.capacity() as f64;
        let outlook = Outlook { admitted: true, ..*outlook };
        let window = stability::allowance(&self.rule, &outlook, weight, capacity, 0.0, 1.0);
        let lost = match self.rule.spec().accuracy {
            Accuracy::Strict => window,
            Accuracy::Bounded { .. } => window.min(demand * outlook.settle.as_secs_f64()),
            Accuracy::Gossip => return,
        };
        let left = self.level(now).tokens();
        self.meter.charge(&self.rule, now, lost.min(left).max(0.0).ceil() as u64);
    }
}
