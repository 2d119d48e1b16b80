//! The limits that are asked for while things break, and what each of them promises.

use spillgate::demo::measure::Answer;

use super::load::Grant;
use crate::accuracy::certain_overshoot;

/// Of the buckets that are asked for more than they hold: tokens a second, and at once.
pub const RATE: f64 = 100.0;
pub const BURST: f64 = 100.0;
/// Of the bucket that is never used up: its level tells what was counted.
pub const ROOMY: u64 = 1_000_000;
/// Of the windows: tokens in each, and how long it is.
const WINDOW: u64 = 200;
const WINDOW_SECS: f64 = 2.0;
/// What `bounded` promises by default, of the burst.
const MAX_OVERSHOOT: f64 = 0.05;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Roomy,
    Strict,
    Bounded,
    Window,
}

pub const LIMITS: [Limit; 4] = [Limit::Roomy, Limit::Strict, Limit::Bounded, Limit::Window];

impl Limit {
    pub const fn name(self) -> &'static str {
        match self {
            // the one that the daemon's harness asks for
            Self::Roomy => "api",
            Self::Strict => "strict",
            Self::Bounded => "bounded",
            Self::Window => "window",
        }
    }

    /// What it may be over in a round in which so many nodes crashed: `strict` is charged for what a crashed node may have
    /// granted unheard, `bounded` may forgive it, a capacity each (`crates/sim/src/checker/promise.rs`).
    pub fn promised(self, crashes: usize) -> f64 {
        match self {
            Self::Roomy | Self::Strict | Self::Window => 0.0,
            Self::Bounded => MAX_OVERSHOOT * BURST + crashes as f64 * BURST,
        }
    }

    /// What these grants, all made while callers asked without a rest, are over for certain.
    pub fn over(self, grants: &[Grant]) -> f64 {
        let of_it = grants.iter().filter(|g| g.limit == self);
        match self {
            Self::Roomy => 0.0,
            Self::Strict | Self::Bounded => {
                let answer = |g: &Grant| Answer { node: g.node, sent: g.sent, answered: g.answered, allowed: true };
                certain_overshoot(&of_it.map(answer).collect::<Vec<_>>(), RATE, BURST)
            }
            Self::Window => {
                // granted in a window for certain: asked for and answered within it
                let number = |g: &Grant| g.wall.map(|at| (at.as_secs_f64() / WINDOW_SECS) as u64);
                let mut windows = std::collections::BTreeMap::<u64, u64>::new();
                of_it.map(number).filter(|[sent, answered]| sent == answered).for_each(|[window, _]| {
                    *windows.entry(window).or_default() += 1;
                });
                windows.values().map(|n| *n as f64 - WINDOW as f64).fold(0.0, f64::max)
            }
        }
    }
}

/// As configuration; `roomy` is the capacity of the one that is never used up.
pub fn configured(roomy: u64) -> String {
    format!(
        "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = {roomy}\n\
         [[limit]]\nname = \"strict\"\nrate = \"{RATE}/s\"\nburst = {BURST}\naccuracy = \"strict\"\n\
         [[limit]]\nname = \"bounded\"\nrate = \"{RATE}/s\"\nburst = {BURST}\naccuracy = \"bounded\"\n\
         [[limit]]\nname = \"window\"\nalgorithm = \"fixed-window\"\nrate = \"{WINDOW}/{WINDOW_SECS}s\"\naccuracy = \
         \"strict\"\n"
    )
}
