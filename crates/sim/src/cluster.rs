//! The nodes: who runs, whose clock says what, and who has heard of whom. It must not know what nodes do, nor any
//! strategy.

use spillgate_core::time::{Nanos, Now};

use crate::network::Links;
use crate::random::Random;
use crate::scenario::{Endpoint, Membership, NodeSpec, Scenario};

/// The wall clock at the start of the workload: midnight, so that windows up to a day begin there.
pub const WALL_AT_START: u64 = 1_699_920_000 * 1_000_000_000;

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No process runs.
    Down,
    /// It runs.
    Up,
    /// It runs, and is on its way out.
    Leaving,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// How it stands.
    pub status: Status,
    /// Which run of it this is, from 1; 0 before the first.
    pub incarnation: u64,
    /// Whether its last run said goodbye.
    pub left: bool,
    /// Whether it stands still.
    pub paused: bool,
    /// Whether it is sent requests.
    pub serving: bool,
    /// Its clocks.
    pub clock: Clock,
}

impl NodeState {
    /// Whether a process runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.status != Status::Down
    }
}

/// A node's clocks: a monotonic one that begins with its process, and a wall clock. Both run at the node's own pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    ppm: i64,
    /// When, on the run's clock, the pace was set last, and what the node's clock said then.
    since: (Nanos, Nanos),
    /// Monotonic time at the start of the process.
    started: Nanos,
    /// Wall time minus the node's clock; it jumps.
    wall_offset: i128,
}

impl Clock {
    /// Of a node as the scenario has it. `start` is when the workload begins.
    #[must_use]
    pub fn new(spec: &NodeSpec, start: Nanos) -> Self {
        let wall_offset = i128::from(WALL_AT_START) - i128::from(start.0) + i128::from(spec.wall_offset);
        Self { ppm: spec.clock_ppm, since: (Nanos::ZERO, Nanos::ZERO), started: Nanos::ZERO, wall_offset }
    }

    /// What the node's own clock says, since the beginning of the run.
    fn reads(&self, now: Nanos) -> Nanos {
        let passed = u128::from(now.since(self.since.0).0);
        let own = passed * (1_000_000 + i128::from(self.ppm)).unsigned_abs() / 1_000_000;
        self.since.1.plus(Nanos(u64::try_from(own).unwrap_or(u64::MAX)))
    }

    /// The present, as the node's process has it.
    #[must_use]
    pub fn present(&self, now: Nanos) -> Now {
        let reads = self.reads(now);
        let wall = u64::try_from(i128::from(reads.0) + self.wall_offset).unwrap_or(0);
        Now { at: reads.since(self.started), wall }
    }

    /// How long it really takes until so much has passed on the node's clock, rounded up.
    #[must_use]
    pub fn really(&self, own: Nanos) -> Nanos {
        let pace = (1_000_000 + i128::from(self.ppm)).unsigned_abs();
        let real = (u128::from(own.0) * 1_000_000).div_ceil(pace);
        Nanos(u64::try_from(real).unwrap_or(u64::MAX))
    }

    /// A process starts: its monotonic clock begins.
    pub fn start(&mut self, now: Nanos) {
        self.started = self.reads(now);
    }

    /// From now on it runs at this pace, where there is one; and its wall clock jumps by so much.
    pub fn change(&mut self, now: Nanos, ppm: Option<i64>, jump: i64) {
        self.since = (now, self.reads(now));
        self.ppm = ppm.unwrap_or(self.ppm);
        self.wall_offset += i128::from(jump);
    }
}

/// What a node has been told of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Alive(u64),
    Dead(u64),
    Left(u64),
}

/// News of membership, to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// That run of the node is there.
    Up(u64),
    /// It is dead or out of reach.
    Dead(u64),
    /// It is gone for good.
    Left(u64),
}

/// All nodes and what they know of one another's coming and going.
///
/// Membership goes by the whole cluster, as gossip does: a node is out of reach of another when there is no way to it
/// over any others that can hear each other. To be called up it must also be reachable directly, both ways.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<NodeState>,
    /// By observer and subject.
    told: Vec<Told>,
    /// Nodes with the same number can hear of each other.
    component: Vec<usize>,
    membership: Membership,
    random: Random,
}

impl Cluster {
    /// Nobody runs yet.
    #[must_use]
    pub fn new(scenario: &Scenario, random: Random) -> Self {
        let start = scenario.start();
        let node = |spec: &NodeSpec| NodeState {
            status: Status::Down,
            incarnation: 0,
            left: false,
            paused: false,
            serving: false,
            clock: Clock::new(spec, start),
        };
        let nodes: Vec<NodeState> = scenario.nodes.all.iter().map(node).collect();
        let n = nodes.len();
        let (told, component) = (vec![Told::Nothing; n * n], (0..n).collect());
        Self { nodes, told, component, membership: scenario.membership, random }
    }

    /// How many there are, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none; there always is one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A process starts.
    pub fn start(&mut self, node: Endpoint, now: Nanos) {
        let n = self.nodes.len();
        let state = &mut self.nodes[node];
        state.status = Status::Up;
        state.incarnation += 1;
        state.left = false;
        state.serving = true;
        state.clock.start(now);
        self.told[node * n..(node + 1) * n].fill(Told::Nothing);
    }

