//! How far a node's joining has come, as the daemon goes about it. It must not know what is transferred.

use spillgate_core::time::Nanos;

use crate::scenario::Endpoint;

/// How many peers are asked for their tables.
const ASKED_MAX: usize = 3;
/// A node without seeds waits only so long for others to find it.
const ALONE_MAX: Nanos = Nanos::from_secs(1);

/// A run of a peer.
type Run = (Endpoint, u64);

/// Whom a node has asked for their tables since its start, and who has answered.
#[derive(Debug)]
pub(super) struct Joining {
    asked: Vec<Run>,
    loaded: Vec<Run>,
    timeout: Nanos,
    /// Whether it has no seeds to find others by.
    alone: bool,
    /// Whether it is ready, well or not.
    pub over: bool,
    /// The process stood still: peers are asked anew, until one has answered.
    doubting: bool,
}

impl Joining {
    pub const fn new(timeout: Nanos, alone: bool) -> Self {
        Self { asked: Vec::new(), loaded: Vec::new(), timeout, alone, over: false, doubting: false }
    }

    /// How long, on its own clock, the node waits for others: those who are there are worth more time than nobody.
    /// `meeting` says whether somebody may be about to come up.
    pub fn patience(&self, meeting: bool) -> Nanos {
        let found = !self.asked.is_empty() || meeting;
        if self.alone && !found { self.timeout.min(ALONE_MAX) } else { self.timeout }
    }

    /// Whether that peer is to be asked for its table, which counts as asked then.
    pub fn ask(&mut self, peer: Run) -> bool {
        let wanted = (!self.over || self.doubting) && self.asked.len() < ASKED_MAX && !self.asked.contains(&peer);
        if wanted {
            self.asked.push(peer);
        }
        wanted
    }

    /// The process stood still: what it was told and asked before is past.
    pub fn doubt(&mut self) {
        (self.asked, self.loaded, self.doubting) = (Vec::new(), Vec::new(), true);
    }

    /// Whether a table of that peer is still to come.
    pub fn awaits(&self, peer: Run) -> bool {
        self.asked.contains(&peer) && !self.loaded.contains(&peer)
    }

    /// The last part of a peer's table is here.
    pub fn loaded(&mut self, peer: Run) {
        if self.awaits(peer) {
            self.loaded.push(peer);
            self.doubting = false;
        }
    }

    /// Whether all that were asked have answered.
    pub fn is_loaded(&self) -> bool {
        !self.asked.is_empty() && self.asked.len() == self.loaded.len()
    }
}
