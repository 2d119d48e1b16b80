//! A real run in the simulator: the same requests at the same moments, and the same measuring. It must not know how the
//! real run was made.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::time::Duration;

use spillgate_core::time::Nanos;
use spillgate_sim::measure::{Measure, Measures};
use spillgate_sim::observe::{Decided, Observation, Reason, Request, Verdict};
use spillgate_sim::run::run;
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy;

use super::arrivals::Answered;

/// What chance alone does to a prediction is seen by predicting so often.
const SEEDS: u64 = 8;

/// The scenario that a real run was.
pub struct Twin {
    scenario: Scenario,
    answers: Vec<Answered>,
}

fn nanos(time: Duration) -> Nanos {
    Nanos(u64::try_from(time.as_nanos()).unwrap())
}

impl Twin {
    /// `cluster` is the scenario but for its duration and its requests, which are those that were `answered`.
    pub fn new(cluster: &str, mut answers: Vec<Answered>) -> Self {
        answers.sort_by_key(|a| a.sent);
        let last = answers.last().expect("somebody asked").sent;
        let mut rows: BTreeMap<String, String> = BTreeMap::new();
        let mut text = format!("duration = '{}ns'\n{cluster}\n", last.as_nanos() + 1);
        // one for each node, asked or not, so that places of workloads are those of nodes
        for node in 0..=answers.iter().map(|a| a.node).max().unwrap_or(0) {
            let mut csv = String::new();
            for Answered { sent, cost, .. } in answers.iter().filter(|a| a.node == node) {
                writeln!(csv, "{}.{:09},k,{cost}", sent.as_secs(), sent.subsec_nanos()).unwrap();
            }
            let n = node + 1;
            writeln!(text, "[[workload]]\nnodes = 'n{n}'\ntrace = 'n{n}.csv'").unwrap();
            rows.insert(format!("n{n}.csv"), csv);
        }
        let read = |path: &std::path::Path| rows.get(path.to_str().unwrap()).cloned().ok_or_else(String::new);
        let scenario = Scenario::parse("twin", &text, &read).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        Self { scenario, answers }
    }

    /// What really happened, measured as the simulator measures.
    fn measured(&self) -> Measures {
        let requests = self.answers.iter().zip(1..).map(|(a, id)| Request {
            id,
            first: id,
            attempt: 1,
            workload: u16::try_from(a.node).unwrap(),
            limit: 0,
            key: 0,
            cost: a.cost,
            node: a.node,
            at: nanos(a.sent),
        });
        let requests: Vec<Request> = requests.collect();
        let mut happened: Vec<(Nanos, usize, bool)> = Vec::new();
        for (place, answer) in self.answers.iter().enumerate() {
            happened.extend([(nanos(answer.sent), place, false), (nanos(answer.answered), place, true)]);
        }
        happened.sort_by_key(|(at, place, answered)| (*at, *answered, *place));
        let mut measure = Measure::new(&self.scenario);
        for (at, place, answered) in happened {
            let request = requests[place];
            if answered {
                let reason = self.answers[place].reason;
                let granted = reason == Reason::Granted;
                let verdict = if granted { Verdict::ALLOWED } else { Verdict::denied(reason) };
                measure.note(&Observation::Decided(&Decided { at, request, verdict }));
            } else {
                measure.note(&Observation::Offered(&request));
            }
        }
        measure.finish()
    }

    /// Reality beside what the simulator says, phase by phase.
    pub fn compare(&self, strategy: &str, phases: &[f64]) -> Comparison {
        Comparison { real: self.measured(), predicted: self.predicted(strategy), phases: phases.to_vec() }
    }

    /// What the simulator says should have happened, once for each of some seeds.
    fn predicted(&self, strategy: &str) -> Vec<Measures> {
        let strategy = strategy::find(strategy).unwrap();
        (1..=SEEDS).map(|seed| run(&self.scenario, strategy, seed).measures).collect()
    }

