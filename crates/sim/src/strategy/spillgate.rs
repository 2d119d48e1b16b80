//! `bounded`, `strict` and `gossip`: spillgate itself. The real core, driven through the same frames and codec as the
//! daemon drives it, with the daemon's habits of holding answers, pressing for confirmation, joining and leaving. It
//! must not know arithmetic: that is core's.

mod held;
mod joining;
mod replica;

use std::sync::Arc;

use spillgate_core::decision::{Check, Decision, LimitRef};
use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Accuracy, Limits};
use spillgate_core::node::{Attempt, Node, NodeConfig, Told};
use spillgate_core::stability;
use spillgate_core::time::Nanos;
use spillgate_core::view::ReplicaId;

use super::Strategy;
use crate::observe::{Fault, Observation, Reason, Request, Verdict};
use crate::scenario::{Endpoint, KeyIndex, LimitIndex, Scenario, limits_with};
use crate::world::{Message, World};
use held::{Held, Refusals, hold_time, refusal};
use joining::Joining;
use replica::{Post, Replica};

/// Between rounds of news.
const TICK: u64 = 0;
/// The peers are to be asked at once.
const PRESS: u64 = 1;
/// A joining node looks whether it is ready.
const LOOK: u64 = 2;
/// A leaving node looks whether its last word was heard.
const LAST_WORD: u64 = 3;
/// From here on, a held request is tried again: this and its number.
const HELD: u64 = 16;

/// How often a joining or a leaving node looks.
const LOOK_EVERY: Nanos = Nanos::from_millis(5);
/// How long a leaving node waits for its last charges to become common knowledge.
const LAST_WORD_MAX: Nanos = Nanos::from_secs(1);
/// Keys a shard should have; like the daemon, whose table is swept one shard a tick.
const KEYS_PER_SHARD: usize = 256;
const SHARDS_MAX: usize = 256;

/// What nodes tell one another, each with the incarnation of the sender.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    /// A frame of news; then the incarnation that it is for, since a connection ends with the process at its end.
    Frame(u64, u64, Vec<u8>),
    /// A reliable message: state transfer.
    Note(u64, Vec<u8>),
    /// The sender leaves for good.
    Goodbye(u64),
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Spillgate {
    limits: Limits,
    names: Vec<Arc<str>>,
    replicas: Vec<Option<Replica>>,
    watched: Vec<(LimitIndex, KeyIndex)>,
    shards: usize,
    pace: Pace,
    max_keys: usize,
    join_timeout: Nanos,
    /// Frames on their way out; kept for its room.
    post: Post,
}

impl Strategy for Spillgate {
    type Message = Word;

    fn new(name: &'static str, scenario: &Scenario) -> Self {
        let limits = limits_with(&scenario.limits, |limit| match name {
            "strict" => Accuracy::Strict,
            "gossip" => Accuracy::Gossip,
            _ => Accuracy::Bounded { max_overshoot: limit.max_overshoot() },
        });
        let nodes = &scenario.nodes;
        Self {
            limits,
            names: nodes.all.iter().map(|n| n.name.as_str().into()).collect(),
            replicas: nodes.all.iter().map(|_| None).collect(),
            watched: scenario.watched(),
            shards: (scenario.keys.len() / KEYS_PER_SHARD).clamp(1, SHARDS_MAX),
            pace: Pace {
                interval: nodes.gossip_interval,
                stale_after: nodes.stale_after,
                forget_after: nodes.forget_after,
            },
            max_keys: nodes.max_keys,
            join_timeout: nodes.join_timeout,
            post: Post::default(),
        }
    }

    fn arrival(&mut self, world: &mut World<'_, Word>, request: &Request) {
        let wait = world.scenario().workloads.get(usize::from(request.workload)).map_or(Nanos::ZERO, |w| w.wait);
        let decision = self.check(world, request, Attempt::First);
        if decision.allowed || hold_time(&decision, wait) == Nanos::ZERO {
            world.decide(request, verdict(&decision));
            return;
        }
        let start = world.clock(request.node).at;
        let held = Held { request: *request, start, wait, decision, wakes: None };
        self.hold(world, held);
    }

