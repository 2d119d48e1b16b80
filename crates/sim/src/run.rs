//! One run, from the first event to the last; and many runs at once. It must not know any strategy, nor what its
//! results are used for.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use spillgate_core::time::Nanos;

use crate::checker::{self, Checker, Violation};
use crate::cluster::Status;
use crate::measure::{Measure, Measures};
use crate::observe::{Fault, Observation, Observer, Reason, Request, Verdict};
use crate::scenario::{Endpoint, Happening, Scenario};
use crate::strategy::{Registered, Strategy};
use crate::trace::TraceHash;
use crate::workload::Sources;
use crate::world::{Event, LEAVE_MAX, PROBE, World};

/// How often a restart looks whether the old process has ended.
const START_AGAIN: Nanos = Nanos::from_millis(20);

/// What came of one run: plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The scenario's name.
    pub scenario: String,
    /// Which question it asks; may be empty.
    #[serde(default)]
    pub question: String,
    /// The strategy's name.
    pub strategy: String,
    /// The seed.
    pub seed: u64,
    /// The trace's hash, in hexadecimal; equal for equal seeds.
    pub hash: String,
    /// How many events the run took, arrivals included.
    pub events: u64,
    /// What was measured.
    pub measures: Measures,
    /// What must not happen and did.
    pub violations: Vec<Violation>,
}

/// Who watches a run, besides its measures.
#[derive(Default)]
pub struct Options<'o> {
    /// What must hold.
    pub checkers: Vec<Box<dyn Checker + 'o>>,
    /// Who else listens.
    pub observers: Vec<Box<dyn Observer + 'o>>,
}

/// Hands on what is seen.
pub(crate) struct Recorder<'s> {
    hash: TraceHash,
    measure: Measure<'s>,
    options: Options<'s>,
    /// From the start of the workload.
    on: bool,
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl<'s> Recorder<'s> {
    pub fn note(&mut self, seen: &Observation<'_>) {
        if !self.on && !matches!(seen, Observation::Fault { .. } | Observation::Links { .. }) {
            return;
        }
        self.hash.note(seen);
        self.measure.note(seen);
        // these are most of all there is to see, and no claim is about them
        let of_interest = match seen {
            Observation::Sent { .. } | Observation::Offered(_) => false,
            Observation::Decided(decided) => decided.verdict.allowed,
            _ => true,
        };
        if of_interest {
            for checker in &mut self.options.checkers {
                checker.observe(seen);
            }
        }
        for observer in &mut self.options.observers {
            observer.observe(seen);
        }
    }
}

/// Runs a strategy through a scenario, or through the one that it draws for the seed, with every checker on.
#[must_use]
pub fn run(scenario: &Scenario, strategy: &Registered, seed: u64) -> RunResult {
    let drawn = scenario.drawn(seed).map(|drawn| drawn.expect("what is drawn can be read, by the swarm's tests"));
    let scenario = drawn.as_ref().unwrap_or(scenario);
    let options = Options { checkers: checker::all(scenario, strategy.name), observers: Vec::new() };
    (strategy.run)(strategy.name, scenario, seed, options)
}

/// One run to be made.
#[derive(Clone, Copy, Debug)]
pub struct Job<'s> {
    /// Of which scenario.
    pub scenario: &'s Scenario,
    /// What decides.
    pub strategy: &'static Registered,
    /// The seed.
    pub seed: u64,
}

impl<'s> Job<'s> {
    /// Every strategy with every seed, strategies within seeds.
    pub fn all(
        scenario: &'s Scenario,
        strategies: &'s [&'static Registered],
        seeds: &'s [u64],
    ) -> impl Iterator<Item = Self> {
        seeds
            .iter()
            .flat_map(move |seed| strategies.iter().map(move |strategy| Job { scenario, strategy, seed: *seed }))
    }
}

