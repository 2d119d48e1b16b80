//! The worst that the strict rule can be made to admit when the network may do what it likes: every schedule of small
//! clusters, and random ones of larger ones. What is proved and what is not is told in `ACCURACY.md`.

mod schedule;

use std::collections::HashSet;

use schedule::{Act, Fault, Law, State};

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
        self.wander_traced(seed, acts_max, &mut Vec::new())
    }
    fn wander_traced(&self, seed: u64, acts_max: usize, trace: &mut Vec<Act>) -> i64 {
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
                    let tokens = if random.index(4) == 0 { 1 + random.index(most as usize) as i64 } else { most };
                    Act::Grant(i, tokens)
                }
                3 if state.refills > 0 && random.index(4) == 0 => Act::Refill,
                4 if state.changes > 0 => Act::Ask(i, [0, 1, 9, 100][random.index(4)]),
                5 if self.fault.not_causal => Act::DeliverConfirmation(i, to, version(&mut random, &state)),
                _ => Act::Deliver(i, to, version(&mut random, &state)),
            };
            state.act(&law, act);
            trace.push(act);
            worst = worst.max(state.over());
        }
        worst
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

#[test]
#[ignore = "probe"]
fn probe() {
    let space = Space::<3>::new(27, Fault::default());
    let law = Law::new(3, 27, 0, Fault::default());
    let mut best: Option<Vec<Act>> = None;
    let mut n = 0;
    for seed in 0..400000 {
        let mut trace = Vec::new();
        if space.wander_traced(seed, 80, &mut trace) == 0 { continue; }
        n += 1;
        let run = |acts: &[Act]| {
            let mut state = State::<3>::new(&law, [0; 3], 0, 0);
            let mut worst = 0;
            for act in acts {
                if let Act::Grant(i, t) = act { if state.grantable(&law, *i) < *t { return 0; } }
                if let Act::Deliver(a, b, v) = act { if !state.deliverable(*a, *b).contains(v) { return 0; } }
                state.act(&law, *act);
                worst = worst.max(state.over());
            }
            worst
        };
        let mut k = 0;
        while k < trace.len() {
            let mut less = trace.clone();
            less.remove(k);
            if run(&less) > 0 { trace = less; k = 0; } else { k += 1; }
        }
        if best.as_ref().is_none_or(|b| trace.len() < b.len()) { println!("seed {seed}: {} {trace:?}", run(&trace)); best = Some(trace); }
    }
    println!("{n} found");
}
