//! What a run comes to, in numbers, as the design's accuracy page defines them. It must not know how requests were
//! decided.

use serde::{Deserialize, Serialize};
use spillgate_core::limit::Rule;
use spillgate_core::time::{Nanos, Now};

use crate::bucket::Buckets;
use crate::cluster::WALL_AT_START;
use crate::observe::{Decided, Observation, Reason, Request};
use crate::scenario::Scenario;

/// The measures that `[[expect]]` can name, see [`Measures::value`].
pub const NAMES: &[&str] = &["overshoot", "overshoot_percent", "utilisation_percent", "unanswered"];

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Requests that arrived, and the tokens they asked for.
    pub offered: Volume,
    /// Requests that were allowed.
    pub admitted: Volume,
    /// What one central bucket would have admitted of the same arrivals.
    pub central: Volume,
    /// Requests by what became of them, in the order of [`Reason::ALL`].
    pub reasons: Vec<(String, u64)>,
    /// By limit, in the scenario's order.
    pub limits: Vec<LimitMeasures>,
    /// Messages sent, and their bytes.
    pub traffic: Volume,
}

/// A number of things, and how much they come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// How many.
    pub count: u64,
    /// Tokens, or bytes.
    pub sum: u64,
}

impl Volume {
    const fn add(&mut self, amount: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(amount);
    }
}

/// How well one limit was held.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitMeasures {
    /// Its name.
    pub name: String,
    /// The most that one of its keys was admitted beyond it, tokens.
    pub overshoot: f64,
    /// The same as percentage of the key's capacity.
    pub overshoot_percent: f64,
    /// Tokens admitted.
    pub admitted: u64,
    /// Tokens that one central bucket a key would have admitted.
    pub central: u64,
}

impl Measures {
    /// The measure of that name, one of [`NAMES`]; the worst of all limits where they differ.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        let most = |of: fn(&LimitMeasures) -> f64| self.limits.iter().map(of).fold(0.0, f64::max);
        match name {
            "overshoot" => Some(most(|l| l.overshoot)),
            "overshoot_percent" => Some(most(|l| l.overshoot_percent)),
            "utilisation_percent" => Some(self.utilisation() * 100.0),
            "unanswered" => {
                let unanswered = Reason::Unanswered.as_str();
                self.reasons.iter().find(|(r, _)| r == unanswered).map(|(_, count)| *count as f64)
            }
            _ => None,
        }
    }

    /// Tokens admitted over what one central bucket would have; 1 where that is nothing.
    #[must_use]
    pub fn utilisation(&self) -> f64 {
        if self.central.sum == 0 { 1.0 } else { self.admitted.sum as f64 / self.central.sum as f64 }
    }
}

/// How much of one key was admitted beyond its limit, from its admissions alone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Excess {
    /// A virtual queue that gains each charge and drains at the rate; its high-water mark above the burst.
    Bucket { queue: f64, at: Nanos, over: f64 },
    /// What a window admitted, and the one before it; the most above its content.
    Window { number: u64, admitted: u64, over: u64 },
}

impl Excess {
    const fn new(rule: &Rule) -> Self {
        if rule.algorithm().windowed() {
            Self::Window { number: 0, admitted: 0, over: 0 }
        } else {
            Self::Bucket { queue: 0.0, at: Nanos::ZERO, over: 0.0 }
        }
    }

    fn admit(&mut self, rule: &Rule, now: Nanos, tokens: u64) {
        match self {
            Self::Bucket { queue, at, over } => {
                let drained = *queue - rule.rate().per_second() * now.since(*at).as_secs_f64();
                *queue = drained.max(0.0) + tokens as f64;
                *at = now;
                // what whole nanoseconds and doubles can't tell is no overshoot
                let most = *queue - rule.capacity() as f64;
                *over = over.max(if most > 1e-6 { most } else { 0.0 });
            }
            Self::Window { number, admitted, over } => {
                let present = (WALL_AT_START + now.0) / rule.rate().period().0;
                if *number != present {
                    (*number, *admitted) = (present, 0);
                }
                *admitted = admitted.saturating_add(tokens);
                *over = (*over).max(admitted.saturating_sub(rule.capacity()));
            }
        }
    }

    const fn over(&self) -> f64 {
        match self {
            Self::Bucket { over, .. } => *over,
            Self::Window { over, .. } => *over as f64,
        }
    }
}

