//! The worst that the strict rule can be made to admit when the network may do what it likes: every schedule of small
//! clusters, and random ones of larger ones. What is proved and what is not is told in `ACCURACY.md`.

mod schedule;

use std::collections::HashSet;

use schedule::{Act, Fault, Law, State};

/// So often a node may promise in a search of every schedule: it would go on for ever.
const PROMISES_MAX: usize = 3;

/// What a search looks through.
#[derive(Clone, Copy, Debug)]
struct Space<const N: usize> {
    burst: u64,
    /// Tokens that come back, one at a time.
    refills: u32,
    /// Tokens that may be shared ahead of their coming back.
    ahead: u64,
    /// What the nodes ask for, and how often one may ask for another amount.
    demands: [u8; N],
    changes: u32,
    /// Whether a node may grant less than it could.
    partly: bool,
    fault: Fault,
}

impl<const N: usize> Space<N> {
    const fn new(burst: u64, fault: Fault) -> Self {
        Self { burst, refills: 0, ahead: 0, demands: [0; N], changes: 0, partly: true, fault }
    }

    /// All that may happen next.
    fn acts(&self, law: &Law, state: &State<N>, acts: &mut Vec<Act>) {
        acts.clear();
        for i in 0..N {
            let most = state.grantable(law, i);
            let least = if self.partly { 1 } else { most.max(1) };
            acts.extend((least..=most).map(|tokens| Act::Grant(i, tokens)));
            if state.changes > 0 {
                acts.extend([0, 1, 9].map(|demand| Act::Ask(i, demand)));
            }
            if self.fault.promises && state.promises(i) < PROMISES_MAX {
                acts.push(Act::Promise(i));
            }
            for to in (0..N).filter(|to| *to != i) {
                acts.extend(state.deliverable(i, to).map(|version| Act::Deliver(i, to, version)));
                if self.fault.not_causal {
                    acts.extend(state.deliverable(i, to).map(|version| Act::DeliverConfirmation(i, to, version)));
                }
            }
        }
        if state.refills > 0 {
            acts.push(Act::Refill);
        }
    }

    /// Tries every order of everything, to the end; the most that was over, and the states that there are. Ends at the
    /// first token over where `first` says so.
    fn exhaust(&self, first: bool) -> (i64, usize) {
        let law = Law::new(N, self.burst, self.ahead, self.fault);
        let start = State::new(&law, self.demands, self.refills, self.changes);
        let mut seen = HashSet::from([start.fingerprint()]);
        let (mut open, mut acts, mut worst) = (vec![start], Vec::new(), 0);
        while let Some(state) = open.pop() {
            self.acts(&law, &state, &mut acts);
            for act in &acts {
                let mut next = state.clone();
                if next.act(&law, *act) && seen.insert(next.fingerprint()) {
                    worst = worst.max(next.over());
                    if first && worst > 0 {
                        return (worst, seen.len());
                    }
                    open.push(next);
                }
            }
        }
        (worst, seen.len())
    }
}

/// Schedules at random: whatever may happen next, charges as often as anything else.
impl<const N: usize> Space<N> {
    fn wander(&self, seed: u64, acts_max: usize) -> i64 {
        self.end_of(seed, acts_max).0
    }

    /// The most that any of so many schedules grants.
    fn most_granted(&self, seeds: u64, acts: usize) -> i64 {
        (0..seeds).map(|seed| self.end_of(seed, acts).1).max().unwrap_or(0)
    }

    /// The most that was over, and what was granted.
    fn end_of(&self, seed: u64, acts_max: usize) -> (i64, i64) {
        let law = Law::new(N, self.burst, self.ahead, self.fault);
        let mut state = State::new(&law, self.demands, self.refills, self.changes);
        let mut random = Random(seed);
        let mut worst = 0;
        for _ in 0..acts_max {
            let i = random.index(N);
            let to = (i + 1 + random.index(N - 1)) % N;
            let version = |random: &mut Random, state: &State<N>| {
                let all = state.deliverable(i, to);
                // the newest as often as any older one
                if random.index(2) == 0 { all.end - 1 } else { all.start + random.index(all.len()) }
            };
            let act = match random.index(8) {
                0..=2 => {
                    let most = state.grantable(&law, i);
                    if most == 0 {
                        continue;
                    }
                    let tokens =
                        if random.index(4) == 0 { 1 + random.index(most as usize).cast_signed() as i64 } else { most };
                    Act::Grant(i, tokens)
                }
                3 if state.refills > 0 && random.index(4) == 0 => Act::Refill,
                4 if state.changes > 0 => Act::Ask(i, [0, 1, 9, 100][random.index(4)]),
                5 if self.fault.not_causal => Act::DeliverConfirmation(i, to, version(&mut random, &state)),
                6 if self.fault.promises => Act::Promise(i),
                _ => Act::Deliver(i, to, version(&mut random, &state)),
            };
            state.act(&law, act);
            worst = worst.max(state.over());
        }
        (worst, state.granted())
    }