    /// A process has ended; `left` when it said goodbye.
    pub fn stop(&mut self, node: Endpoint, left: bool) {
        let state = &mut self.nodes[node];
        state.status = Status::Down;
        state.left = left;
        state.paused = false;
        state.serving = false;
    }

    /// Works out who can hear of whom.
    pub fn connect(&mut self, links: &Links) {
        let n = self.nodes.len();
        self.component = (0..n).collect();
        let mut seen = vec![false; n];
        for first in 0..n {
            if seen[first] || !self.nodes[first].runs() {
                continue;
            }
            seen[first] = true;
            let mut reached = vec![first];
            while let Some(at) = reached.pop() {
                self.component[at] = first;
                for (next, seen) in seen.iter_mut().enumerate() {
                    if !*seen && self.nodes[next].runs() && links.talk(at, next) {
                        *seen = true;
                        reached.push(next);
                    }
                }
            }
        }
    }

    /// What `node` should hear of `peer` now, if it has not.
    fn due(&self, node: Endpoint, peer: Endpoint, links: &Links) -> Option<News> {
        if node == peer || !self.nodes[node].runs() {
            return None;
        }
        let told = self.told[node * self.nodes.len() + peer];
        let state = &self.nodes[peer];
        let incarnation = state.incarnation;
        if state.runs() {
            let reach = self.component[node] == self.component[peer];
            return match told {
                Told::Alive(known) if known == incarnation => (!reach).then_some(News::Dead(known)),
                Told::Alive(old) if old != incarnation && reach => Some(News::Dead(old)),
                _ => (reach && links.talk(node, peer)).then_some(News::Up(incarnation)),
            };
        }
        match told {
            Told::Alive(known) | Told::Dead(known) if state.left && known == incarnation => {
                links.talk(node, peer).then_some(News::Left(known)).or(match told {
                    Told::Alive(known) => Some(News::Dead(known)),
                    _ => None,
                })
            }
            Told::Alive(known) => Some(News::Dead(known)),
            _ => None,
        }
    }

    /// Whether some node can be heard of from `node` that it has not been told to be up, or gone.
    #[must_use]
    pub fn is_meeting(&self, node: Endpoint) -> bool {
        let told = &self.told[node * self.nodes.len()..];
        let other = |(peer, state): (Endpoint, &NodeState)| {
            let known = matches!(told[peer], Told::Alive(known) | Told::Left(known) if known == state.incarnation);
            peer != node && state.runs() && self.component[peer] == self.component[node] && !known
        };
        self.nodes.iter().enumerate().any(other)
    }

    /// Whom membership is to look at, and in how long: all pairs of which one does not know what it should. `of` names
    /// the only node that changed; none: all may have.
    pub fn looks(&mut self, of: Option<Endpoint>, links: &Links) -> Vec<(Endpoint, Endpoint, Nanos)> {
        let mut looks = Vec::new();
        for node in 0..self.nodes.len() {
            for peer in 0..self.nodes.len() {
                if of.is_some_and(|one| node != one && peer != one) {
                    continue;
                }
                let (least, most) = match self.due(node, peer, links) {
                    None => continue,
                    Some(News::Dead(_)) => self.membership.death,
                    Some(News::Up(_) | News::Left(_)) => self.membership.news,
                };
                looks.push((node, peer, Nanos(self.random.between(least.0, most.0))));
            }
        }
        looks
    }

    /// Membership of `node` looks at `peer`: what it hears, which counts as told.
    pub fn look(&mut self, node: Endpoint, peer: Endpoint, links: &Links) -> Option<News> {
        let news = self.due(node, peer, links)?;
        self.tell(node, peer, news);
        Some(news)
    }

    fn tell(&mut self, node: Endpoint, peer: Endpoint, news: News) {
        let n = self.nodes.len();
        self.told[node * n + peer] = match news {
            News::Up(incarnation) => Told::Alive(incarnation),
            News::Dead(incarnation) => Told::Dead(incarnation),
            News::Left(incarnation) => Told::Left(incarnation),
        };
    }

    /// `node` is told, wrongly, that `peer` is dead, unless it holds that already.
    pub fn suspect(&mut self, node: Endpoint, peer: Endpoint) -> Option<News> {
        let Told::Alive(incarnation) = self.told[node * self.nodes.len() + peer] else { return None };
        let news = News::Dead(incarnation);
        self.tell(node, peer, news);
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(clock_ppm: i64, wall_offset: i64) -> NodeSpec {
        NodeSpec { name: "n1".into(), group: None, initial: true, clock_ppm, wall_offset }
    }

    #[test]
    fn a_clock_runs_at_its_pace_and_only_the_wall_jumps() {
        let mut clock = Clock::new(&spec(100_000, -500), Nanos(1000));
        assert_eq!(clock.present(Nanos(1000)), Now { at: Nanos(1100), wall: WALL_AT_START + 100 - 500 });
        clock.start(Nanos(1000));
        assert_eq!(clock.present(Nanos(2000)).at, Nanos(1100));
        clock.change(Nanos(2000), Some(-500_000), 1_000_000);
        assert_eq!(clock.present(Nanos(2000)).at, Nanos(1100));
        assert_eq!(clock.present(Nanos(4000)), Now { at: Nanos(2100), wall: WALL_AT_START + 1_001_700 });
        assert_eq!((clock.really(Nanos(10)), clock.really(Nanos(11))), (Nanos(20), Nanos(22)));
    }
}