    /// The most that any answer that granted something was later than its way allows, seconds.
    pub fn late(&self, way: impl Fn(&Answered) -> Duration) -> f64 {
        let granted = self.answers.iter().filter(|a| a.reason == Reason::Granted);
        let late = granted.map(|a| (a.answered - a.sent).saturating_sub(way(a)));
        late.max().unwrap_or_default().as_secs_f64()
    }
}

/// How far a real run may be from what was predicted, and still agree.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Tokens.
    pub overshoot: f64,
    /// Points: per cent of what one central bucket would have admitted in the whole run; so much for each phase, too.
    pub utilisation: f64,
    /// Points: per cent of the requests, refused for each reason.
    pub refused: f64,
}

/// A real run beside its predictions.
pub struct Comparison {
    pub real: Measures,
    pub predicted: Vec<Measures>,
    /// When phases of the run end, seconds; each is compared for itself.
    pub phases: Vec<f64>,
}

impl Comparison {
    /// The most overshoot that was predicted.
    pub fn overshoot_max(&self) -> f64 {
        self.predicted.iter().map(|m| figure(m, "overshoot")).fold(0.0, f64::max)
    }

    /// Everything compared: what it is, reality, the least and the most that were predicted, the tolerance.
    fn rows(&self, tolerance: &Tolerance) -> Vec<(String, f64, f64, f64, f64)> {
        let mut rows = Vec::new();
        let mut row = |name: String, tolerance: f64, of: &dyn Fn(&Measures) -> f64| {
            let all = || self.predicted.iter().map(of);
            rows.push((
                name,
                of(&self.real),
                all().fold(f64::MAX, f64::min),
                all().fold(f64::MIN, f64::max),
                tolerance,
            ));
        };
        row("overshoot, tokens".into(), tolerance.overshoot, &|m| figure(m, "overshoot"));
        row("utilisation, %".into(), tolerance.utilisation, &|m| figure(m, "utilisation_percent"));
        for reason in [Reason::OverLimit, Reason::Unconfirmed, Reason::Partition, Reason::Unreachable] {
            let part = move |m: &Measures| 100.0 * figure(m, reason.as_str()) / m.offered.count as f64;
            row(format!("{}, % of requests", reason.as_str()), tolerance.refused, &part);
        }
        for (n, until) in self.phases.iter().enumerate() {
            let span = n.checked_sub(1).map_or(0.0, |before| self.phases[before])..*until;
            let name = format!("of which from {} to {} s", span.start, span.end);
            row(name, tolerance.utilisation, &|m| utilisation(m, &span));
        }
        rows
    }

    /// What is not as predicted, in words; none: they agree.
    pub fn disagreements(&self, tolerance: &Tolerance) -> Vec<String> {
        let rows = self.rows(tolerance).into_iter();
        let wrong = rows.filter(|(_, real, least, most, by)| *real < least - by || *real > most + by);
        let told = |(name, real, least, most, by): (String, f64, f64, f64, f64)| {
            format!("{name}: {real:.2}, predicted {least:.2} to {most:.2}, tolerance {by:.2}")
        };
        wrong.map(told).collect()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = Tolerance { overshoot: 0.0, utilisation: 0.0, refused: 0.0 };
        self.rows(&none).iter().try_for_each(|(name, real, least, most, _)| {
            writeln!(f, "  {name}: {real:.2}, predicted {least:.2} to {most:.2}")
        })
    }
}

/// A measure by its name in scenario files.
pub fn figure(measures: &Measures, name: &str) -> f64 {
    measures.value(name).unwrap_or_else(|| panic!("no measure {name}"))
}

/// Admitted in a part of the run, of what one central bucket would have in all of it, per cent.
fn utilisation(measures: &Measures, span: &Range<f64>) -> f64 {
    let slice = measures.slice_ms / 1000.0;
    let within = measures.limits[0].slices.iter().zip(0..).filter(|(_, n)| span.contains(&(f64::from(*n) * slice)));
    100.0 * within.map(|(s, _)| s.admitted as f64).sum::<f64>() / measures.central.sum as f64
}
