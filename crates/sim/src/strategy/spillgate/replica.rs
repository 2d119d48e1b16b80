//! One node's process: the core's node, and what the daemon keeps beside it. It must not know other nodes' state.

use spillgate_core::node::{Node, Outbox};
use spillgate_core::time::Nanos;
use spillgate_core::view::ReplicaId;

use super::held::Waiting;
use super::joining::Joining;
use super::{PRESS, Word};
use crate::scenario::Endpoint;
use crate::world::World;

/// A process.
#[derive(Debug)]
pub(super) struct Replica {
    pub node: Node,
    /// Which run of each peer membership calls up.
    pub up: Vec<Option<u64>>,
    /// Reliable messages of peers that are not up here yet.
    pub waiting: Vec<(Endpoint, Word)>,
    /// Requests whose answers are held.
    pub held: Waiting,
    /// None where it has no peers to expect.
    pub joining: Option<Joining>,
    /// The tick that peers are to hear of before it goes, and until when it waits for that.
    pub leaving: Option<(u64, Nanos)>,
    /// Whether a timer is set for asking the peers at once.
    pub press_due: bool,
}

impl Replica {
    pub fn new(node: Node, nodes: usize, joining: Option<Joining>) -> Self {
        Self {
            node,
            up: vec![None; nodes],
            waiting: Vec::new(),
            held: Waiting::default(),
            joining,
            leaving: None,
            press_due: false,
        }
    }

    /// Has the peers asked at once, when the core wants that and no timer is set.
    pub fn schedule_press(&mut self, world: &mut World<'_, Word>, node: Endpoint) {
        if !self.press_due
            && let Some(at) = self.node.press_at()
        {
            self.press_due = true;
            world.timer(node, at.since(world.clock(node).at), PRESS);
        }
    }
}

/// Frames on their way out of a node.
#[derive(Debug, Default)]
pub(super) struct Post(Vec<(Endpoint, u64, Vec<u8>)>);

impl Post {
    /// All of them, in order: to which run of which node.
    pub fn take(&mut self) -> Vec<(Endpoint, u64, Vec<u8>)> {
        std::mem::take(&mut self.0)
    }
}

impl Outbox for Post {
    fn frame(&mut self, to: &ReplicaId, bytes: Vec<u8>) {
        // nodes are called n1, n2, ...
        let number = to.node.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
        if let Some(number) = number {
            self.0.push((number - 1, to.incarnation, bytes));
        }
    }
}
