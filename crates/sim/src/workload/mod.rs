//! Where requests come from: their moments, nodes, keys and costs, drawn from the scenario. It must not know what
//! becomes of them.

mod course;
mod place;

use spillgate_core::time::Nanos;

use crate::cluster::Cluster;
use crate::observe::Request;
use crate::random::{Purpose, Random, Weighted};
use crate::scenario::{Arrivals, Cost, KeyChoice, NodeChoice, Phases, Scenario, Shape, Workload};
use course::Course;
use place::Place;

/// All requests of a run, in order of time; none is drawn before its time has come.
#[derive(Debug)]
pub struct Sources<'s> {
    scenario: &'s Scenario,
    sources: Vec<Source<'s>>,
    /// Picks nodes for clients that come back, one a workload.
    retries: Vec<Place<'s>>,
    requests: u64,
}

/// One stream of them.
#[derive(Debug)]
struct Source<'s> {
    workload: usize,
    spec: &'s Workload,
    course: Course<'s>,
    /// When the next one comes, since the start of the workload, with the part of a nanosecond that is left over.
    next: Option<(Nanos, f64)>,
    /// The next row of a recorded one.
    row: usize,
    place: Place<'s>,
    popularity: Option<Weighted>,
    random: Random,
}

impl<'s> Sources<'s> {
    /// Of a scenario and a seed.
    #[must_use]
    pub fn new(scenario: &'s Scenario, seed: u64) -> Self {
        let mut sources = Vec::new();
        let mut retries = Vec::new();
        for (workload, spec) in scenario.workloads.iter().enumerate() {
            let mut add = |rate: f64, phase: Option<(usize, usize)>, place: Place<'s>| {
                let number = u32::try_from(sources.len()).unwrap_or(u32::MAX);
                sources.push(Source::new(
                    workload,
                    spec,
                    rate,
                    phase,
                    place,
                    Random::new(seed, Purpose::Workload(number)),
                ));
            };
            match (&spec.nodes, spec.phases) {
                (NodeChoice::Weighted(weights), Phases::PerNode) => {
                    let total: f64 = weights.iter().sum();
                    for (node, weight) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
                        add(spec.rate * weight / total, Some((node, weights.len())), Place::one(node));
                    }
                }
                _ => add(spec.rate, None, Place::new(&spec.nodes, scenario.nodes.all.len())),
            }
            retries.push(Place::new(&spec.nodes, scenario.nodes.all.len()));
        }
        Self { scenario, sources, retries, requests: 0 }
    }

    /// When the next one comes, since the start of the workload, and from which source.
    #[must_use]
    pub fn peek(&self) -> Option<(Nanos, usize)> {
        let mut first: Option<(Nanos, usize)> = None;
        for (place, source) in self.sources.iter().enumerate() {
            if let Some((at, _)) = source.next
                && first.is_none_or(|(earliest, _)| at < earliest)
            {
                first = Some((at, place));
            }
        }
        first
    }

    /// The next request of that source. Where no node takes it, `Err` holds it.
    ///
    /// # Errors
    /// No node takes requests.
    pub fn take(&mut self, source: usize, cluster: &Cluster, clients: &mut Random) -> Result<Request, Request> {
        self.requests += 1;
        let id = self.requests;
        let source = &mut self.sources[source];
        let at = source.next.map_or(Nanos::ZERO, |(at, _)| at);
        let (key, cost) = source.ask();
        let picked = source.place.pick(at, key, &mut source.random);
        let node = source.place.serving(picked, cluster, clients);
        source.advance();
        let request = Request {
            id,
            first: id,
            attempt: 1,
            workload: source.workload as u16,
            limit: source.spec.limit,
            key,
            cost,
            node: node.unwrap_or(picked),
            at,
        };
        if node.is_some() { Ok(request) } else { Err(request) }
    }

    /// A client comes back with its request.
    ///
    /// # Errors
    /// No node takes requests.
    pub fn again(
        &mut self,
        request: Request,
        at: Nanos,
        cluster: &Cluster,
        clients: &mut Random,
    ) -> Result<Request, Request> {
        self.requests += 1;
        let workload = usize::from(request.workload);
        let place = &mut self.retries[workload];
        let picked = match self.scenario.workloads[workload].phases {
            Phases::Together => place.pick(at, request.key, clients),
            Phases::PerNode => request.node,
        };
        let node = place.serving(picked, cluster, clients);
        let request = Request { id: self.requests, at, node: node.unwrap_or(picked), ..request };
        if node.is_some() { Ok(request) } else { Err(request) }
    }

    /// A number for a request that belongs to no workload.
    pub(crate) const fn number(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }
}

