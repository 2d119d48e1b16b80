//! Which node a request is sent to. It must not know what it asks for.

use spillgate_core::time::Nanos;

use crate::cluster::Cluster;
use crate::random::{Random, Weighted};
use crate::scenario::{Endpoint, NodeChoice};

/// How often another one is drawn before the next in order is taken.
const DRAWS_MAX: usize = 16;

/// Sends requests to nodes.
#[derive(Debug)]
pub(super) struct Place<'s> {
    choice: Choice<'s>,
    turn: usize,
}

#[derive(Debug)]
enum Choice<'s> {
    One(Endpoint),
    Weighted(Weighted),
    By(&'s NodeChoice, usize),
}

impl<'s> Place<'s> {
    /// As a workload has it.
    pub fn new(choice: &'s NodeChoice, nodes: usize) -> Self {
        let choice = match choice {
            NodeChoice::One(node) => Choice::One(*node),
            NodeChoice::Weighted(weights) => Choice::Weighted(Weighted::new(weights)),
            other => Choice::By(other, nodes),
        };
        Self { choice, turn: 0 }
    }

    /// Always to the same one.
    pub const fn one(node: Endpoint) -> Self {
        Self { choice: Choice::One(node), turn: 0 }
    }

    /// The node that is meant, whether it takes requests or not.
    pub fn pick(&mut self, at: Nanos, key: u32, random: &mut Random) -> Endpoint {
        match &self.choice {
            Choice::One(node) => *node,
            Choice::Weighted(weighted) => weighted.pick(random),
            Choice::By(NodeChoice::Moving(every), nodes) => (at.0 / every.0.max(1)) as usize % nodes,
            Choice::By(NodeChoice::Sticky, nodes) => (spread(key) % *nodes as u64) as usize,
            Choice::By(_, nodes) => {
                self.turn += 1;
                (self.turn - 1) % nodes
            }
        }
    }

    /// The node that takes the request in its stead where it does not; `None`: no node takes requests.
    pub fn serving(&self, picked: Endpoint, cluster: &Cluster, random: &mut Random) -> Option<Endpoint> {
        let serves = |node: &Endpoint| cluster.nodes[*node].serving;
        if serves(&picked) {
            return Some(picked);
        }
        if let Choice::Weighted(weighted) = &self.choice
            && let Some(node) = (0..DRAWS_MAX).map(|_| weighted.pick(random)).find(serves)
        {
            return Some(node);
        }
        let n = cluster.len();
        (1..n).map(|step| (picked + step) % n).find(serves)
    }
}

/// Spreads numbers that stand in a row (the finalizer of splitmix64).
const fn spread(key: u32) -> u64 {
    let mut z = (key as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
