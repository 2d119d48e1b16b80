//! What a run comes to, in numbers, as the design's accuracy page defines them. It must not know how requests were
//! decided.

mod durations;
mod excess;
mod results;
mod stated;
mod timeline;

use std::collections::BTreeSet;

use spillgate_core::time::{Nanos, Now};

pub use durations::{Durations, Spread};
pub use excess::Excess;
pub use results::{KeyClass, LimitMeasures, Measures, NAMES, Volume};
pub use stated::{Stated, Uncovered};
pub use timeline::{Slice, Span, slice_length};

use crate::bucket::Buckets;
use crate::cluster::WALL_AT_START;
use crate::observe::{Decided, Fault, Observation, Reason, Request};
use crate::scenario::{KeyIndex, LimitIndex, Scenario};
use timeline::Spans;

/// One key of one limit.
#[derive(Clone, Copy, Debug)]
struct Account {
    excess: Excess,
    offered: u64,
    admitted: u64,
    central: u64,
    false_refusals: u64,
}

impl Account {
    const EMPTY: Self = Self { excess: Excess::EMPTY, offered: 0, admitted: 0, central: 0, false_refusals: 0 };
}

/// Tokens of one node's requests.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    offered: u64,
    admitted: u64,
    central: u64,
}

/// How many nodes run, and for how long they have.
#[derive(Debug, Default)]
struct Uptime {
    running: u32,
    since: Nanos,
    seconds: f64,
}

impl Uptime {
    fn until(&mut self, at: Nanos) {
        self.seconds += f64::from(self.running) * at.since(self.since).as_secs_f64();
        self.since = at;
    }
}

/// Measures a run as it goes, without keeping its decisions: in room for each key that was asked for.
#[derive(Debug)]
pub struct Measure<'s> {
    scenario: &'s Scenario,
    measures: Measures,
    reasons: [u64; Reason::ALL.len()],
    /// By limit and key.
    accounts: Vec<Vec<Account>>,
    served: Vec<Served>,
    stated: Vec<Stated>,
    central: Buckets,
    convergence: Durations,
    waits: Durations,
    spans: Spans,
    uptime: Uptime,
    slice: Nanos,
    /// First attempts that the central bucket has granted while the strategy refused them: when their clients come
    /// back, the central bucket would not have seen them again.
    granted: BTreeSet<u64>,
}

impl<'s> Measure<'s> {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(scenario: &'s Scenario) -> Self {
        let limit = |l: &crate::scenario::ScenarioLimit| LimitMeasures {
            name: l.name().to_owned(),
            rate: l.own_rule().rate().per_second(),
            capacity: l.own_rule().capacity(),
            ..LimitMeasures::default()
        };
        let limits: Vec<_> = scenario.limits.iter().map(limit).collect();
        Self {
            scenario,
            reasons: [0; Reason::ALL.len()],
            accounts: vec![Vec::new(); limits.len()],
            served: vec![Served::default(); scenario.nodes.all.len()],
            stated: vec![Stated::default(); limits.len()],
            measures: Measures { limits, ..Measures::default() },
            central: Buckets::default(),
            convergence: Durations::default(),
            waits: Durations::default(),
            spans: Spans::default(),
            uptime: Uptime::default(),
            slice: slice_length(scenario),
            granted: BTreeSet::new(),
        }
    }

