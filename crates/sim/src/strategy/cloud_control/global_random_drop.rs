//! `global-random-drop`: a request is refused with the probability by which the whole demand exceeds the limit.
//!
//! Source: as [`super`], its section on global random drop: `max(0, (demand - limit) / demand)`, demand the sum of all
//! limiters' estimated arrival rates. There is no bucket: a burst passes until the estimates have seen it.
//!
//! Simplified: nothing more. It must not know how estimates come.

use super::{Design, View};
use crate::observe::{Reason, Verdict};
use crate::random::Random;

/// One key at one limiter.
#[derive(Debug)]
pub(in crate::strategy) struct GlobalRandomDrop {
    demand: f64,
}

impl Design for GlobalRandomDrop {
    fn new(_view: View) -> Self {
        Self { demand: 0.0 }
    }

    fn decide(&mut self, view: View, _cost: u64, random: &mut Random) -> Verdict {
        let excess = self.demand - view.limit;
        if excess > 0.0 && random.happens(excess / self.demand) {
            return Verdict::denied(Reason::OverLimit);
        }
        Verdict::ALLOWED
    }

    fn estimate(&mut self, _view: View, own: f64, others: f64) -> f64 {
        self.demand = own + others;
        own
    }
}
