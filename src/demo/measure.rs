//! What was admitted against one central bucket on the same arrivals. It must not know who admitted it.

use std::time::Duration;

use spillgate_core::rate::Rate;

/// A virtual queue: gains each charge, drains at the rate. Its height above the burst is the overshoot.
#[derive(Clone, Debug)]
struct Queue {
    rate: f64,
    height: f64,
    at: Duration,
}

impl Queue {
    const fn new(rate: f64) -> Self {
        Self { rate, height: 0.0, at: Duration::ZERO }
    }

    fn drained(&mut self, at: Duration) -> f64 {
        // answers of two connections may be read a little out of order
        let passed = at.saturating_sub(self.at);
        self.height = (self.height - self.rate * passed.as_secs_f64()).max(0.0);
        self.at = self.at.max(at);
        self.height
    }
}

/// One answered request: tokens cost 1.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Which node.
    pub node: usize,
    /// When it was sent, since the start.
    pub sent: Duration,
    /// When the answer came, since the start.
    pub answered: Duration,
    /// Whether it got its token.
    pub allowed: bool,
}

/// The sums at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Requests answered.
    pub offered: u64,
    /// Tokens granted.
    pub admitted: u64,
    /// Tokens beyond the limit at the worst moment.
    pub overshoot: f64,
    /// Admitted, over what one central bucket would have admitted on the same arrivals.
    pub utilisation: f64,
}

/// Takes in answers and says how far they went over.
///
/// Overshoot is the largest, over all s < t, of admitted(s, t) - (burst + rate (t - s)), on this process's clock, by the
/// moment each answer came. That moment is later than the decision by the time of the answer's way, and what bunches up
/// there counts as a burst: the figure errs upwards.
#[derive(Debug)]
pub struct Measure {
    burst: f64,
    admitted: Queue,
    overshoot: f64,
    rate: f64,
    by_node: Vec<u64>,
    answers: Vec<Answer>,
    unsent: u64,
}

impl Measure {
    /// Of a limit of `rate` and `burst` at so many nodes.
    #[must_use]
    pub fn new(rate: Rate, burst: u64, nodes: usize) -> Self {
        let rate = rate.per_second();
        Self {
            burst: burst as f64,
            admitted: Queue::new(rate),
            overshoot: 0.0,
            rate,
            by_node: vec![0; nodes],
            answers: Vec::new(),
            unsent: 0,
        }
    }

    /// Counts an answer.
    pub fn take(&mut self, answer: Answer) {
        self.answers.push(answer);
        if answer.allowed {
            self.by_node[answer.node] += 1;
            self.admitted.drained(answer.answered);
            self.admitted.height += 1.0;
            self.overshoot = self.overshoot.max(self.admitted.height - self.burst);
        }
    }

    /// A request was due, and there was no connection free to send it.
    pub const fn miss(&mut self) {
        self.unsent += 1;
    }

    /// Requests that were due and could not be sent.
    #[must_use]
    pub const fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Every answer so far, in the order they were read.
    #[must_use]
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Tokens granted by each node so far.
    #[must_use]
    pub fn admitted_by_node(&self) -> &[u64] {
        &self.by_node
    }

    /// Tokens beyond the limit so far, at the worst moment.
    #[must_use]
    pub const fn overshoot(&self) -> f64 {
        self.overshoot
    }

    /// The whole run against a central bucket that had decided at the moment each request was sent.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut sent: Vec<Duration> = self.answers.iter().map(|a| a.sent).collect();
        sent.sort_unstable();
        let mut oracle = Queue::new(self.rate);
        let mut oracle_admitted = 0u64;
        for at in &sent {
            if oracle.drained(*at) + 1.0 <= self.burst {
                oracle.height += 1.0;
                oracle_admitted += 1;
            }
        }
        let admitted: u64 = self.by_node.iter().sum();
        Verdict {
            offered: sent.len() as u64,
            admitted,
            overshoot: self.overshoot,
            utilisation: if oracle_admitted == 0 { 1.0 } else { admitted as f64 / oracle_admitted as f64 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ms: u64, allowed: bool) -> Answer {
        let at = Duration::from_millis(ms);
        Answer { node: 0, sent: at, answered: at, allowed }
    }

    #[test]
    fn admitting_all_of_twice_the_rate_overshoots_by_the_other_half() {
        let mut measure = Measure::new("1000/s".parse().unwrap(), 100, 1);
        for i in 0..2000 {
            measure.take(answer(i / 2, true));
        }
        let verdict = measure.verdict();
        assert!((verdict.overshoot - 901.0).abs() < 2.0, "{verdict:?}");
        assert!((verdict.utilisation - 2000.0 / 1099.0).abs() < 0.01, "{verdict:?}");
    }

    #[test]
    fn a_burst_that_the_bucket_holds_is_no_overshoot() {
        let mut measure = Measure::new("10/s".parse().unwrap(), 100, 1);
        for _ in 0..100 {
            measure.take(answer(5, true));
        }
        assert_eq!(measure.verdict().overshoot, 0.0);
        measure.take(answer(5, true));
        assert_eq!(measure.verdict().overshoot, 1.0);
    }
}