/// Runs every strategy with every seed, on so many threads; the results come in that order, strategies within seeds.
/// `done` is called after each run, with how many are done.
pub fn run_all(
    scenario: &Scenario,
    strategies: &[&'static Registered],
    seeds: &[u64],
    threads: usize,
    done: &(dyn Fn(usize) + Sync),
) -> Vec<RunResult> {
    let jobs: Vec<Job<'_>> = Job::all(scenario, strategies, seeds).collect();
    let finished = AtomicUsize::new(0);
    run_jobs(&jobs, threads, &|_| done(finished.fetch_add(1, Relaxed) + 1))
}

/// Makes all of these runs, on so many threads; the results come in the order of the jobs. `done` is called after each
/// with its place among them.
pub fn run_jobs(jobs: &[Job<'_>], threads: usize, done: &(dyn Fn(usize) + Sync)) -> Vec<RunResult> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<RunResult>>> = Mutex::new(vec![None; jobs.len()]);
    let work = || {
        while let Some((place, job)) = {
            let place = next.fetch_add(1, Relaxed);
            jobs.get(place).map(|job| (place, job))
        } {
            let result = run(job.scenario, job.strategy, job.seed);
            results.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(result);
            done(place);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().flatten().collect()
}

/// One run of `S`: what [`Registered::run`] calls.
pub fn run_with<S: Strategy>(name: &'static str, scenario: &Scenario, seed: u64, options: Options<'_>) -> RunResult {
    let recorder = Recorder { hash: TraceHash::default(), measure: Measure::new(scenario), options, on: false };
    let mut run = Run {
        strategy: S::new(name, scenario),
        sources: Sources::new(scenario, seed),
        world: World::new(scenario, seed, recorder),
        events: 0,
    };
    run.begin();
    run.go(name, seed);
    let Run { world, events, .. } = run;
    let World { stage, recorder, .. } = world;
    let Recorder { hash, measure, mut options, .. } = recorder;
    let found = options.checkers.iter_mut().filter_map(|c| c.at_end(&stage).map(|finding| (c.name(), finding)));
    let violations = found.map(|(checker, what)| Violation::new(checker, what, scenario, name, seed)).collect();
    RunResult {
        scenario: scenario.name.clone(),
        question: scenario.question.clone(),
        strategy: name.to_owned(),
        seed,
        hash: format!("{:016x}", hash.value()),
        events,
        measures: measure.finish(),
        violations,
    }
}

struct Run<'s, S: Strategy> {
    strategy: S,
    sources: Sources<'s>,
    world: World<'s, S::Message>,
    events: u64,
}

impl<S: Strategy> Run<'_, S> {
    /// Schedules what is known from the beginning.
    fn begin(&mut self) {
        let scenario = self.world.scenario();
        for (node, spec) in scenario.nodes.all.iter().enumerate() {
            if spec.initial {
                self.world.start_process(node);
            }
        }
        for (place, event) in scenario.events.iter().enumerate() {
            self.world.queue.push(scenario.start().plus(event.at), Event::Scheduled(place));
        }
        self.world.queue.push(scenario.start(), Event::Sample);
        self.world.queue.push(scenario.probe_at(), Event::Probe);
        self.tell_faults();
    }

    fn go(&mut self, name: &'static str, seed: u64) {
        let scenario = self.world.scenario();
        let (start, end) = (scenario.start(), scenario.end());
        let mut began = false;
        loop {
            let arrival = self.sources.peek().map(|(at, source)| (start.plus(at), source));
            let event = self.world.queue.next_at();
            // what happens comes before what is asked in the same instant
            let arrives = arrival.filter(|(at, _)| event.is_none_or(|event| *at < event));
            let Some(at) = arrives.map(|(at, _)| at).or(event).filter(|at| *at <= end) else { break };
            self.world.set_now(at);
            if !began && at >= start {
                began = true;
                self.world.recorder.on = true;
                self.world.observe(&Observation::Began { scenario, strategy: name, seed });
            }
            self.events += 1;
            match arrives {
                Some((_, source)) => {
                    let drawn = self.sources.take(source, &self.world.stage.cluster, &mut self.world.clients);
                    self.arrive(drawn);
                }
                None => {
                    if let Some((_, event)) = self.world.queue.pop() {
                        self.happen(event);
                    }
                }
            }
            self.tell_faults();
        }
        self.world.set_now(end);
        self.world.abandon(None);
        self.strategy.sample(&mut self.world);
    }

    /// Every node that takes requests is asked for one token of every watched key, one after the other.
    fn probe(&mut self) {
        let scenario = self.world.scenario();
        for (limit, key) in scenario.watched() {
            for node in 0..self.world.nodes() {
                let state = &self.world.stage.cluster.nodes[node];
                if !state.serving || state.paused {
                    continue;
                }
                let (id, at) = (self.sources.number(), self.world.stage.scenario_time());
                let request = Request { id, first: id, attempt: 1, workload: PROBE, limit, key, cost: 1, node, at };
                self.world.offer(&request);
                self.strategy.arrival(&mut self.world, &request);
                self.world.offered(&request);
            }
        }
    }

    fn tell_faults(&mut self) {
        while !self.world.faults.is_empty() {
            for fault in std::mem::take(&mut self.world.faults) {
                let at = self.world.stage.scenario_time();
                self.world.observe(&Observation::Fault { at, fault });
                self.strategy.fault(&mut self.world, fault);
            }
        }
    }

    fn arrive(&mut self, drawn: Result<Request, Request>) {
        let (request, taken) = match drawn {
            Ok(request) => (request, true),
            Err(request) => (request, false),
        };
        self.world.offer(&request);
        self.world.observe(&Observation::Offered(&request));
        if !taken {
            self.world.decide(&request, Verdict::denied(Reason::Unanswered));
        } else if self.world.stage.cluster.nodes[request.node].paused {
            self.world.offered(&request);
            self.world.backlog[request.node].push(Event::Retry(request));
        } else {
            self.strategy.arrival(&mut self.world, &request);
            self.world.offered(&request);
        }
    }

    /// The node that has to be awake for an event to happen.
    fn needs(event: &Event<S::Message>) -> Option<Endpoint> {
        match event {
            Event::Deliver(packet) => Some(packet.to),
            Event::Timer { node, .. } | Event::Look(node, _) | Event::Unsuspect(node, _) => Some(*node),
            _ => None,
        }
    }

    fn happen(&mut self, event: Event<S::Message>) {
        if let Some(node) = Self::needs(&event)
            && self.world.stage.cluster.nodes.get(node).is_some_and(|n| n.paused)
        {
            self.world.backlog[node].push(event);
            return;
        }
        let world = &mut self.world;
        match event {
            Event::Deliver(packet) => {
                if world.runs(packet.to) && world.incarnation(packet.to) == packet.incarnation {
                    self.strategy.deliver(world, packet.from, packet.to, &packet.message.body);
                }
            }
            Event::Resend(packet, tries) => world.transmit(packet, tries),
            Event::Timer { node, incarnation, token } => {
                if world.runs(node) && world.incarnation(node) == incarnation {
                    self.strategy.timer(world, node, token);
                }
            }
            Event::Retry(request) => {
                let at = world.stage.scenario_time();
                let drawn = self.sources.again(request, at, &world.stage.cluster, &mut world.clients);
                self.arrive(drawn);
            }
            Event::Scheduled(place) => {
                let what = world.scenario().events[place].what.clone();
                self.scheduled(&what);
            }
            // one that has not gone yet is waited for
            Event::Start(node) if world.stage.cluster.nodes[node].status == Status::Leaving => {
                world.queue.push(world.now().plus(START_AGAIN), Event::Start(node));
            }
            Event::Start(node) => world.start_process(node),
            Event::Resume(node, incarnation) => self.resume(node, incarnation),
            Event::Restore(id) => world.restore_links(Some(id)),
            Event::Unsuspect(node, peer) | Event::Look(node, peer) => world.look(node, peer),
            Event::LeaveOver(node, incarnation) => {
                if world.incarnation(node) == incarnation {
                    world.gone(node);
                }
            }
            Event::Probe => self.probe(),
            Event::Sample => {
                self.strategy.sample(world);
                let next = world.now().plus(world.scenario().sample_every);
                world.queue.push(next, Event::Sample);
            }
        }
    }

    fn scheduled(&mut self, what: &Happening) {
        let world = &mut self.world;
        let now = world.now();
        match what {
            Happening::Start(node) => world.start_process(*node),
            Happening::Leave(node) => self.leave(*node),
            Happening::Restart(node, back) => {
                self.leave(*node);
                self.world.queue.push(now.plus(*back), Event::Start(*node));
            }
            Happening::Crash(node, back) => {
                world.end_process(*node, false);
                if let Some(back) = back {
                    world.queue.push(now.plus(*back), Event::Start(*node));
                }
            }
            Happening::Pause(node, lasts) => {
                let state = &mut world.stage.cluster.nodes[*node];
                if state.runs() && !state.paused {
                    state.paused = true;
                    let incarnation = state.incarnation;
                    world.faults.push(Fault::Paused(*node));
                    world.queue.push(now.plus(*lasts), Event::Resume(*node, incarnation));
                }
            }
            Happening::Clock { node, ppm, jump } => {
                world.stage.cluster.nodes[*node].clock.change(now, *ppm, *jump);
            }
            Happening::Links(change, lasts) => world.change_links(change, *lasts),
            Happening::Heal => world.restore_links(None),
            Happening::Suspect { node, by, lasts } => {
                for one in by.iter().filter(|one| *one != node) {
                    world.suspect(*one, *node, *lasts);
                }
            }
        }
    }

    fn leave(&mut self, node: Endpoint) {
        let world = &mut self.world;
        let state = &mut world.stage.cluster.nodes[node];
        if state.status == Status::Up {
            state.status = Status::Leaving;
            state.serving = false;
            let incarnation = state.incarnation;
            world.faults.push(Fault::Leaving(node));
            world.queue.push(world.now().plus(LEAVE_MAX), Event::LeaveOver(node, incarnation));
        }
    }

    /// A node goes on: what came meanwhile happens now, in the order in which it came.
    fn resume(&mut self, node: Endpoint, incarnation: u64) {
        let state = &mut self.world.stage.cluster.nodes[node];
        if state.incarnation != incarnation || !state.paused {
            return;
        }
        state.paused = false;
        self.world.faults.push(Fault::Resumed(node));
        self.tell_faults();
        let patience = self.world.scenario().nodes.client_timeout;
        let now: Nanos = self.world.stage.scenario_time();
        for event in std::mem::take(&mut self.world.backlog[node]) {
            match event {
                // its client has waited, or has not
                Event::Retry(request) if now.since(request.at) <= patience => self.wake(&request),
                Event::Retry(request) => self.world.decide(&request, Verdict::denied(Reason::Unanswered)),
                event => self.happen(event),
            }
            self.tell_faults();
        }
    }

    fn wake(&mut self, request: &Request) {
        self.strategy.arrival(&mut self.world, request);
    }
}
