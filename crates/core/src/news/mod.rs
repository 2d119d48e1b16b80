//! What a key has to say and what was heard of it: own counters and which of them are common knowledge, demand, peers'
//! counters. Present only while there is something to say. It must not know buckets, frames or other keys.

mod account;
mod demand;
mod silence;
mod spans;
mod turn;

pub use account::Account;
pub use demand::Demand;
pub use silence::Silence;
pub use spans::Spans;
pub use turn::{Turn, from_wire, to_wire};

use crate::counter::{Count, Slot, Step};
use crate::stability::Common;
use crate::time::Nanos;
use crate::wire::Alone;

/// A demand is told anew when it has moved by more than this part. Below it is chance: peers then hold one value for long,
/// so that a node that is cut off claims the very weight that the others leave it.
const DEMAND_MOVED: f32 = 0.25;

/// How long heard counters are kept after the key fell quiet. A frame that comes later than 64 others is ignored, and
/// 64 frames take at least 3.2 s (keep-alive 50 ms): no late frame can find the counters gone and be charged twice.
pub const QUIET_KEEP: Nanos = Nanos::from_secs(5);

/// What one peer said of the key.
#[derive(Clone, Debug)]
pub struct PeerNews {
    /// Who.
    pub slot: Slot,
    /// What it has granted and refunded.
    pub count: Count,
    /// What it said beside.
    pub said: Said,
    /// The number of the frame in which it last spoke of the key.
    pub seq: u64,
    /// When it last spoke of the key.
    pub heard: Nanos,
}

/// What a peer says of the key beside its counters, by its newest word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// What it claims by its offered load, tokens a second; below 0 it stands aside.
    pub demand: f32,
    /// Whether its charges are all common knowledge: then nothing of it need be kept.
    pub settled: bool,
    /// Tokens that it granted since all were, or in the present window.
    pub fresh: u64,
    /// How it goes on in a silence.
    pub alone: Option<Alone>,
}

impl Said {
    fn released(&self) -> u64 {
        self.alone.map_or(0, |alone| alone.released)
    }
}

impl PeerNews {
    fn new(slot: Slot, now: Nanos) -> Self {
        Self { slot, count: Count::default(), said: Said::default(), seq: 0, heard: now }
    }

    /// Whether it may claim weight by its demand.
    fn may_claim(&self) -> bool {
        self.said.demand > 0.0 && !self.said.alone.is_some_and(|alone| alone.unclaimed)
    }
}

/// All of a key's gossip.
#[derive(Clone, Debug)]
pub struct News {
    /// Own cumulative grants.
    pub granted: u64,
    /// Own cumulative grants at the baseline.
    pub base: u64,
    /// Own tokens granted in the sliding window before the present one, as far as they were newer than its baseline.
    pub previous: u64,
    /// Own cumulative refunds, and at the baseline.
    pub refunded: u64,
    /// Own cumulative refunds at the baseline.
    pub refunded_base: u64,
    /// Own cumulative counts as last told, and the tick that told them first.
    told: (u64, u64),
    told_tick: u64,
    told_demand: f32,
    /// Whether it was told that this node claims nothing by its demand.
    told_unclaimed: bool,
    spans: Spans,
    /// Own offered load.
    pub demand: Demand,
    /// Peers that said anything, with their counters; this node's own stand in `granted` and `refunded`.
    pub peers: Vec<PeerNews>,
    /// The sum of the peers' demands.
    pub others: f64,
    /// How many of them stand aside.
    pub aside: u32,
    /// Whose turn it is, where the limit is too small to share.
    turn: Option<Box<Turn>>,
    /// Whether a request was refused for want of confirmation since the key was told last: then it is told again, so
    /// that the peers asked for a confirmation answer with their own news of it.
    pub pressed: bool,
    /// The tick that described the key to all peers last; 0 is never.
    pub described: u64,
    /// Whether the key stands in its shard's list of those to look at each tick.
    pub listed: bool,
    /// When it last had anything to say or hear.
    pub busy: Nanos,
    /// While a peer is silent: what it is assumed to spend, and own charges that it has not confirmed.
    pub silence: Option<Box<Silence>>,
    /// What a central store has counted, while one decides.
    pub account: Option<Box<Account>>,
    /// Tokens that this node's earlier run granted and that nobody may have heard of, as its snapshot has it.
    pub unheard_before: u64,
}