    fn wander_many(&self, seeds: u64, acts: usize) -> (i64, u64) {
        let overs = (0..seeds).map(|seed| self.wander(seed, acts));
        overs.fold((0, 0), |(worst, often), over| (worst.max(over), often + u64::from(over > 0)))
    }
}

/// splitmix64
struct Random(u64);

impl Random {
    fn index(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }
}

const SOUND: Fault = Fault { single: false, not_causal: false, fresh_demand: false, promises: false };
const SINGLE: Fault = Fault { single: true, ..SOUND };
const NOT_CAUSAL: Fault = Fault { not_causal: true, ..SOUND };
const FRESH: Fault = Fault { fresh_demand: true, ..SOUND };
const PROMISES: Fault = Fault { promises: true, ..SOUND };

fn none_over<const N: usize>(space: &Space<N>) {
    let (worst, states) = space.exhaust(false);
    assert_eq!(worst, 0, "{states} states of {space:?}");
    assert!(states > 500, "the search stops at once: {states} states of {space:?}");
}

/// Every order of everything.
#[test]
fn of_two_nodes_no_schedule_is_over() {
    none_over(&Space::<2>::new(6, SOUND));
    none_over(&Space::<2> { refills: 2, ..Space::new(4, SOUND) });
    none_over(&Space::<2> { refills: 2, ahead: 2, ..Space::new(4, SOUND) });
    none_over(&Space::<2> { demands: [1, 1], changes: 1, ..Space::new(3, SOUND) });
}

/// With so few tokens a share of a share of a share is none.
#[test]
fn of_three_nodes_no_schedule_of_few_tokens_is_over() {
    none_over(&Space::<3>::new(4, SOUND));
    none_over(&Space::<3> { partly: false, ..Space::new(6, SOUND) });
}

/// The same with more tokens.
#[test]
fn of_more_tokens_no_schedule_is_over() {
    none_over(&Space::<2>::new(8, SOUND));
    none_over(&Space::<2> { refills: 2, ahead: 2, ..Space::new(6, SOUND) });
    none_over(&Space::<2> { demands: [1, 1], changes: 1, ..Space::new(4, SOUND) });
    none_over(&Space::<3>::new(5, SOUND));
    none_over(&Space::<3> { partly: false, ..Space::new(9, SOUND) });
}

/// Whoever knows less than it should, or claims more, is found out: the search is no comfort else.
#[test]
fn a_search_finds_what_the_rule_leans_on() {
    assert!(Space::<2> { partly: false, ..Space::new(4, NOT_CAUSAL) }.exhaust(true).0 > 0);
    assert!(Space::<2> { demands: [1, 1], changes: 1, ..Space::new(8, FRESH) }.exhaust(true).0 > 0);
    assert!(Space::<3>::new(27, SINGLE).wander_many(2000, 80).0 > 0);
}

/// From three nodes on the strict rule is not exact. Each grants its share of what is left while the news of the one
/// before is held back from it: 9, 9, 6, 3 and 1 of 27 tokens. `chain.rs` does the same to real nodes.
#[test]
fn of_three_nodes_a_chain_of_late_news_is_over_by_a_share_of_a_share_of_a_share() {
    assert_eq!(Space::<3>::new(27, SOUND).wander(6848, 80), 1);
}

/// With all that may be granted promised beforehand no schedule is over.
#[test]
fn promises_hold_in_every_schedule() {
    none_over(&Space::<2>::new(3, PROMISES));
    let three = Space::<3>::new(27, PROMISES);
    let moving = Space::<3> { refills: 10, demands: [1; 3], changes: 4, ..Space::new(27, PROMISES) };
    let five = Space::<5> { refills: 10, ..Space::new(1000, PROMISES) };
    let worst = [three.wander_many(2000, 120), moving.wander_many(2000, 120), five.wander_many(500, 200)];
    assert_eq!(worst, [(0, 0); 3]);
    let granted = three.most_granted(200, 240);
    assert!(granted >= 24, "a rule that grants nothing is safe, too: {granted} of 27");
}

/// More tokens, refill, and demand that moves.
#[test]
fn schedules_at_random_stay_within_a_share_of_a_share_of_a_share() {
    let two = Space::<2> { demands: [1; 2], changes: 6, ..Space::new(2700, SOUND) };
    assert_eq!(two.wander_many(2000, 60).0, 0);
    let three = Space::<3> { refills: 30, ahead: 50, demands: [1; 3], changes: 8, ..Space::new(2700, SOUND) };
    assert!(three.wander_many(1000, 150).0 <= 100);
    let five = Space::<5> { refills: 20, ahead: 5, demands: [1; 5], changes: 8, ..Space::new(2700, SOUND) };
    assert!(five.wander_many(500, 250).0 <= 100);
}
