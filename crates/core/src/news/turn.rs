//! Turns at a key whose limit is too small to share: who holds it, who stands aside, and what of this node's word all
//! peers have heard. The rule behind it is in [`crate::stability`]. It must not know tokens, limits or frames.

use super::News;
use crate::time::Nanos;

/// Told instead of a demand: the sender has no part in the key, not even the even one, until it says otherwise.
pub const ASIDE: f32 = -1.0;
/// Told instead of a demand: the sender wants the key, or was the last that did.
const HOLDS: f32 = 1.0;
/// Told instead of a demand: the sender has its even part, and no more.
const RESTS: f32 = 0.0;

/// A told demand as it travels: to who does not know of standing aside it is no demand.
#[must_use]
pub fn to_wire(demand: f32) -> f32 {
    if demand < 0.0 { -0.0 } else { demand }
}

/// The reverse.
#[must_use]
pub fn from_wire(demand: f32) -> f32 {
    if demand.is_sign_negative() { ASIDE } else { demand }
}

/// What this node has said, and which of it all peers have confirmed hearing. A lower word holds at once, a higher one
/// once all have confirmed it.
#[derive(Clone, Copy, Debug)]
struct Word {
    said: f32,
    /// The tick that told a higher word than before last.
    raised: u64,
    /// The least word since all had heard what was said.
    before: f32,
}

impl Word {
    const fn new(said: f32) -> Self {
        Self { said, raised: 0, before: said }
    }

    /// Says it in `tick`, while all have confirmed hearing everything up to `heard`.
    fn say(&mut self, word: f32, tick: u64, heard: u64) {
        if word > self.said {
            (self.before, self.raised) = (self.confirmed(heard), tick);
        }
        self.said = word;
    }

    /// The least that a peer may hold to be this node's word, where all have confirmed hearing everything up to `heard`.
    fn confirmed(&self, heard: u64) -> f32 {
        if self.raised > heard { self.said.min(self.before) } else { self.said }
    }
}

/// A node's part in the turns at one key.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Whether the key goes by turns now.
    active: bool,
    /// What is to be told.
    stance: f32,
    word: Word,
    /// The newest tick that all had confirmed while nobody was silent.
    heard: u64,
    /// A request waits, as far as is known until then.
    wanted_until: Nanos,
    /// Until then this node has given way to one that goes first.
    yields_until: Nanos,
}

impl Turn {
    fn wants(&self, now: Nanos) -> bool {
        now < self.wanted_until
    }

    /// Where this node stands now; `held` says whether a peer holds the key, `idle` whether nobody asks this node for it.
    fn settle(&mut self, now: Nanos, held: bool, idle: bool) {
        if self.wants(now) {
            self.stance = if now < self.yields_until { ASIDE } else { HOLDS };
        } else if (self.stance > RESTS && idle) || (self.stance < RESTS && !held) {
            self.stance = RESTS;
        }
    }
}

impl News {
    /// Whether the key has gone by turns since its news began.
    #[must_use]
    pub const fn has_turns(&self) -> bool {
        self.turn.is_some()
    }

    /// How many peers hold the key.
    #[must_use]
    pub fn holders(&self) -> u32 {
        self.peers.iter().map(|p| u32::from(p.said.demand > RESTS)).sum()
    }

    /// Whether this node stands aside by a word that not all have been told.
    #[must_use]
    pub fn stepped_aside(&self) -> bool {
        self.said() < RESTS && self.told_demand >= RESTS
    }

    fn turn_or(&mut self) -> &mut Turn {
        // what was said before is known as far as `spans` goes
        let said = self.spans.demand_confirmed(self.told_demand);
        self.turn.get_or_insert_with(|| {
            Box::new(Turn {
                active: true,
                stance: RESTS,
                word: Word::new(said),
                heard: 0,
                wanted_until: Nanos::ZERO,
                yields_until: Nanos::ZERO,
            })
        })
    }

    /// A request waits for this node's turn; unless it is tried again before `patience` is over, it waits no longer.
    pub fn want_turn(&mut self, now: Nanos, patience: Nanos) {
        let turn = self.turn_or();
        (turn.active, turn.wanted_until) = (true, now.plus(patience));
        self.settle_turn(now, true);
    }