impl News {
    /// Of a key that this replica counts from `granted` and `refunded` on: above what it ever said of the key before.
    #[must_use]
    pub fn new(now: Nanos, granted: u64, refunded: u64) -> Self {
        Self {
            granted,
            base: granted,
            previous: 0,
            refunded,
            refunded_base: refunded,
            told: (granted, refunded),
            told_tick: 0,
            told_demand: 0.0,
            told_unclaimed: false,
            spans: Spans::settled(granted, 0.0),
            demand: Demand::new(now),
            peers: Vec::new(),
            others: 0.0,
            aside: 0,
            turn: None,
            pressed: false,
            described: 0,
            listed: false,
            busy: now,
            silence: None,
            account: None,
            unheard_before: 0,
        }
    }

    /// Own charges that are not common knowledge: tokens.
    ///
    /// During a silence `common` is what the others have confirmed; what goes out of the window so is held back, and
    /// leaves it as [`Self::release_held`] says.
    pub fn unacked(&mut self, now: Nanos, common: Common) -> f64 {
        if common.silent {
            // before anything goes out of the window that the silent have not confirmed
            self.begin_silence(true);
        }
        let before = self.spans.acked;
        self.spans.confirm(common.tick);
        let unacked = (self.granted - self.spans.acked) as f64;
        match &mut self.silence {
            Some(silence) if silence.holds() => {
                // up to now only what was held so far: time that passed before a charge lets nothing of it go
                silence.release(now);
                silence.held += (self.spans.acked - before) as f64;
                unacked + silence.held + silence.held_before
            }
            _ => unacked,
        }
    }

    /// What is told of how this node goes on, while a peer is silent.
    #[must_use]
    pub fn alone(&self) -> Option<Alone> {
        self.silence.as_ref().and_then(|silence| silence.told())
    }

    /// Of `tokens` that `slot` tells of, `by_time` having left its window by time, those charged here in advance.
    pub fn set_off(&mut self, slot: Slot, tokens: u64, by_time: u64) -> u64 {
        self.silence.as_mut().map_or(0, |silence| silence.set_off(slot, tokens, by_time))
    }

    /// Own charges, tokens, that not every peer has confirmed hearing of, whatever the limit's accuracy makes of it;
    /// `heard` is the newest tick that all have confirmed that are not silent.
    #[must_use]
    pub fn unheard(&self, heard: u64) -> u64 {
        let unconfirmed = self.granted - self.spans.told_by(heard);
        let held = self.silence.as_ref().map_or(0.0, |silence| silence.held + silence.held_before);
        self.unheard_before.saturating_add(unconfirmed).saturating_add(held as u64)
    }

    /// The own demand and that of all others, as the weight goes by: see [`Self::demand_confirmed`].
    pub fn demands(&mut self, now: Nanos, heard: u64, silent: bool) -> (f64, f64) {
        if silent && self.is_even() {
            let aside = self.has_turns() && self.demand_confirmed(now, heard, silent) < 0.0;
            return (if aside { turn::ASIDE.into() } else { 0.0 }, 0.0);
        }
        (f64::from(self.demand_confirmed(now, heard, silent)), self.others)
    }

    /// The own demand that every peer has heard of, tokens a second; while one is `silent`, what all had heard before.
    /// Below 0 this node stands aside.
    pub fn demand_confirmed(&mut self, now: Nanos, heard: u64, silent: bool) -> f32 {
        let present = self.demand_to_tell(now);
        let confirmed = self.word_confirmed(present, heard, silent);
        match &self.silence {
            // what it was held to ends with it, a moment after the last has spoken
            Some(silence) if silent || silence.holds() => confirmed.min(silence.demand),
            _ if !silent => confirmed,
            // a key of which the silent have heard nothing
            _ => confirmed.min(0.0),
        }
    }