    /// Takes in what was seen.
    pub fn note(&mut self, seen: &Observation<'_>) {
        match seen {
            Observation::Offered(request) => self.offered(request),
            Observation::Decided(decided) => self.decided(decided),
            Observation::Sent { bytes, .. } => self.measures.traffic.add(*bytes as u64),
            Observation::Converged { took, .. } => self.convergence.add(*took),
            Observation::Bound { at, limit, tokens, growth, .. } => self.bound(*at, *limit, *tokens, *growth),
            Observation::Links { .. } => self.spans.note(self.scenario, seen),
            Observation::Fault { at, fault } => {
                self.spans.note(self.scenario, seen);
                self.uptime.until(*at);
                match fault {
                    Fault::Up(_) => self.uptime.running += 1,
                    Fault::Crashed(_) | Fault::Gone(_) => self.uptime.running = self.uptime.running.saturating_sub(1),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn offered(&mut self, request: &Request) {
        self.measures.offered.add(request.cost);
        self.account(request.limit, request.key).offered += request.cost;
        self.slice(request.limit, request.at).offered += request.cost;
        if let Some(node) = self.served.get_mut(request.node) {
            node.offered += request.cost;
        }
        if request.attempt > 1 && self.granted.contains(&request.first) {
            return;
        }
        let rule = self.scenario.rule(request.limit, request.key);
        let now = Now { at: request.at, wall: WALL_AT_START + request.at.0 };
        let verdict = self.central.decide(rule, now, request.limit, request.key, request.cost);
        if !verdict.allowed {
            return;
        }
        self.measures.central.add(request.cost);
        self.measures.limits[request.limit].central += request.cost;
        self.account(request.limit, request.key).central += request.cost;
        self.slice(request.limit, request.at).central += request.cost;
        if let Some(node) = self.served.get_mut(request.node) {
            node.central += request.cost;
        }
        if self.scenario.workloads[usize::from(request.workload)].retry.is_some() {
            self.granted.insert(request.first);
        }
    }

    fn decided(&mut self, decided: &Decided) {
        let Decided { at, request, verdict } = decided;
        self.reasons[verdict.reason as usize] += 1;
        self.waits.add(decided.waited());
        let rule = self.scenario.rule(request.limit, request.key);
        let account = self.account(request.limit, request.key);
        if !verdict.allowed {
            let blamed = !matches!(verdict.reason, Reason::TooLarge | Reason::Unanswered);
            if blamed && account.excess.level(rule, *at) >= request.cost as f64 {
                account.false_refusals += 1;
                self.measures.false_refusals.add(request.cost);
            }
            return;
        }
        account.admitted += request.cost;
        let over = account.excess.admit(rule, *at, request.cost);
        self.granted.remove(&request.first);
        self.measures.admitted.add(request.cost);
        if let Some(node) = self.served.get_mut(request.node) {
            node.admitted += request.cost;
        }
        self.stated[request.limit].admitted(*at, request.key, over);
        let slice = self.slice(request.limit, *at);
        slice.admitted += request.cost;
        slice.overshoot = slice.overshoot.max(over);
        let limit = &mut self.measures.limits[request.limit];
        limit.admitted += request.cost;
        let second = (at.0 / Nanos::SECOND.0) as usize;
        if limit.by_second.len() <= second {
            limit.by_second.resize(second + 1, 0);
        }
        limit.by_second[second] += request.cost;
        if over > limit.overshoot {
            limit.overshoot = over;
            limit.worst_key = Some(self.scenario.keys.text(request.key).to_owned());
        }
        limit.overshoot_percent = limit.overshoot_percent.max(100.0 * over / rule.capacity() as f64);
    }

    fn bound(&mut self, at: Nanos, limit: LimitIndex, tokens: f64, growth: f64) {
        let uncovered = self.stated[limit].state(at, tokens, growth);
        self.exceeded(limit, uncovered);
        let measured = &mut self.measures.limits[limit];
        measured.bound_max = measured.bound_max.max(tokens);
        let slice = self.slice(limit, at);
        slice.bound = slice.bound.max(tokens);
    }

    fn exceeded(&mut self, limit: LimitIndex, uncovered: Option<Uncovered>) {
        let exceeded = &mut self.measures.limits[limit].bound_exceeded;
        *exceeded = exceeded.max(uncovered.map_or(0.0, |worst| worst.over - worst.stated));
    }

    fn account(&mut self, limit: LimitIndex, key: KeyIndex) -> &mut Account {
        let keys = &mut self.accounts[limit];
        if keys.len() <= key as usize {
            keys.resize(key as usize + 1, Account::EMPTY);
        }
        &mut keys[key as usize]
    }

    fn slice(&mut self, limit: LimitIndex, at: Nanos) -> &mut Slice {
        let place = (at.0 / self.slice.0) as usize;
        let slices = &mut self.measures.limits[limit].slices;
        if slices.len() <= place {
            slices.resize(place + 1, Slice::default());
        }
        &mut slices[place]
    }

    /// What it came to.
    #[must_use]
    pub fn finish(mut self) -> Measures {
        let end = self.scenario.end().since(self.scenario.start());
        self.uptime.until(end);
        for limit in 0..self.stated.len() {
            let uncovered = self.stated[limit].uncovered();
            self.exceeded(limit, uncovered);
            self.classify(limit);
            // plots of one scenario are equally long, whatever was still seen at the end
            let last = Nanos(end.0.saturating_sub(1));
            self.slice(limit, last);
        }
        let counts = Reason::ALL.iter().zip(self.reasons);
        let over = self.accounts.iter().flatten().map(|a| a.admitted.saturating_sub(a.central)).sum();
        let served = |of: fn(&Served) -> u64| {
            let nodes = self.served.iter().filter(|s| s.offered > 0);
            jain(nodes.map(move |s| of(s) as f64 / s.offered as f64))
        };
        Measures {
            reasons: counts.map(|(reason, count)| (reason.as_str().to_owned(), count)).collect(),
            over_admitted: over,
            fairness: served(|s| s.admitted),
            fairness_oracle: served(|s| s.central),
            node_seconds: self.uptime.seconds,
            convergence: self.convergence.spread(),
            waits: self.waits.spread(),
            spans: self.spans.finish(end),
            slice_ms: self.slice.0 as f64 / 1e6,
            ..self.measures
        }
    }

    fn classify(&mut self, limit: LimitIndex) {
        let lasts = self.scenario.duration.as_secs_f64();
        let named = |name: &str| KeyClass { name: name.to_owned(), ..KeyClass::default() };
        let mut classes = [named("below the limit"), named("above the limit")];
        for (key, account) in self.accounts[limit].iter().enumerate().filter(|(_, a)| a.offered > 0) {
            let rate = self.scenario.rule(limit, key as KeyIndex).rate().per_second();
            let class = &mut classes[usize::from(account.offered as f64 >= rate * lasts)];
            class.keys += 1;
            class.keys_over += u64::from(account.excess.worst() > 0.0);
            class.overshoot = class.overshoot.max(account.excess.worst());
            class.offered += account.offered;
            class.admitted += account.admitted;
            class.central += account.central;
            class.false_refusals += account.false_refusals;
        }
        self.measures.limits[limit].classes = classes.into_iter().filter(|c| c.keys > 0).collect();
    }
}

/// Jain's index of fairness: 1 when all are alike, 1/n when one has everything; 1 of nobody or of nothing.
fn jain(parts: impl Iterator<Item = f64>) -> f64 {
    let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for part in parts {
        (n, sum, squares) = (n + 1.0, sum + part, squares + part * part);
    }
    if squares > 0.0 { sum * sum / (n * squares) } else { 1.0 }
}

#[cfg(test)]
mod tests;
