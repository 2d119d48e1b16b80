//! What the checkers stand on: since when a cluster is whole and undisturbed, and whether anything happened under which
//! no promise holds. It must not know what is checked.
//!
//! **Where promises end.** The design names what no protocol can promise, and each of these is seen here:
//! - a peer silent for `forget_after` is taken for lost: if it still runs, the sides of a partition then each have all;
//! - a process that starts where it can reach nobody begins alone with a full bucket, after `join_timeout`;
//! - a node without room for all keys forgets some that held information;
//! - when no process is left but those that have only just started, what was charged is nowhere.

use std::collections::{BTreeMap, BTreeSet};

use spillgate_core::limit::Rule;
use spillgate_core::time::Nanos;

use crate::observe::{Fault, Observation};
use crate::scenario::{Endpoint, Happening, KeyIndex, Latency, LimitIndex, Profile, Scenario};

/// Rounds of news within which all nodes are to agree once it is quiet: a charge waits for the next round, its
/// confirmation and the news of that for one each, a lost one is noticed after three more and told again; this is several
/// times as much.
pub(super) const AGREE_TICKS: u64 = 50;
/// Updates that surely fit into a round.
const KEYS_A_TICK: u64 = 20;
/// A process takes at most so long to hear of its peers and to take over what they know.
const JOIN_MAX: Nanos = Nanos::SECOND;
/// With more loss than this, no time is stated.
const LOSS_MAX: f64 = 0.5;

/// The state of the cluster as far as promises depend on it.
#[derive(Debug)]
pub(super) struct Ground<'s> {
    pub scenario: &'s Scenario,
    /// The last fault, change of links, or charge.
    disturbed: Nanos,
    /// Changes of links that are not over, nodes that stand still, live peers that are called dead.
    troubles: usize,
    /// Since when there is any.
    since: Nanos,
    running: BTreeSet<Endpoint>,
    called_dead: BTreeSet<(Endpoint, Endpoint)>,
    /// Processes that were started.
    pub started: u64,
    /// Processes that crashed, or left unheard.
    pub crashed: u64,
    /// Nodes without room for all keys: what one evicted and learns again it may count twice, against the caller.
    pub evicting: BTreeSet<Endpoint>,
    /// When each process was started that runs.
    started_at: BTreeMap<Endpoint, Nanos>,
    /// Whether any membership called a peer dead.
    pub any_dead: bool,
    void: bool,
}

impl<'s> Ground<'s> {
    pub fn new(scenario: &'s Scenario) -> Self {
        Self {
            scenario,
            disturbed: Nanos::ZERO,
            troubles: 0,
            since: Nanos::ZERO,
            running: BTreeSet::new(),
            called_dead: BTreeSet::new(),
            started: 0,
            crashed: 0,
            evicting: BTreeSet::new(),
            started_at: BTreeMap::new(),
            any_dead: false,
            void: false,
        }
    }

    pub fn note(&mut self, seen: &Observation<'_>) {
        match seen {
            Observation::Decided(d) | Observation::Probed(d) if d.verdict.allowed => self.disturbed = d.at,
            Observation::Links { at, over, .. } => self.trouble(*at, !over),
            Observation::Fault { at, fault } => self.fault(*at, *fault),
            Observation::Table { node, evictions, .. } if *evictions > 0 => {
                self.evicting.insert(*node);
            }
            _ => {}
        }
    }

    fn fault(&mut self, at: Nanos, fault: Fault) {
        self.disturbed = at;
        match fault {
            Fault::Up(node) => {
                self.started += 1;
                // before the workload all start at once
                self.void |= at > Nanos::ZERO && (self.troubles > 0 || self.running.is_empty());
                self.running.insert(node);
                self.started_at.insert(node, at);
            }
            Fault::Crashed(node) | Fault::Gone(node) => {
                // one that leaves where not all can hear it says its last word to nobody
                self.crashed += u64::from(fault == Fault::Crashed(node) || self.troubles > 0);
                self.running.remove(&node);
                let knows = |other: &Endpoint| {
                    self.started_at.get(other).is_none_or(|start| *start == Nanos::ZERO || at.since(*start) >= JOIN_MAX)
                };
                // whoever is left has not had the time to take over what the last one knew
                self.void |= at > Nanos::ZERO && !self.running.iter().any(knows);
                let gone: Vec<_> = self.called_dead.iter().filter(|(n, p)| *n == node || *p == node).copied().collect();
                for pair in gone {
                    self.alive(at, pair);
                }
            }
            Fault::Paused(_) => self.trouble(at, true),
            Fault::Resumed(_) => self.trouble(at, false),
            Fault::PeerDead { node, peer, .. } => {
                self.any_dead = true;
                if self.running.contains(&peer) && self.called_dead.insert((node, peer)) {
                    self.trouble(at, true);
                }
            }
            Fault::PeerUp { node, peer, .. } | Fault::PeerLeft { node, peer, .. } => self.alive(at, (node, peer)),
            Fault::Leaving(_) => {}
        }
    }

    fn alive(&mut self, at: Nanos, pair: (Endpoint, Endpoint)) {
        if self.called_dead.remove(&pair) {
            self.trouble(at, false);
        }
    }

