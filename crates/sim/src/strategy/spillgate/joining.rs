//! How far a node's joining has come, as the daemon goes about it. It must not know what is transferred.

use spillgate_core::time::Nanos;

use crate::scenario::Endpoint;

/// How many peers are asked for their tables.
const ASKED_MAX: usize = 3;

/// A node that is not ready yet.
#[derive(Debug)]
pub(super) struct Joining {
    asked: Vec<Endpoint>,
    loaded: Vec<Endpoint>,
    /// When it is ready whoever answered, on its own clock.
    pub patience: Nanos,
}

impl Joining {
    pub const fn new(patience: Nanos) -> Self {
        Self { asked: Vec::new(), loaded: Vec::new(), patience }
    }

    /// Whether that peer is to be asked for its table, which counts as asked then.
    pub fn ask(&mut self, peer: Endpoint) -> bool {
        let wanted = self.asked.len() < ASKED_MAX && !self.asked.contains(&peer);
        if wanted {
            self.asked.push(peer);
        }
        wanted
    }

    /// The last part of a peer's table is here.
    pub fn loaded(&mut self, peer: Endpoint) {
        if self.asked.contains(&peer) && !self.loaded.contains(&peer) {
            self.loaded.push(peer);
        }
    }

    /// Whether all that were asked have answered.
    pub fn is_loaded(&self) -> bool {
        !self.asked.is_empty() && self.asked.len() == self.loaded.len()
    }
}