    /// No request waits any more.
    pub fn end_want(&mut self) {
        if let Some(turn) = &mut self.turn {
            turn.wanted_until = Nanos::ZERO;
        }
    }

    /// Goes by turns from now on, or no longer, and comes to where it stands.
    pub fn settle_turn(&mut self, now: Nanos, active: bool) {
        let held = self.peers.iter().any(|p| p.said.demand > RESTS);
        if let Some(turn) = &mut self.turn {
            let idle = self.demand.per_second(now) == 0.0;
            turn.active = active;
            turn.settle(now, held, idle);
        }
    }

    /// A peer asks for the turn, and `goes_first` or not. Says whether this node stands aside now: that holds from now on,
    /// and the peer is to be told at once. A node with a request of its own gives way for `patience`.
    pub fn give_way(&mut self, now: Nanos, goes_first: bool, patience: Nanos) -> bool {
        let turn = self.turn_or();
        turn.active = true;
        if turn.wants(now) {
            if goes_first && now >= turn.yields_until {
                turn.yields_until = now.plus(patience);
            }
            turn.stance = if now < turn.yields_until { ASIDE } else { HOLDS };
        } else {
            turn.stance = ASIDE;
        }
        if turn.stance < RESTS {
            turn.word.said = ASIDE;
        }
        turn.stance < RESTS
    }

    /// What is to be told while the key goes by turns.
    pub(super) fn stance(&self) -> Option<f32> {
        self.turn.as_ref().filter(|turn| turn.active).map(|turn| turn.stance)
    }

    /// Notes what all are told in `tick`.
    pub(super) fn say_word(&mut self, word: f32, tick: u64) {
        if let Some(turn) = &mut self.turn {
            turn.word.say(word, tick, turn.heard);
        }
    }

    /// What this node has said last.
    pub(super) fn said(&self) -> f32 {
        self.turn.as_ref().map_or(self.told_demand, |turn| turn.word.said)
    }

    /// The least word that a peer may hold, given the one that `spans` knows of, `heard` and whether a peer is `silent`.
    ///
    /// While the key goes by turns, a word holds once all have heard it. Which of the charges are common knowledge is
    /// another matter: see [`crate::stability`].
    pub(super) fn word_confirmed(&mut self, present: f32, heard: u64, silent: bool) -> f32 {
        let told = self.spans.demand_confirmed(present);
        let Some(turn) = &mut self.turn else { return told };
        if !silent {
            turn.heard = heard;
        }
        let confirmed = turn.word.confirmed(heard);
        if turn.active { confirmed.min(present) } else { confirmed.min(told) }
    }

