//! `global-token-bucket`: each limiter's bucket fills at the whole rate, and others' estimated arrivals drain it, too.
//!
//! Source: as [`super`], its section on the global token bucket: limiters are to act as one, each on a bucket of its own
//! which tokens leave for own requests at once, and for remote arrivals at their estimated rate. It is arrivals that
//! count, as in the paper: its clients, TCP flows, send less when they are refused. Where clients go on regardless, what
//! others ask for in vain drains a node's bucket all the same, and the cluster stays below its limit.
//!
//! Simplified: nothing more. It must not know how estimates come.

use super::{Design, View};
use crate::observe::Verdict;
use crate::random::Random;
use crate::strategy::fluid::Fluid;

/// One key at one limiter.
#[derive(Debug)]
pub(in crate::strategy) struct GlobalTokenBucket {
    bucket: Fluid,
    others: f64,
}

impl Design for GlobalTokenBucket {
    fn new(view: View) -> Self {
        Self { bucket: Fluid::full(view.burst, view.now), others: 0.0 }
    }

    fn decide(&mut self, view: View, cost: u64, _random: &mut Random) -> Verdict {
        let rate = view.limit - self.others;
        self.bucket.settle(view.now, rate, view.burst);
        self.bucket.take(cost, rate)
    }

    fn estimate(&mut self, view: View, own: f64, others: f64) -> f64 {
        self.bucket.settle(view.now, view.limit - self.others, view.burst);
        self.others = others;
        own
    }
}