    fn deliver(&mut self, world: &mut World<'_, Word>, from: Endpoint, to: Endpoint, word: &Word) {
        let Some(replica) = &mut self.replicas[to] else { return };
        let (Word::Frame(incarnation, ..) | Word::Note(incarnation, _) | Word::Goodbye(incarnation)) = *word;
        // of a peer nothing is heard before membership calls it up, nor while it calls it dead
        if replica.up[from] != Some(incarnation) {
            if matches!(word, Word::Note(..)) {
                replica.waiting.push((from, word.clone()));
            }
            return;
        }
        match word {
            Word::Frame(_, run, bytes) if *run == world.incarnation(to) => self.frame(world, from, to, bytes),
            Word::Frame(..) => {}
            Word::Note(_, bytes) => self.note(world, from, to, bytes),
            Word::Goodbye(_) => self.part(world, to, from, incarnation),
        }
    }

    fn timer(&mut self, world: &mut World<'_, Word>, node: Endpoint, token: u64) {
        match token {
            TICK => {
                let now = world.clock(node);
                let Some(replica) = &mut self.replicas[node] else { return };
                let passed = now.at.since(std::mem::replace(&mut replica.ticked, now.at));
                if passed > self.pace.stale_after.plus(self.pace.interval) {
                    self.doubt(world, node);
                }
                let Some(replica) = &self.replicas[node] else { return };
                replica.node.tick(now, world.scenario().network.datagram_bytes, &mut self.post);
                self.carry(world, node);
                world.timer(node, self.pace.interval, TICK);
            }
            PRESS => self.press(world, node),
            LOOK => self.look(world, node),
            LAST_WORD => self.last_word(world, node),
            held => self.try_again(world, node, held - HELD),
        }
    }

    fn fault(&mut self, world: &mut World<'_, Word>, fault: Fault) {
        match fault {
            Fault::Up(node) => self.start(world, node),
            Fault::Crashed(node) | Fault::Gone(node) => self.replicas[node] = None,
            Fault::Leaving(node) => {
                let Some(replica) = &mut self.replicas[node] else { return };
                // what it still holds would be charged after its last word
                replica.node.hold(world.clock(node));
                // what was charged before this is told with the next tick, at the latest
                replica.leaving = Some((replica.node.ticks() + 1, world.clock(node).at.plus(LAST_WORD_MAX)));
                self.last_word(world, node);
            }
            Fault::Paused(_) | Fault::Resumed(_) => {}
            Fault::PeerUp { node, peer, incarnation } => self.meet(world, node, peer, incarnation),
            Fault::PeerDead { node, peer, incarnation } => {
                let id = self.id(peer, incarnation);
                if let Some(replica) = &mut self.replicas[node] {
                    replica.up[peer] = None;
                    replica.node.peer_dead(&id, world.clock(node));
                }
            }
            Fault::PeerLeft { node, peer, incarnation } => self.part(world, node, peer, incarnation),
        }
    }

    fn sample(&mut self, world: &mut World<'_, Word>) {
        let at = world.stage().scenario_time();
        let scenario = world.scenario();
        for (node, replica) in self.replicas.iter().enumerate() {
            let Some(replica) = replica else { continue };
            let (outlook, now) = (replica.node.outlook(), world.clock(node).at);
            for (limit, spec) in scenario.limits.iter().enumerate() {
                if let Some(own) = self.limits.find(spec.name()) {
                    let [tokens, later] =
                        [now, now.plus(Nanos::SECOND)].map(|at| stability::bound(own.rule(), &outlook, at));
                    world.observe(&Observation::Bound { at, node, limit, tokens, growth: later - tokens });
                }
            }
            for took in replica.node.take_converged() {
                world.observe(&Observation::Converged { at, node, took });
            }
            let (keys, evictions) = (replica.node.len(), replica.node.evictions());
            world.observe(&Observation::Table { at, node, keys, evictions });
            for (limit, key) in self.watched.iter().copied() {
                let name = LimitRef::Named(scenario.limits[limit].name());
                let explained = replica.node.explain(name, scenario.keys.text(key), world.clock(node));
                let explanation = explained.ok().flatten();
                world.observe(&Observation::Known { at, node, limit, key, explanation: explanation.as_ref() });
            }
        }
    }
}

