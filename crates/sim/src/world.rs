//! What a strategy may do and see: clocks, messages, timers, randomness, answers. It must not know any strategy.

use spillgate_core::limit::Rule;
use spillgate_core::time::{Nanos, Now};

use crate::cluster::{Cluster, News, Status};
use crate::event::Queue;
use crate::network::{Journey, Links};
use crate::observe::{Channel, Decided, Fate, Fault, Observation, Reason, Request, Verdict};
use crate::open::Open;
use crate::random::{Purpose, Random};
use crate::run::Recorder;
use crate::scenario::{Endpoint, LinkChange, Scenario};

/// How long a node that is told to stop may take.
pub(crate) const LEAVE_MAX: Nanos = Nanos::from_secs(5);

/// Something one endpoint tells another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<M> {
    /// How it travels.
    pub channel: Channel,
    /// How long it would be on the wire, in bytes: what is counted, and what a bandwidth is used up by.
    pub bytes: usize,
    /// What it says.
    pub body: M,
}

impl<M> Message<M> {
    /// One that may be lost.
    pub const fn datagram(bytes: usize, body: M) -> Self {
        Self { channel: Channel::Datagram, bytes, body }
    }

    /// One of a stream: in order, and sent again when it is lost.
    pub const fn stream(bytes: usize, body: M) -> Self {
        Self { channel: Channel::Stream, bytes, body }
    }
}

/// A message under way.
#[derive(Clone, Debug)]
pub(crate) struct Packet<M> {
    pub from: Endpoint,
    pub to: Endpoint,
    /// Which run of the receiver it is for.
    pub incarnation: u64,
    pub message: Message<M>,
}

/// What is to happen.
#[derive(Debug)]
pub(crate) enum Event<M> {
    Deliver(Packet<M>),
    Resend(Packet<M>, u32),
    Timer {
        node: Endpoint,
        incarnation: u64,
        token: u64,
    },
    Retry(Request),
    /// The next of the scenario's events.
    Scheduled(usize),
    Start(Endpoint),
    Resume(Endpoint, u64),
    Restore(u64),
    Unsuspect(Endpoint, Endpoint),
    LeaveOver(Endpoint, u64),
    Look(Endpoint, Endpoint),
    Sample,
    Probe,
}

/// A run's state apart from what the strategy itself keeps.
#[derive(Debug)]
pub struct Stage<'s> {
    /// What is run.
    pub scenario: &'s Scenario,
    /// The nodes.
    pub cluster: Cluster,
    /// The links.
    pub links: Links,
    now: Nanos,
}

impl<'s> Stage<'s> {
    /// Before anything has happened.
    #[must_use]
    pub(crate) fn new(scenario: &'s Scenario, seed: u64) -> Self {
        let cluster = Cluster::new(scenario, Random::new(seed, Purpose::Membership));
        Self { scenario, cluster, links: Links::new(scenario, seed), now: Nanos::ZERO }
    }

    /// The run's own clock, from the beginning of the warm-up.
    #[must_use]
    pub const fn now(&self) -> Nanos {
        self.now
    }

    /// Time since the start of the workload, as observations have it; zero before.
    #[must_use]
    pub const fn scenario_time(&self) -> Nanos {
        self.now.since(self.scenario.start())
    }
}

/// All that a strategy may do, and all that it may see. `M` is what its messages say.
#[derive(Debug)]
pub struct World<'s, M> {
    pub(crate) stage: Stage<'s>,
    pub(crate) queue: Queue<Event<M>>,
    pub(crate) recorder: Recorder<'s>,
    random: Random,
    pub(crate) clients: Random,
    /// Requests that wait for their answers. The one being offered now is `arriving`.
    open: Open,
    arriving: Option<u64>,
    changes: u64,
    /// What each node is to get when it goes on.
    pub(crate) backlog: Vec<Vec<Event<M>>>,
    /// What has to be told to the strategy.
    pub(crate) faults: Vec<Fault>,
}

impl<'s, M: Clone> World<'s, M> {
    pub(crate) fn new(scenario: &'s Scenario, seed: u64, recorder: Recorder<'s>) -> Self {
        let stage = Stage::new(scenario, seed);
        let backlog = (0..stage.cluster.len()).map(|_| Vec::new()).collect();
        Self {
            stage,
            queue: Queue::default(),
            recorder,
            random: Random::new(seed, Purpose::Strategy),
            clients: Random::new(seed, Purpose::Clients),
            open: Open::default(),
            arriving: None,
            changes: 0,
            backlog,
            faults: Vec::new(),
        }
    }