/// Measures a run as it goes, without keeping its decisions.
#[derive(Debug)]
pub struct Measure<'s> {
    scenario: &'s Scenario,
    measures: Measures,
    reasons: [u64; Reason::ALL.len()],
    /// By limit and key.
    excess: Vec<Vec<Option<Excess>>>,
    central: Buckets,
    /// First attempts that the central bucket has granted while the strategy refused them: when their clients come
    /// back, the central bucket would not have seen them again.
    served: std::collections::BTreeSet<u64>,
}

impl<'s> Measure<'s> {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(scenario: &'s Scenario) -> Self {
        let limit = |l: &crate::scenario::ScenarioLimit| LimitMeasures {
            name: l.name().to_owned(),
            ..LimitMeasures::default()
        };
        let limits: Vec<_> = scenario.limits.iter().map(limit).collect();
        let excess = vec![Vec::new(); limits.len()];
        let measures = Measures { limits, ..Measures::default() };
        let (central, served) = (Buckets::default(), std::collections::BTreeSet::new());
        Self { scenario, measures, reasons: [0; Reason::ALL.len()], excess, central, served }
    }

    /// Takes in what was seen.
    pub fn note(&mut self, seen: &Observation<'_>) {
        match seen {
            Observation::Offered(request) => self.offered(request),
            Observation::Decided(decided) => self.decided(decided),
            Observation::Sent { bytes, .. } => self.measures.traffic.add(*bytes as u64),
            _ => {}
        }
    }

    fn offered(&mut self, request: &Request) {
        self.measures.offered.add(request.cost);
        if request.attempt > 1 && self.served.contains(&request.first) {
            return;
        }
        let rule = self.scenario.rule(request.limit, request.key);
        let now = Now { at: request.at, wall: WALL_AT_START + request.at.0 };
        let verdict = self.central.decide(rule, now, request.limit, request.key, request.cost);
        if verdict.allowed {
            self.measures.central.add(request.cost);
            self.measures.limits[request.limit].central += request.cost;
            if self.scenario.workloads[usize::from(request.workload)].retry.is_some() {
                self.served.insert(request.first);
            }
        }
    }

    fn decided(&mut self, Decided { at, request, verdict }: &Decided) {
        self.reasons[verdict.reason as usize] += 1;
        if !verdict.allowed {
            return;
        }
        self.served.remove(&request.first);
        self.measures.admitted.add(request.cost);
        let rule = self.scenario.rule(request.limit, request.key);
        let limit = &mut self.measures.limits[request.limit];
        limit.admitted += request.cost;
        let keys = &mut self.excess[request.limit];
        if keys.len() <= request.key as usize {
            keys.resize(request.key as usize + 1, None);
        }
        let excess = keys[request.key as usize].get_or_insert_with(|| Excess::new(rule));
        excess.admit(rule, *at, request.cost);
        limit.overshoot = limit.overshoot.max(excess.over());
        limit.overshoot_percent = limit.overshoot_percent.max(100.0 * excess.over() / rule.capacity() as f64);
    }

    /// What it came to.
    #[must_use]
    pub fn finish(mut self) -> Measures {
        let counts = Reason::ALL.iter().zip(self.reasons);
        self.measures.reasons = counts.map(|(reason, count)| (reason.as_str().to_owned(), count)).collect();
        self.measures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillgate_core::limit::{Algorithm, Origin, RuleSpec};

    fn rule(algorithm: Algorithm, burst: Option<u64>) -> Rule {
        let spec = RuleSpec { burst, ..RuleSpec::new(algorithm, "10/s".parse().unwrap()) };
        Rule::new("test", Origin::Configured, spec).unwrap()
    }

    #[test]
    fn a_bucket_is_over_by_what_its_queue_holds_above_the_burst() {
        let rule = rule(Algorithm::TokenBucket, Some(5));
        let mut excess = Excess::new(&rule);
        excess.admit(&rule, Nanos::ZERO, 5);
        assert_eq!(excess.over(), 0.0);
        // two tokens have come back, four are taken
        excess.admit(&rule, Nanos::from_millis(200), 4);
        assert_eq!(excess.over(), 2.0);
        excess.admit(&rule, Nanos::from_secs(10), 5);
        assert_eq!(excess.over(), 2.0);
    }

    #[test]
    fn a_window_is_over_by_what_it_admitted_above_its_content() {
        let rule = rule(Algorithm::FixedWindow, None);
        let mut excess = Excess::new(&rule);
        excess.admit(&rule, Nanos::from_millis(999), 10);
        excess.admit(&rule, Nanos::from_millis(1000), 10);
        assert_eq!(excess.over(), 0.0);
        excess.admit(&rule, Nanos::from_millis(1999), 3);
        assert_eq!(excess.over(), 3.0);
    }
}