    /// The present fixed window is a new one: what was charged before no longer counts for anyone.
    pub fn new_fixed_window(&mut self) {
        let demand = self.spans.demand_confirmed(self.told_demand);
        self.spans = Spans::settled(self.granted, demand);
        if let Some(silence) = &mut self.silence {
            (silence.held, silence.held_before) = (0.0, 0.0);
        }
        self.account_new_window();
        self.new_baseline();
    }

    /// The present sliding window is a new one, the `next` to the one before or a later one.
    pub fn new_sliding_window(&mut self, next: bool) {
        self.previous = if next { self.fresh() } else { 0 };
        if let Some(silence) = &mut self.silence {
            (silence.held, silence.held_before) = (0.0, silence.held);
        }
        self.account_new_window();
        self.new_baseline();
    }

    /// The baseline moves up to now: what was charged before is common knowledge, or of a window that is over.
    fn new_baseline(&mut self) {
        (self.base, self.refunded_base) = (self.granted, self.refunded);
    }

    /// Whether there is anything to tell: a count that moved, a demand that moved by more than a little, or a rule.
    pub fn untold(&mut self, now: Nanos) -> bool {
        let demand = self.demand_to_tell(now);
        let describe = self.described == 0 && self.matters(demand);
        let unclaimed = demand > 0.0 && self.told_unclaimed != self.is_unclaimed();
        describe || self.pressed || self.moved() || demand != self.told_demand || unclaimed
    }

    /// Whether there is anything in what is told with `demand`: else a peer that does not know the key passes over it.
    #[must_use]
    pub fn matters(&self, demand: f32) -> bool {
        self.fresh() > 0 || self.refunded > self.refunded_base || demand > 0.0
    }

    /// The present demand, or the one told last if the two are about the same.
    fn demand_to_tell(&mut self, now: Nanos) -> f32 {
        if let Some(stance) = self.stance() {
            return stance;
        }
        let demand = self.demand.claimed(now);
        let most = demand.max(self.told_demand);
        let moved = (demand - self.told_demand).abs() > DEMAND_MOVED * most;
        if moved || demand == 0.0 { demand } else { self.told_demand }
    }

    /// Notes that all is told in `tick`, and returns the demand to tell. Where everything told before is common
    /// knowledge and nothing is asked for any more, the baseline moves up: peers may then forget the counters.
    pub fn tell(&mut self, now: Nanos, tick: u64, common: Common) -> f32 {
        let demand = self.demand_to_tell(now);
        // first, so that what is confirmed makes room for what is told
        self.unacked(now, common);
        if self.demand.per_second(now) == 0.0 && self.known_to_all(now, common) {
            self.new_baseline();
        }
        self.pressed = false;
        if self.moved() {
            self.told_tick = tick;
        }
        self.told = (self.granted, self.refunded);
        (self.told_demand, self.told_unclaimed) = (demand, self.is_unclaimed());
        self.say_word(demand, tick);
        self.spans.told(tick, self.granted, demand, common.tick);
        self.busy = now;
        demand
    }

    fn is_unclaimed(&self) -> bool {
        self.silence.as_ref().is_some_and(|silence| silence.is_unclaimed())
    }

    /// The demand told last, be it to one peer only, tokens a second; below 0 this node stands aside.
    #[must_use]
    pub fn told_demand(&self) -> f32 {
        self.said()
    }

    /// Whether this node has charged or given back anything under the key since its news began.
    #[must_use]
    pub fn has_counted(&self) -> bool {
        self.told_tick > 0 || self.moved()
    }

    /// Whether there are charges or refunds that no frame has carried yet.
    #[must_use]
    pub fn moved(&self) -> bool {
        self.told != (self.granted, self.refunded)
    }

    /// Whether the baseline still has to move up though there is nothing new: all is confirmed and nothing asked for.
    pub fn unsettled(&mut self, now: Nanos, common: Common) -> bool {
        let behind = self.base != self.granted || self.refunded_base != self.refunded;
        behind && self.demand.claimed(now) == 0.0 && self.known_to_all(now, common)
    }