    fn trouble(&mut self, at: Nanos, more: bool) {
        self.disturbed = at;
        if more {
            self.since = if self.troubles == 0 { at } else { self.since };
            self.troubles += 1;
        } else {
            self.lapse(at);
            self.troubles = self.troubles.saturating_sub(1);
        }
    }

    /// Whether live peers have been silent for so long that they are taken for lost.
    fn lapse(&mut self, at: Nanos) {
        // what is said last before the silence is on its way for a while
        let silent = at.since(self.since).plus(Nanos::SECOND);
        self.void |= self.troubles > 0 && silent >= self.scenario.nodes.forget_after;
    }

    /// Whether any promise still holds at `at`.
    pub fn holds(&mut self, at: Nanos) -> bool {
        self.lapse(at);
        !self.void
    }

    /// Whether the promise of this rule does.
    pub fn holds_for(&mut self, rule: &Rule, at: Nanos) -> bool {
        use spillgate_core::limit::OnPartition;
        let split = rule.spec().on_partition == OnPartition::Continue && self.any_dead;
        !split && self.bounds_hold_for(rule, at)
    }

    /// Whether what nodes state of this rule does: that speaks of sides that each run the whole limit, too.
    pub fn bounds_hold_for(&mut self, rule: &Rule, at: Nanos) -> bool {
        // nodes whose wall clocks differ are in different windows, each within its own
        let apart = rule.algorithm().windowed() && clocks_differ(self.scenario);
        // what a node evicts though it held information is gone: a limit on memory goes before one on a key
        let forgetful = !self.evicting.is_empty();
        !apart && !forgetful && self.holds(at)
    }

    /// Whether nothing is wrong with links and nodes, but for processes that are gone for good.
    pub const fn whole(&self) -> bool {
        self.troubles == 0 && !self.void
    }

    /// Whether every process that ever crashed runs again.
    pub fn nobody_missing(&self) -> bool {
        self.crashed == 0 || self.running.len() == self.scenario.nodes.all.len()
    }

    /// Since when nothing happened.
    pub const fn quiet_since(&self) -> Nanos {
        self.disturbed
    }

    /// How long after the last disturbance all must agree; none where links lose too much to say.
    pub fn settling(&self) -> Option<Nanos> {
        let scenario = self.scenario;
        let loss = worst_loss(scenario);
        let ticks = AGREE_TICKS + scenario.keys.len() as u64 / KEYS_A_TICK;
        let told = scenario.nodes.gossip_interval.times(ticks).plus(longest_way(scenario).times(8));
        let tries = (1.0 / ((1.0 - loss) * (1.0 - loss))).ceil() as u64;
        (loss <= LOSS_MAX).then(|| told.times(tries).plus(scenario.nodes.stale_after))
    }
}

fn clocks_differ(scenario: &Scenario) -> bool {
    let changed = scenario.events.iter().any(|e| matches!(e.what, Happening::Clock { .. }));
    changed || scenario.nodes.all.iter().any(|n| n.clock_ppm != 0 || n.wall_offset != 0)
}

fn profiles(scenario: &Scenario) -> impl Iterator<Item = &Profile> {
    std::iter::once(&scenario.network.default).chain(scenario.network.links.iter().map(|l| &l.profile))
}

fn worst_loss(scenario: &Scenario) -> f64 {
    profiles(scenario).map(|p| p.loss).fold(0.0, f64::max)
}

/// The longest that a message is on its way, but for one in some ten thousand.
fn longest_way(scenario: &Scenario) -> Nanos {
    let way = |p: &Profile| {
        let latency = match p.latency {
            Latency::Fixed(always) => always,
            Latency::Uniform(_, most) => most,
            Latency::LogNormal { median, sigma } => Nanos((median.0 as f64 * crate::math::exp(4.0 * sigma)) as u64),
        };
        let queue = if p.bandwidth.is_some() { p.queue } else { Nanos::ZERO };
        latency.plus(p.jitter).plus(p.reorder_by).plus(queue)
    };
    profiles(scenario).map(way).max().unwrap_or(Nanos::ZERO)
}

/// By which part the fastest clock runs ahead: what it refills too much.
pub(super) fn fastest(scenario: &Scenario) -> f64 {
    let specs = scenario.nodes.all.iter().map(|n| n.clock_ppm);
    let changes = scenario.events.iter().filter_map(|e| match e.what {
        Happening::Clock { ppm, .. } => ppm,
        _ => None,
    });
    specs.chain(changes).max().unwrap_or(0).max(0) as f64 / 1e6
}

/// A key as violations name it.
pub(super) fn named(scenario: &Scenario, limit: LimitIndex, key: KeyIndex) -> String {
    format!("{}/{}", scenario.limits[limit].name(), scenario.keys.text(key))
}

/// Something for every key that it was needed for.
#[derive(Debug)]
pub(super) struct ByKey<T>(Vec<Vec<T>>);

impl<T: Clone> ByKey<T> {
    pub fn new(scenario: &Scenario) -> Self {
        Self(vec![Vec::new(); scenario.limits.len()])
    }

    pub fn at(&mut self, limit: LimitIndex, key: KeyIndex, empty: &T) -> &mut T {
        let keys = &mut self.0[limit];
        if keys.len() <= key as usize {
            keys.resize(key as usize + 1, empty.clone());
        }
        &mut keys[key as usize]
    }
}