impl Spillgate {
    /// How many frames `node` has sent to `peer`: what the mutation tests need to forge confirmations.
    #[cfg(test)]
    pub(crate) fn frames_sent(&self, world: &World<'_, Word>, node: Endpoint, peer: Endpoint) -> u64 {
        let Some(replica) = &self.replicas[node] else { return 0 };
        let peers = replica.node.peers(world.clock(node).at);
        peers.iter().find(|p| p.replica.node == self.names[peer]).map_or(0, |p| p.frames_sent)
    }

    fn id(&self, node: Endpoint, incarnation: u64) -> ReplicaId {
        ReplicaId { node: Arc::clone(&self.names[node]), incarnation }
    }

    /// A process starts: it knows nothing, and asks those it meets.
    fn start(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        let clustered = world.nodes() > 1;
        let config = NodeConfig {
            replica: self.id(node, world.incarnation(node)),
            hash_key: [7; 16],
            max_keys: self.max_keys,
            shards_max: self.shards,
            clustered,
            pace: self.pace,
        };
        let core = Node::new(config, self.limits.clone());
        // all nodes have one another for seeds, but for one that is to begin a cluster by itself
        let nodes = &world.scenario().nodes;
        let alone = nodes.initial() <= 1 && nodes.all[node].initial;
        let joining = clustered.then(|| Joining::new(self.join_timeout, alone));
        if clustered {
            core.hold(world.clock(node));
        }
        self.replicas[node] = Some(Replica::new(core, world.nodes(), joining, world.clock(node).at));
        if clustered {
            world.hold_traffic(node);
            world.timer(node, LOOK_EVERY, LOOK);
        }
        let phase = Nanos(world.random().below(self.pace.interval.0));
        world.timer(node, phase, TICK);
    }

    fn check(&mut self, world: &mut World<'_, Word>, request: &Request, attempt: Attempt) -> Decision {
        let scenario = world.scenario();
        let check = Check {
            limit: LimitRef::Named(scenario.limits[request.limit].name()),
            key: scenario.keys.text(request.key),
            cost: request.cost,
            priority: "normal",
        };
        let replica = self.replicas[request.node].as_mut().expect("requests are sent to nodes that run");
        let decision = replica.node.check(&check, world.clock(request.node), attempt);
        let decision = decision.expect("limit, key and cost were checked when the scenario was read");
        replica.schedule_press(world, request.node);
        decision
    }

    fn frame(&mut self, world: &mut World<'_, Word>, from: Endpoint, to: Endpoint, bytes: &[u8]) {
        let Some(replica) = &self.replicas[to] else { return };
        let Some(incarnation) = replica.up[from] else { return };
        let id = self.id(from, incarnation);
        // what a node refuses is counted and dropped by the daemon, too
        let heard = replica.node.handle_frame(&id, bytes, world.clock(to), &mut self.post);
        self.carry(world, to);
        if heard.is_ok_and(|heard| heard.progress) {
            self.progress(world, to);
        }
    }