    /// The same by what all had confirmed when none was silent yet.
    pub(super) fn word_before_silence(&self) -> f32 {
        let told = self.spans.demand_confirmed(self.told_demand);
        match &self.turn {
            Some(turn) if turn.active => turn.word.confirmed(turn.heard),
            Some(turn) => turn.word.confirmed(turn.heard).min(told),
            None => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stability::{Outlook, weight};
    use proptest::prelude::*;

    const NODES: usize = 4;

    #[test]
    fn a_higher_word_holds_once_all_have_heard_it_and_a_lower_one_at_once() {
        let mut word = Word::new(RESTS);
        word.say(HOLDS, 5, 4);
        assert_eq!((word.confirmed(4), word.confirmed(5)), (RESTS, HOLDS));
        word.say(ASIDE, 6, 4);
        assert_eq!(word.confirmed(0), ASIDE);
        word.say(HOLDS, 7, 6);
        assert_eq!([6, 7].map(|heard| word.confirmed(heard)), [ASIDE, HOLDS]);
        word.say(RESTS, 8, 6);
        word.say(HOLDS, 9, 6);
        assert_eq!([8, 9].map(|heard| word.confirmed(heard)), [ASIDE, HOLDS], "what was not heard yet counts on");
    }

    #[test]
    fn who_does_not_want_gives_way_and_of_two_that_want_the_one_that_goes_last() {
        let (now, patience) = (Nanos::from_millis(50), Nanos::from_millis(2));
        let mut news = News::new(now, 1, 0);
        assert!(news.give_way(now, false, patience), "it wants nothing");
        news.want_turn(now, patience);
        assert_eq!(news.stance(), Some(HOLDS));
        assert!(!news.give_way(now, false, patience));
        assert!(news.give_way(now, true, patience));
        assert!(news.stepped_aside());
        news.want_turn(now.plus(Nanos::from_millis(1)), patience);
        assert_eq!(news.stance(), Some(ASIDE), "not at once again");
        news.want_turn(now.plus(patience), patience);
        assert_eq!(news.stance(), Some(HOLDS));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Tells all a word.
        Say(usize, f32),
        /// Tells one peer that it stands aside.
        Reply(usize, usize),
        /// One of the frames under way arrives; it may come again.
        Arrive(usize),
        Lose(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let word = prop_oneof![Just(ASIDE), Just(RESTS), Just(HOLDS)];
        prop_oneof![
            3 => (0..NODES, word).prop_map(|(node, word)| Step::Say(node, word)),
            1 => (0..NODES, 0..NODES).prop_map(|(node, to)| Step::Reply(node, to)),
            9 => (0..64usize).prop_map(Step::Arrive),
            2 => (0..64usize).prop_map(Step::Lose),
        ]
    }

    struct Frame {
        from: usize,
        to: usize,
        seq: u64,
        tick: Option<u64>,
        word: f32,
    }

    /// The newest tick of `node` that all have heard.
    fn known(node: usize, ticks: &[Vec<u64>]) -> u64 {
        (0..NODES).filter(|peer| *peer != node).map(|peer| ticks[peer][node]).min().unwrap_or(0)
    }

    fn weights(words: &[Word], heard: &[Vec<(u64, f32)>], ticks: &[Vec<u64>]) -> Vec<f64> {
        let of = |node: usize| {
            let peers = (0..NODES).filter(|peer| *peer != node);
            let known = known(node, ticks);
            let own = f64::from(words[node].confirmed(known));
            let others = peers.clone().map(|peer| f64::from(heard[node][peer].1.max(0.0))).sum();
            let aside = peers.map(|peer| u32::from(heard[node][peer].1 < 0.0)).sum();
            let nobody = Nanos::ZERO;
            let outlook = Outlook {
                replicas: NODES as u32,
                dead: 0,
                admitted: true,
                heard: known,
                stable: 0,
                silent: 0,
                settle: nobody,
                known: nobody,
                apart: 0,
                apart_known: nobody,
                round_trip: nobody,
            };
            weight(own, others, aside, &outlook)
        };
        (0..NODES).map(of).collect()
    }

    proptest! {
        /// Whatever is lost, comes twice or in another order: at no moment do the weights sum to more than 1.
        #[test]
        fn weights_never_sum_to_more_than_one(steps in proptest::collection::vec(step(), 1..200)) {
            let mut words = [Word::new(RESTS); NODES];
            // by receiver, then sender: the newest frame heard and its word; the newest tick heard
            let mut heard = vec![vec![(0u64, RESTS); NODES]; NODES];
            let mut ticks = vec![vec![0u64; NODES]; NODES];
            let mut under_way: Vec<Frame> = Vec::new();
            let mut seq = 0;
            for step in steps {
                match step {
                    Step::Say(node, word) => {
                        seq += 1;
                        words[node].say(word, seq, known(node, &ticks));
                        let all = (0..NODES).filter(|to| *to != node);
                        under_way.extend(all.map(|to| Frame { from: node, to, seq, tick: Some(seq), word }));
                    }
                    Step::Reply(node, to) if to != node => {
                        seq += 1;
                        words[node].said = ASIDE;
                        under_way.push(Frame { from: node, to, seq, tick: None, word: ASIDE });
                    }
                    Step::Arrive(i) if !under_way.is_empty() => {
                        let frame = &under_way[i % under_way.len()];
                        if heard[frame.to][frame.from].0 <= frame.seq {
                            heard[frame.to][frame.from] = (frame.seq, frame.word);
                        }
                        let known = &mut ticks[frame.to][frame.from];
                        // a later tick's frame says again what the ones before said
                        *known = (*known).max(frame.tick.unwrap_or(0));
                    }
                    Step::Lose(i) if !under_way.is_empty() => {
                        under_way.swap_remove(i % under_way.len());
                    }
                    Step::Reply(..) | Step::Arrive(_) | Step::Lose(_) => {}
                }
                let sum: f64 = weights(&words, &heard, &ticks).iter().sum();
                prop_assert!(sum <= 1.0 + 1e-9, "{sum}");
            }
        }
    }
}
