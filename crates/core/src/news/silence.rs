//! What is kept of a key while peers are silent: what they are assumed to spend, and own charges that only they have not
//! confirmed. The rule behind it is in [`crate::stability`] and [`crate::entry::Entry::assume`].

use super::account::Stored;
use super::{News, PeerNews};
use crate::counter::Slot;
use crate::time::Nanos;
use crate::wire::Alone;

/// What is kept of a key while peers are silent.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    /// Whether this node goes on without the silent; else only they may go on without it, for a moment.
    own: bool,
    /// The own demand that the silent had heard of: no more weight than that is claimed.
    pub(super) demand: f32,
    /// The sum of all demands when it began: the silent know of no other.
    total: f64,
    /// Own charges that all but the silent have confirmed, tokens.
    pub(super) held: f64,
    /// The same of the window before, of a windowed limit.
    pub(super) held_before: f64,
    /// Tokens that have left `held` by time.
    released: f64,
    /// Up to when they have, and how many leave in a second.
    released_until: Option<Nanos>,
    release_rate: f64,
    /// Up to when each one's spending is assumed.
    assumed_until: Vec<(Slot, Nanos)>,
    /// Tokens assumed and charged that nobody has told of.
    pub(super) credit: f64,
    /// How much of the refill the true bucket may have lost by being full, tokens.
    overflowed: f64,
    /// The most that the silent may hold in their windows, tokens.
    holdable: f64,
    /// Of what they tell, so many tokens may not be set off: see [`Self::note_level`].
    risk: f64,
    /// What a central store says of the silent; nothing where none decides.
    pub(super) stored: Stored,
}

impl Silence {
    /// Whether own charges are held back, since the silent have not confirmed them.
    pub(super) const fn holds(&self) -> bool {
        self.own
    }

    /// Whether this node goes on without the silent and claims no weight by its demand: they had heard of none.
    pub(super) fn is_unclaimed(&self) -> bool {
        self.own && self.demand <= 0.0
    }

    /// What is told of it.
    pub(super) fn told(&self) -> Option<Alone> {
        self.own.then(|| Alone { released: self.released as u64, unclaimed: self.is_unclaimed() })
    }

    /// Lets go of what has left the window by time up to now.
    pub(super) fn release(&mut self, now: Nanos) {
        let passed = self.released_until.replace(now).map_or(0.0, |until| now.since(until).as_secs_f64());
        let released = (self.release_rate * passed).min(self.held);
        self.held -= released;
        self.released += released;
    }

    /// Notes that the bucket has `level` of `capacity` tokens left. With what was assumed given back it may have been full
    /// meanwhile, and the true one with it. What the silent let go of by time before then, and spent only after it, is in
    /// no rate's part since then: at most what they held, of which no more than what is missing was charged here.
    pub(crate) fn note_level(&mut self, level: f64, capacity: f64) {
        let beyond = level + self.credit - self.overflowed - capacity;
        if beyond >= 0.0 {
            self.overflowed += beyond;
            self.risk = self.risk.max(self.holdable - (capacity - level));
        }
    }

    /// Of `tokens` that `slot` tells of, `by_time` having left its window by time, those charged here in advance.
    pub(super) fn set_off(&mut self, slot: Slot, tokens: u64, by_time: u64) -> u64 {
        // one that is not silent here releases for the sake of others that are
        if !self.assumed_until.iter().any(|(of, _)| *of == slot) {
            return 0;
        }
        let known = tokens.min(by_time).min(self.credit as u64);
        let known = known - take_most(&mut self.risk, known);
        self.credit -= known as f64;
        known
    }
}

impl News {
    /// A peer is silent; whether this node goes on without it, or `own` is false and only it may go on without this node.
    pub fn begin_silence(&mut self, own: bool) {
        let demand = self.word_before_silence();
        let total = f64::from(demand.max(0.0)) + self.others;
        let silence = self.silence.get_or_insert_with(|| Box::new(Silence { demand, total, ..Silence::default() }));
        silence.own |= own;
    }

    /// Nobody is silent any more who has not confirmed all: own charges need not be held back.
    pub fn end_own_silence(&mut self) {
        if let Some(silence) = &mut self.silence {
            if silence.is_unclaimed() {
                // peers may have an even share because this node claims nothing: it does again once they have heard that
                self.spans.claim_nothing();
            }
            silence.own = false;
            (silence.held, silence.held_before) = (0.0, 0.0);
        }
    }

    /// Lets held charges leave the window from now on at `rate` tokens a second.
    pub fn release_held(&mut self, rate: f64, now: Nanos) {
        let Some(silence) = &mut self.silence else { return };
        silence.release(now);
        silence.release_rate = rate;
    }

    /// Whether this node has an even share of the key, whatever the demands: it goes on without the silent, who have heard
    /// of no demand here, and nobody is known who may claim weight by theirs.
    ///
    /// Who claims weight has told a demand that all have confirmed, this node with them, and says so; or goes on alone too,
    /// and does not say that it claims nothing. So where one node has an even share none has more, and all together no
    /// more than one.
    #[must_use]
    pub fn is_even(&self) -> bool {
        self.silence.as_ref().is_some_and(|silence| silence.is_unclaimed())
            && !self.peers.iter().any(PeerNews::may_claim)
    }

    /// Whether others may have an [even](Self::is_even) share. They have none where somebody claims weight for certain:
    /// this node does, or one that is silent, or that goes on alone and says so.
    #[must_use]
    pub fn others_may_be_even(&self, silent: impl Fn(Slot) -> bool) -> bool {
        let claims = |p: &PeerNews| p.may_claim() && (p.said.alone.is_some() || silent(p.slot));
        self.silence.as_ref().is_some_and(|silence| silence.demand <= 0.0) && !self.peers.iter().any(claims)
    }