impl<'s> Source<'s> {
    fn new(
        workload: usize,
        spec: &'s Workload,
        rate: f64,
        of: Option<(usize, usize)>,
        place: Place<'s>,
        mut random: Random,
    ) -> Self {
        let phase = of.map_or(0.0, |(node, nodes)| node as f64 / nodes as f64);
        let course = Course::new(&spec.shape, rate, phase, &mut random);
        let KeyChoice { count, skew, .. } = spec.keys;
        let popularity = (count > 1 && skew > 0.0).then(|| Weighted::zipf(count as usize, skew));
        let mut source =
            Self { workload, spec, course, next: Some((spec.span.0, 0.0)), row: 0, place, popularity, random };
        if let Shape::Trace(rows) = &spec.shape {
            source.row = rows.partition_point(|row| row.at < spec.span.0);
            source.next = rows.get(source.row).map(|row| (row.at, 0.0));
            source.end();
        } else {
            while source.course.until <= spec.span.0 {
                source.course.advance(&mut source.random);
            }
            // evenly spaced ones do not all begin at once
            let first = match spec.arrivals {
                Arrivals::Poisson => source.random.exponential(),
                Arrivals::Constant => source.random.unit(),
            };
            source.go(first);
        }
        source
    }

    /// What is asked for.
    fn ask(&mut self) -> (u32, u64) {
        if let Shape::Trace(rows) = &self.spec.shape {
            return rows.get(self.row).map_or((0, 1), |row| (row.key, row.cost));
        }
        let KeyChoice { first, count, .. } = self.spec.keys;
        let rank = match &self.popularity {
            Some(popularity) => popularity.pick(&mut self.random) as u32,
            None if count > 1 => self.random.below(u64::from(count)) as u32,
            None => 0,
        };
        let cost = match &self.spec.cost {
            Cost::OneOf(costs) if costs.len() == 1 => costs[0],
            Cost::OneOf(costs) => costs[self.random.below(costs.len() as u64) as usize],
            Cost::Between(least, most) => self.random.between(*least, *most),
        };
        (first + rank, cost)
    }

    fn advance(&mut self) {
        if let Shape::Trace(rows) = &self.spec.shape {
            self.row += 1;
            self.next = rows.get(self.row).map(|row| (row.at, 0.0));
            return self.end();
        }
        let step = match self.spec.arrivals {
            Arrivals::Poisson => self.random.exponential(),
            Arrivals::Constant => 1.0,
        };
        self.go(step);
    }

    /// Goes on until the rate has summed up to `requests` more.
    fn go(&mut self, mut requests: f64) {
        let Some((mut at, mut rest)) = self.next else { return };
        loop {
            if at >= self.spec.span.1 {
                self.next = None;
                return;
            }
            let room = (self.course.until.since(at).0 as f64 - rest) / 1e9 * self.course.rate;
            if requests <= room && self.course.rate > 0.0 {
                let passed = requests / self.course.rate * 1e9 + rest;
                let whole = passed.floor();
                at = at.plus(Nanos(whole as u64));
                rest = passed - whole;
                break;
            }
            requests -= room.max(0.0);
            (at, rest) = (self.course.until, 0.0);
            if self.course.until < self.spec.span.1 {
                self.course.advance(&mut self.random);
            }
        }
        self.next = Some((at, rest));
        self.end();
    }

    /// Nothing comes after the end of the span.
    fn end(&mut self) {
        self.next = self.next.filter(|(at, _)| *at < self.spec.span.1);
    }
}
