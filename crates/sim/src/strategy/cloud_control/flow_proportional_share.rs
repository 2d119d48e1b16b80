//! `flow-proportional-share`: each limiter has a token bucket at its own limit, by its weight among all.
//!
//! Source: as [`super`], its section on flow proportional share. With own demand `d`, remote weights `W`, limit `G` and
//! own limit `L`: at `d >= L` the weight is the number of unbottlenecked flows that the demand equals, else
//! `w = d W / (G - d)`; then `L = w G / (W + w)`. A limiter says its weight.
//!
//! Simplified: requests are no flows, so a limiter at its limit weighs what it is asked for, as if every client were a
//! flow that offers one token a second. While nobody weighs anything the limit is divided evenly. The bucket's size,
//! which the paper leaves open, is the same part of the burst as the limit's, at least one token. It must not know how
//! estimates come.

use super::{Design, View};
use crate::observe::Verdict;
use crate::random::Random;
use crate::strategy::fluid::Fluid;

/// One key at one limiter.
#[derive(Debug)]
pub(in crate::strategy) struct FlowProportionalShare {
    bucket: Fluid,
    /// The own limit, as a part of the whole.
    part: f64,
}

impl FlowProportionalShare {
    fn size(&self, view: View) -> f64 {
        (view.burst * self.part).max(1.0)
    }
}

impl Design for FlowProportionalShare {
    fn new(view: View) -> Self {
        let part = 1.0 / view.members as f64;
        Self { bucket: Fluid::full((view.burst * part).max(1.0), view.now), part }
    }

    fn decide(&mut self, view: View, cost: u64, _random: &mut Random) -> Verdict {
        let rate = view.limit * self.part;
        self.bucket.settle(view.now, rate, self.size(view));
        self.bucket.take(cost, rate)
    }

    fn estimate(&mut self, view: View, own: f64, others: f64) -> f64 {
        self.bucket.settle(view.now, view.limit * self.part, self.size(view));
        let bottlenecked = own >= view.limit * self.part;
        // below its limit a limiter asks for less than the whole; beside nobody any weight gets it all
        let weight = if bottlenecked || others <= 0.0 { own } else { own * others / (view.limit - own) };
        let total = weight + others;
        self.part = if total > 0.0 { weight / total } else { 1.0 / view.members as f64 };
        weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillgate_core::time::Nanos;

    /// The paper's own: weights of 9 and 3 divide the limit as 3 to 1; one that wants less than its part gets just that.
    #[test]
    fn parts_follow_weights() {
        let view = View { limit: 100.0, burst: 10.0, members: 2, now: Nanos::ZERO };
        let mut limiter = FlowProportionalShare::new(view);
        limiter.estimate(view, 90.0, 30.0);
        assert!((limiter.part - 0.75).abs() < 1e-12);
        limiter.estimate(view, 20.0, 120.0);
        assert!((limiter.part - 0.2).abs() < 1e-12);
    }
}