    /// Whether all that was ever charged and refunded is common knowledge, and nobody is silent who might lack it.
    fn known_to_all(&mut self, now: Nanos, common: Common) -> bool {
        let told = !self.moved() && self.told_tick <= common.tick && !common.silent;
        told && self.unacked(now, common) == 0.0
    }

    /// Whether each tick still has to look at it.
    pub fn restless(&self) -> bool {
        let behind = self.base != self.granted || self.refunded_base != self.refunded;
        behind || self.moved() || self.told_demand != 0.0 || !self.spans.is_empty()
    }

    /// Whether it may be dropped: nothing to say, nothing kept of any peer that is not common knowledge, for a while.
    #[must_use]
    pub fn droppable(&self, now: Nanos) -> bool {
        !self.listed
            && !self.restless()
            && self.silence.is_none()
            && now.since(self.busy) >= QUIET_KEEP
            && self.peers.iter().all(|p| p.said.settled && now.since(p.heard) >= QUIET_KEEP)
    }

    /// Own tokens granted that are newer than the baseline.
    #[must_use]
    pub const fn fresh(&self) -> u64 {
        self.granted - self.base
    }

    /// What `slot` said of the key.
    #[must_use]
    pub fn heard_of(&self, slot: Slot) -> Option<&PeerNews> {
        self.peers.iter().find(|p| p.slot == slot)
    }

    /// Tokens granted and refunded by `slot` as far as known; 0 when nothing is known.
    #[must_use]
    pub fn counted(&self, slot: Slot) -> (u64, u64) {
        self.heard_of(slot).map_or((0, 0), |p| (p.count.granted(), p.count.refunded()))
    }

    /// Takes in the counters of `slot`, and says what moved.
    pub fn learn(&mut self, slot: Slot, granted: u64, refunded: u64, now: Nanos) -> Step {
        self.peer(slot, now).count.learn(granted, refunded)
    }

    /// Notes what `slot` says beside its counters in its frame number `seq`. Returns by how much what has left its window by
    /// time grew, or `None` when a later frame has taken its word back already.
    pub fn hear(&mut self, slot: Slot, seq: u64, said: Said, now: Nanos) -> Option<u64> {
        let peer = self.peer(slot, now);
        if peer.seq > seq {
            return None;
        }
        let before = std::mem::replace(&mut peer.said, said);
        (peer.seq, peer.heard) = (seq, now);
        self.busy = now;
        if before.demand != said.demand {
            self.sum_others();
        }
        Some(said.released().saturating_sub(before.released()))
    }

    fn peer(&mut self, slot: Slot, now: Nanos) -> &mut PeerNews {
        let place = self.peers.iter().position(|p| p.slot == slot).unwrap_or_else(|| {
            // seldom, and most keys are heard of from few: no room is kept for more
            self.peers.reserve_exact(1);
            self.peers.push(PeerNews::new(slot, now));
            self.peers.len() - 1
        });
        &mut self.peers[place]
    }

    /// What `slot` asked for before its frame number `anew_from`, and did not say again, it asks for no more.
    pub fn take_back_demand(&mut self, slot: Slot, anew_from: u64) {
        let before = |p: &&mut PeerNews| p.slot == slot && p.seq < anew_from && p.said.demand != 0.0;
        if let Some(peer) = self.peers.iter_mut().find(before) {
            peer.said.demand = 0.0;
            self.sum_others();
        }
    }

    /// Drops all that is known of a replica that is gone for good.
    pub fn forget(&mut self, slot: Slot) {
        self.peers.retain(|p| p.slot != slot);
        self.assume_only(|of| of != slot);
        if let Some(silence) = &mut self.silence {
            // it will never tell what it spent: that stays charged
            (silence.stored.spent, silence.stored.spent_before) = (0.0, 0.0);
        }
        self.sum_others();
    }