    fn note(&mut self, world: &mut World<'_, Word>, from: Endpoint, to: Endpoint, bytes: &[u8]) {
        let now = world.clock(to);
        let Some(replica) = &mut self.replicas[to] else { return };
        let peer = (from, replica.up[from].unwrap_or_default());
        let asked = replica.joining.as_ref().is_some_and(|joining| joining.awaits(peer));
        match replica.node.handle_message(bytes, asked, now) {
            Ok(Told::WantsState) => {
                let own = replica.node.replica().incarnation;
                for chunk in replica.node.state_chunks(now) {
                    world.send(to, from, Message::stream(chunk.len(), Word::Note(own, chunk)));
                }
            }
            Ok(Told::State { last, .. }) => {
                if let (Some(joining), true) = (&mut replica.joining, last) {
                    joining.loaded(peer);
                }
            }
            Ok(Told::Unasked) | Err(_) => {}
        }
    }

    /// Sends what the core had to send.
    fn carry(&mut self, world: &mut World<'_, Word>, from: Endpoint) {
        let own = world.incarnation(from);
        for (to, run, bytes) in self.post.take() {
            world.send(from, to, Message::datagram(bytes.len(), Word::Frame(own, run, bytes)));
        }
    }

    fn press(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        let now = world.clock(node);
        let Some(replica) = &mut self.replicas[node] else { return };
        replica.press_due = false;
        if replica.node.press_at().is_some_and(|at| at <= now.at) {
            replica.node.press(now, world.scenario().network.datagram_bytes, &mut self.post);
            self.carry(world, node);
        } else {
            replica.schedule_press(world, node);
        }
    }

    fn meet(&mut self, world: &mut World<'_, Word>, node: Endpoint, peer: Endpoint, incarnation: u64) {
        let id = self.id(peer, incarnation);
        let Some(replica) = &mut self.replicas[node] else { return };
        replica.up[peer] = Some(incarnation);
        replica.node.peer_up(&id, world.clock(node));
        if replica.joining.as_mut().is_some_and(|joining| joining.ask((peer, incarnation))) {
            let (own, request) = (replica.node.replica().incarnation, Node::state_request());
            world.send(node, peer, Message::stream(request.len(), Word::Note(own, request)));
        }
        let (now, later) = std::mem::take(&mut replica.waiting).into_iter().partition(|(from, _)| *from == peer);
        replica.waiting = later;
        let now: Vec<(Endpoint, Word)> = now;
        for (from, word) in now {
            self.deliver(world, from, node, &word);
        }
    }

    /// The process stood still: its peers know better, and are asked.
    fn doubt(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        let Some(replica) = &mut self.replicas[node] else { return };
        let Some(joining) = replica.joining.as_mut().filter(|joining| joining.over) else { return };
        replica.node.doubt();
        joining.doubt();
        let own = replica.node.replica().incarnation;
        let up: Vec<(Endpoint, u64)> =
            replica.up.iter().enumerate().filter_map(|(peer, run)| run.map(|run| (peer, run))).collect();
        for peer in up.into_iter().filter(|peer| joining.ask(*peer)) {
            let request = Node::state_request();
            world.send(node, peer.0, Message::stream(request.len(), Word::Note(own, request)));
        }
    }

    fn part(&mut self, world: &mut World<'_, Word>, node: Endpoint, peer: Endpoint, incarnation: u64) {
        let id = self.id(peer, incarnation);
        let Some(replica) = &mut self.replicas[node] else { return };
        if replica.up[peer] == Some(incarnation) {
            replica.up[peer] = None;
        }
        replica.node.peer_left(&id, world.clock(node));
        self.progress(world, node);
    }

    fn look(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        let now = world.clock(node);
        let Some(replica) = &mut self.replicas[node] else { return };
        let leaving = replica.leaving.is_some();
        let Some(joining) = replica.joining.as_mut().filter(|joining| !joining.over && !leaving) else { return };
        // all that may come are waited for: of several that start at once each finds the others as empty as itself
        let meeting = world.is_meeting(node);
        if !meeting && joining.is_loaded() {
            replica.node.release(now);
        }
        if !replica.node.outlook().admitted {
            if now.at < joining.patience(meeting) {
                world.timer(node, LOOK_EVERY, LOOK);
                return self.progress(world, node);
            }
            replica.node.begin_alone(now);
        }
        joining.over = true;
        world.admit_traffic(node);
        self.progress(world, node);
    }