    /// What is run.
    #[must_use]
    pub const fn scenario(&self) -> &'s Scenario {
        self.stage.scenario
    }

    /// The state that is not the strategy's.
    #[must_use]
    pub const fn stage(&self) -> &Stage<'s> {
        &self.stage
    }

    /// The run's own clock, which no node can read: from the beginning of the warm-up.
    #[must_use]
    pub const fn now(&self) -> Nanos {
        self.stage.now
    }

    pub(crate) const fn set_now(&mut self, now: Nanos) {
        self.stage.now = now;
    }

    /// The present by an endpoint's own clocks; the store's are right.
    #[must_use]
    pub fn clock(&self, endpoint: Endpoint) -> Now {
        match self.stage.cluster.nodes.get(endpoint) {
            Some(node) => node.clock.present(self.now()),
            None => {
                let wall = crate::cluster::WALL_AT_START + self.now().0;
                Now { at: self.now(), wall: wall - self.scenario().start().0 }
            }
        }
    }

    /// How many nodes there are, running or not; their numbers are below this.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.stage.cluster.len()
    }

    /// The endpoint of the central store, which always runs.
    #[must_use]
    pub fn store(&self) -> Endpoint {
        self.stage.cluster.len()
    }

    /// Whether a process runs there.
    #[must_use]
    pub fn runs(&self, endpoint: Endpoint) -> bool {
        self.stage.cluster.nodes.get(endpoint).is_none_or(super::cluster::NodeState::runs)
    }

    /// Which run of the node this is, from 1; 0 for the store.
    #[must_use]
    pub fn incarnation(&self, endpoint: Endpoint) -> u64 {
        self.stage.cluster.nodes.get(endpoint).map_or(0, |n| n.incarnation)
    }

    /// The rule that a request meets, under the accuracy that the scenario names (`bounded`).
    #[must_use]
    pub fn rule(&self, request: &Request) -> &'s Rule {
        self.stage.scenario.rule(request.limit, request.key)
    }

    /// Random numbers for the strategy.
    pub const fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Sends a message. What becomes of it is the network's to say; the sender is not told.
    pub fn send(&mut self, from: Endpoint, to: Endpoint, message: Message<M>) {
        let incarnation = self.incarnation(to);
        self.transmit(Packet { from, to, incarnation, message }, 0);
    }

    pub(crate) fn transmit(&mut self, packet: Packet<M>, tries: u32) {
        let Packet { from, to, incarnation, .. } = packet;
        let (channel, bytes) = (packet.message.channel, packet.message.bytes);
        let journey = if self.runs(to) && self.incarnation(to) == incarnation {
            self.stage.links.carry(self.stage.now, (from, to), channel, bytes, tries)
        } else {
            Journey { fate: Fate::NoReceiver, arrives: None, again: None, resend: None }
        };
        let at = self.stage.scenario_time();
        self.observe(&Observation::Sent { at, from, to, channel, bytes, fate: journey.fate });
        if let Some(again) = journey.again {
            self.queue.push(again, Event::Deliver(packet.clone()));
        }
        if let Some(arrives) = journey.arrives {
            self.queue.push(arrives, Event::Deliver(packet));
        } else if let Some(resend) = journey.resend {
            self.queue.push(resend, Event::Resend(packet, tries + 1));
        }
    }

    /// Has [`crate::strategy::Strategy::timer`] called with `token` once so much has passed on the endpoint's own
    /// clock, unless its process ends before.
    pub fn timer(&mut self, endpoint: Endpoint, after: Nanos, token: u64) {
        let really = match self.stage.cluster.nodes.get(endpoint) {
            Some(node) => node.clock.really(after),
            None => after,
        };
        let incarnation = self.incarnation(endpoint);
        self.queue.push(self.now().plus(really), Event::Timer { node: endpoint, incarnation, token });
    }

    /// Answers a request: now, whether it arrived just now or has been held. One that has been answered already, or
    /// whose node is gone, is answered no more.
    pub fn decide(&mut self, request: &Request, verdict: Verdict) {
        if self.arriving == Some(request.id) {
            self.arriving = None;
        } else if !self.open.remove(request.id) {
            return;
        }
        let decided = Decided { at: self.stage.scenario_time(), request: *request, verdict };
        if request.workload == PROBE {
            self.observe(&Observation::Probed(&decided));
            return;
        }
        self.observe(&Observation::Decided(&decided));
        if !verdict.allowed {
            self.refused(&decided);
        }
    }

    /// A refused client may come back.
    fn refused(&mut self, decided: &Decided) {
        let request = decided.request;
        let scenario = self.stage.scenario;
        let Some(retry) = scenario.workloads[usize::from(request.workload)].retry else { return };
        if request.attempt >= retry.attempts || decided.verdict.reason == Reason::TooLarge {
            return;
        }
        let grown = (1..request.attempt).fold(retry.after.0 as f64, |wait, _| wait * retry.backoff);
        let drawn = grown * (1.0 + retry.jitter * (2.0 * self.clients.unit() - 1.0));
        let mut wait = Nanos(drawn as u64).max(Nanos(1));
        if retry.heed {
            wait = wait.max(decided.verdict.retry_after);
        }
        let at = self.stage.now.plus(wait);
        // after the workload is over nobody comes back
        if at < scenario.start().plus(scenario.duration) {
            self.queue.push(at, Event::Retry(Request { attempt: request.attempt + 1, ..request }));
        }
    }

    /// A request is offered: it is open until it is answered.
    pub(crate) fn offer(&mut self, request: &Request) {
        self.arriving = Some(request.id);
    }

    /// The strategy has seen the request that was offered.
    pub(crate) fn offered(&mut self, request: &Request) {
        if self.arriving.take().is_some() {
            self.open.insert(*request);
        }
    }

    /// How many requests wait for their answers.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Nobody answers what is open at that node (at any, where none is named) any more.
    pub(crate) fn abandon(&mut self, node: Option<Endpoint>) {
        let lost: Vec<Request> = self.open.iter().filter(|r| node.is_none_or(|n| r.node == n)).copied().collect();
        for request in lost {
            self.decide(&request, Verdict::denied(Reason::Unanswered));
        }
    }

    /// A node that has just started takes no requests until [`World::admit_traffic`].
    pub fn hold_traffic(&mut self, node: Endpoint) {
        self.stage.cluster.nodes[node].serving = false;
    }

    /// A node is ready: from now on it is sent requests.
    pub fn admit_traffic(&mut self, node: Endpoint) {
        let state = &mut self.stage.cluster.nodes[node];
        state.serving = state.status == Status::Up;
    }

    /// A node that is [leaving](Fault::Leaving) has said its last word: its process ends.
    pub fn gone(&mut self, node: Endpoint) {
        if self.stage.cluster.nodes[node].status == Status::Leaving {
            self.end_process(node, true);
        }
    }

    /// Whether somebody may be about to come up there: membership knows of a node, or will, that it has not told of yet.
    #[must_use]
    pub fn is_meeting(&self, node: Endpoint) -> bool {
        self.stage.cluster.is_meeting(node)
    }

    /// Reports something that only the strategy can see: bounds, convergence, what nodes know.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        self.recorder.note(seen);
    }

    pub(crate) fn start_process(&mut self, node: Endpoint) {
        if self.stage.cluster.nodes[node].runs() {
            return;
        }
        self.stage.cluster.start(node, self.stage.now);
        self.faults.push(Fault::Up(node));
        self.membership_changed(Some(node));
    }

    pub(crate) fn end_process(&mut self, node: Endpoint, left: bool) {
        if !self.stage.cluster.nodes[node].runs() {
            return;
        }
        self.stage.cluster.stop(node, left);
        self.backlog[node].clear();
        self.abandon(Some(node));
        self.faults.push(if left { Fault::Gone(node) } else { Fault::Crashed(node) });
        self.membership_changed(Some(node));
    }

    /// Nodes or links have changed: membership will notice.
    fn membership_changed(&mut self, of: Option<Endpoint>) {
        self.stage.cluster.connect(&self.stage.links);
        for (node, peer, after) in self.stage.cluster.looks(of, &self.stage.links) {
            self.queue.push(self.stage.now.plus(after), Event::Look(node, peer));
        }
    }

    pub(crate) fn look(&mut self, node: Endpoint, peer: Endpoint) {
        let Some(news) = self.stage.cluster.look(node, peer, &self.stage.links) else { return };
        self.hear(node, peer, news);
        // one that took another's place is told of next
        if let Some(next) = self.stage.cluster.look(node, peer, &self.stage.links).filter(|n| matches!(n, News::Up(_)))
        {
            self.hear(node, peer, next);
        }
    }

    fn hear(&mut self, node: Endpoint, peer: Endpoint, news: News) {
        self.faults.push(match news {
            News::Up(incarnation) => Fault::PeerUp { node, peer, incarnation },
            News::Dead(incarnation) => Fault::PeerDead { node, peer, incarnation },
            News::Left(incarnation) => Fault::PeerLeft { node, peer, incarnation },
        });
    }

    pub(crate) fn suspect(&mut self, node: Endpoint, peer: Endpoint, lasts: Nanos) {
        if self.runs(node)
            && let Some(news) = self.stage.cluster.suspect(node, peer)
        {
            self.hear(node, peer, news);
            self.queue.push(self.stage.now.plus(lasts), Event::Unsuspect(node, peer));
        }
    }

    pub(crate) fn change_links(&mut self, change: &LinkChange, lasts: Option<Nanos>) {
        self.changes += 1;
        let id = self.changes;
        let at = self.stage.scenario_time();
        self.observe(&Observation::Links { at, label: &change.label, over: false });
        let until = lasts.map_or(Nanos::MAX, |lasts| self.stage.now.plus(lasts));
        self.stage.links.change(id, change.clone(), until);
        if lasts.is_some() {
            self.queue.push(until, Event::Restore(id));
        }
        self.membership_changed(None);
    }

    pub(crate) fn restore_links(&mut self, id: Option<u64>) {
        let labels = match id {
            Some(id) => self.stage.links.restore(id).into_iter().collect(),
            None => self.stage.links.heal(),
        };
        let at = self.stage.scenario_time();
        for label in &labels {
            self.observe(&Observation::Links { at, label, over: true });
        }
        if !labels.is_empty() {
            self.membership_changed(None);
        }
    }
}

/// The workload of requests that belong to none.
pub(crate) const PROBE: u16 = u16::MAX;