    /// The own demand that the silent hold this node to, whatever it is now, and the sum of all demands beside it.
    #[must_use]
    pub fn demand_in_silence(&self, own: f64) -> (f64, f64) {
        let total = own + self.others;
        let told = self.silence.as_ref().map_or((own, total), |silence| (f64::from(silence.demand), silence.total));
        (told.0, told.1.max(told.0 + self.others))
    }

    /// The sum of all demands that the silent reckon with at the least: the present one, or the one when it began.
    #[must_use]
    pub fn total_in_silence(&self, own: f64) -> f64 {
        let total = own + self.others;
        self.silence.as_ref().map_or(total, |silence| silence.total.min(total))
    }

    /// Nothing is assumed any more of those that are not among the `silent`.
    pub fn assume_only(&mut self, silent: impl Fn(Slot) -> bool) {
        if let Some(silence) = &mut self.silence {
            silence.assumed_until.retain(|(slot, _)| silent(*slot));
            silence.stored.of.retain(|slot| silent(*slot));
        }
    }

    /// The spending of `slot`, assumed from `since` on, is assumed up to `until`, at `rate` tokens a second: so many tokens
    /// more, to be charged and then [noted](Self::note_assumed).
    pub fn assume(&mut self, slot: Slot, since: Nanos, until: Nanos, rate: f64) -> f64 {
        let Some(silence) = &mut self.silence else { return 0.0 };
        let passed = match silence.assumed_until.iter_mut().find(|(of, _)| *of == slot) {
            Some((_, up_to)) => until.since(std::mem::replace(up_to, (*up_to).max(until))),
            None => {
                silence.assumed_until.push((slot, until));
                until.since(since)
            }
        };
        rate * passed.as_secs_f64()
    }

    /// So many tokens were charged for what the silent are assumed to have spent: no more than that is set off against
    /// what they tell. They hold at most `holdable` in their windows.
    pub fn note_assumed(&mut self, tokens: f64, holdable: f64) {
        if let Some(silence) = &mut self.silence {
            silence.credit += tokens;
            silence.holdable = holdable;
        }
    }
}

/// Takes at most `tokens` of `sum`, rounded up; returns how many.
fn take_most(sum: &mut f64, tokens: u64) -> u64 {
    let taken = tokens.min(sum.max(0.0).ceil() as u64);
    *sum -= taken as f64;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::news::Said;
    use crate::stability::Common;

    const NEAR: Slot = Slot(1);
    const FAR: Slot = Slot(2);
    const CUT: Common = Common { tick: 0, silent: true };

    /// A key that first came up in a silence.
    fn new_key() -> News {
        let mut news = News::new(Nanos::ZERO, 1, 0);
        news.begin_silence(true);
        news.described = 1;
        news
    }

    fn said(news: &mut News, slot: Slot, seq: u64, demand: f32, alone: Option<Alone>) {
        news.hear(slot, seq, Said { demand, alone, ..Said::default() }, Nanos::ZERO);
    }

    const fn alone(unclaimed: bool) -> Option<Alone> {
        Some(Alone { released: 0, unclaimed })
    }

    #[test]
    fn a_key_that_nobody_may_claim_is_shared_evenly() {
        let mut news = new_key();
        assert!(news.is_even());
        assert!(news.alone().is_some_and(|alone| alone.unclaimed), "and it is told");
        said(&mut news, NEAR, 1, 10.0, None);
        assert!(!news.is_even(), "one who goes on with all may claim what all have heard");
        assert!(news.others_may_be_even(|slot| slot == FAR), "but it may be that not all have");
        said(&mut news, NEAR, 2, 10.0, alone(true));
        assert!(news.is_even());
        assert_eq!(news.demands(Nanos::ZERO, 0, true), (0.0, 0.0));
        said(&mut news, NEAR, 3, 10.0, alone(false));
        assert!(!news.is_even(), "it claims what all had heard");
        assert!(!news.others_may_be_even(|slot| slot == FAR), "and so had the silent");
    }

    #[test]
    fn what_the_silent_had_asked_for_they_may_claim() {
        let mut news = News::new(Nanos::ZERO, 1, 0);
        said(&mut news, FAR, 1, 10.0, None);
        news.unacked(Nanos::ZERO, CUT);
        assert!(!news.is_even());
        assert!(!news.others_may_be_even(|slot| slot == FAR));
    }

    /// Peers have an even share as long as they think that it claims nothing.
    #[test]
    fn who_claimed_nothing_says_that_it_may_again_before_it_does() {
        let mut news = new_key();
        let mut now = Nanos::ZERO;
        let demand = |news: &mut News, now: &mut Nanos, tick, common| {
            for _ in 0..20 {
                news.demand.offer(*now, 10);
                *now = now.plus(Nanos::from_millis(10));
            }
            news.tell(*now, tick, common);
        };
        for tick in 1..5 {
            // those that speak confirm each tick
            demand(&mut news, &mut now, tick, Common { tick: tick - 1, ..CUT });
        }
        assert!(!news.untold(now), "it is told, and that it claims nothing");
        assert_eq!(news.demand_confirmed(now, 0, false), 0.0, "all speak again, and it was not told yet");
        news.end_own_silence();
        assert!(news.untold(now), "it is told again, without that");
        assert_eq!(news.demand_confirmed(now, 0, false), 0.0);
        demand(&mut news, &mut now, 5, Common { tick: 4, silent: false });
        assert_eq!(news.demand_confirmed(now, 0, false), 0.0, "nobody has confirmed it");
        news.unacked(now, Common { tick: 5, silent: false });
        assert!(news.demand_confirmed(now, 0, false) > 500.0);
    }
}