    /// A leaving node goes once its last charges are common knowledge, or its patience is at an end.
    fn last_word(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        let Some(replica) = &self.replicas[node] else { return };
        let Some((tick, patience)) = replica.leaving else { return };
        if replica.node.outlook().heard < tick && world.clock(node).at < patience {
            return world.timer(node, LOOK_EVERY, LAST_WORD);
        }
        let own = replica.node.replica().incarnation;
        for peer in (0..replica.up.len()).filter(|peer| replica.up[*peer].is_some()) {
            world.send(node, peer, Message::stream(1, Word::Goodbye(own)));
        }
        world.gone(node);
    }
}

/// The answer as it is measured.
fn verdict(decision: &Decision) -> Verdict {
    use spillgate_core::decision::Reason as Core;
    let reason = match decision.reason {
        None => Reason::Granted,
        Some(Core::OverLimit) => Reason::OverLimit,
        Some(Core::Unconfirmed) => Reason::Unconfirmed,
        Some(Core::Partition) => Reason::Partition,
        Some(Core::TooLarge) => Reason::TooLarge,
    };
    let Decision { allowed, delay, retry_after, .. } = *decision;
    Verdict { allowed, reason, delay, retry_after }
}

impl Spillgate {
    /// Keeps a request that may become grantable, and sees to it that it is tried again in time.
    fn hold(&mut self, world: &mut World<'_, Word>, mut held: Held) {
        wake_in_time(world, &mut held);
        if let Some(replica) = &mut self.replicas[held.request.node] {
            replica.held.insert(held);
        }
    }

    fn try_again(&mut self, world: &mut World<'_, Word>, node: Endpoint, id: u64) {
        let Some(mut held) = self.replicas[node].as_mut().and_then(|r| r.held.remove(id)) else { return };
        if self.stays(world, &mut held, &mut Refusals::default())
            && let Some(replica) = &mut self.replicas[node]
        {
            replica.held.insert(held);
        }
    }

    /// Tries a held request again; says whether it is still held, else it is answered.
    ///
    /// What was `refused` at this very instant is not asked for once more: the node would say the same. It costs the
    /// simulator most of its time where many requests wait.
    fn stays(&mut self, world: &mut World<'_, Word>, held: &mut Held, refused: &mut Refusals) -> bool {
        let now = world.clock(held.request.node).at;
        if held.wakes.is_some_and(|at| at <= now) {
            held.wakes = None;
        }
        held.decision = match refused.of(&held.request) {
            Some(decision) => decision,
            None => {
                let decision = self.check(world, &held.request, Attempt::Again(refusal(&held.decision)));
                refused.note(&held.request, decision);
                decision
            }
        };
        if held.decision.allowed || held.left(now) == Nanos::ZERO {
            world.decide(&held.request, verdict(&held.decision));
            return false;
        }
        wake_in_time(world, held);
        true
    }

    /// Something may have become grantable: all that is held is tried again, in the order in which it came.
    fn progress(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        let Some(replica) = self.replicas[node].as_mut().filter(|r| !r.held.is_empty()) else { return };
        let mut all = std::mem::take(&mut replica.held);
        let mut refused = Refusals::default();
        all.retain(|held| self.stays(world, held, &mut refused));
        if let Some(replica) = &mut self.replicas[node] {
            replica.held = all;
        }
    }
}

/// Sets a timer for a held request, where none is that runs out early enough.
fn wake_in_time(world: &mut World<'_, Word>, held: &mut Held) {
    let node = held.request.node;
    let now = world.clock(node).at;
    let wakes = held.wakes_at(now);
    if held.wakes.is_none_or(|at| wakes < at) {
        world.timer(node, wakes.since(now), HELD + held.request.id);
        held.wakes = Some(wakes);
    }
}