    /// Anew each time: adding and subtracting floats one by one would leave a residue that looks like demand.
    fn sum_others(&mut self) {
        self.others = self.peers.iter().map(|p| f64::from(p.said.demand.max(0.0))).sum();
        self.aside = self.peers.iter().map(|p| u32::from(p.said.demand < 0.0)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::demand::SLOT;
    use super::*;

    const fn upto(tick: u64) -> Common {
        Common { tick, silent: false }
    }

    /// Whatever the round trip in ticks, a charge is let go soon after its tick is common knowledge.
    #[test]
    fn spans_let_go_within_a_quarter_more_than_the_round_trip() {
        for lag in [1u64, 2, 5, 7, 12, 40, 200] {
            let mut news = News::new(Nanos::ZERO, 1, 0);
            let mut granted_at = vec![1u64];
            for tick in 1..2000u64 {
                news.granted += 1;
                granted_at.push(news.granted);
                let common = Common { tick: tick.saturating_sub(lag), silent: false };
                news.tell(Nanos(tick), tick, common);
                let unacked = news.unacked(Nanos(tick), common);
                assert!(unacked >= lag.min(tick) as f64, "never less than what is truly unconfirmed");
                if tick > 4 * lag {
                    assert!(unacked <= (lag + lag / 2 + 2) as f64, "lag {lag} tick {tick}: {unacked}");
                }
            }
        }
    }

    #[test]
    fn a_node_claims_no_demand_that_was_not_confirmed_and_gives_up_at_once() {
        let mut news = News::new(Nanos::ZERO, 1, 0);
        let mut now = Nanos::ZERO;
        let mut tick = 0;
        let mut run = |news: &mut News, cost: u64, ms: u64, common: &dyn Fn(u64) -> u64| {
            for _ in 0..ms / 10 {
                news.demand.offer(now, cost);
                now = now.plus(SLOT);
                tick += 1;
                news.tell(now, tick, upto(common(tick)));
            }
            news.unacked(now, upto(common(tick)));
            news.demand_confirmed(now, 0, false)
        };
        assert_eq!(run(&mut news, 10, 1000, &|_| 0), 0.0, "nothing confirmed, nothing claimed");
        let confirmed = run(&mut news, 10, 100, &|t| t - 1);
        assert!((confirmed - 1000.0).abs() <= 1000.0 * DEMAND_MOVED, "{confirmed}");
        let held = run(&mut news, 0, 100, &|t| t - 5);
        assert_eq!(held, confirmed, "for a while, as long as nobody is short");
        news.demand.give_up(Nanos::from_millis(1200));
        let less = run(&mut news, 0, 10, &|t| t - 5);
        assert!(less < 500.0, "{less}");
    }

    #[test]
    fn the_baseline_moves_only_when_all_is_confirmed_and_nothing_is_asked() {
        let mut news = News::new(Nanos::ZERO, 100, 0);
        news.demand.offer(Nanos::ZERO, 5);
        news.granted += 5;
        news.tell(Nanos::from_millis(10), 1, upto(0));
        assert_eq!(news.fresh(), 5);
        let later = Nanos::from_secs(3);
        assert!(!news.unsettled(later, upto(0)), "not confirmed");
        assert!(news.unsettled(later, upto(1)));
        news.tell(later, 2, upto(1));
        assert_eq!(news.fresh(), 0);
    }

    #[test]
    fn time_that_passed_before_a_charge_lets_nothing_of_it_go() {
        let ms = Nanos::from_millis;
        let silent = |tick| Common { tick, silent: true };
        let mut news = News::new(Nanos::ZERO, 1, 0);
        news.unacked(Nanos::ZERO, silent(0));
        news.release_held(100.0, Nanos::ZERO);
        news.granted += 1;
        news.tell(ms(16), 1, silent(0));
        assert_eq!(news.unacked(ms(18), silent(1)), 1.0);
        news.release_held(100.0, ms(20));
        assert!((news.unacked(ms(20), silent(1)) - 0.8).abs() < 1e-9);
        assert!((news.unacked(ms(25), silent(1)) - 0.3).abs() < 1e-9, "between two looks at the silence, too");
        assert_eq!(news.unacked(ms(40), silent(1)), 0.0);
    }
}
