//! What the node tells of itself: the explanation of a key, its peers, its busiest keys. Values only.

use std::fmt;
use std::sync::Arc;

use crate::rate::Rate;
use crate::time::Nanos;

/// One run of one node; a restart is another replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The node's id.
    pub node: Arc<str>,
    /// Larger in each run of the node.
    pub incarnation: u64,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node, self.incarnation)
    }
}

/// How a peer stands with this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// Known to membership, no frame of it confirmed yet.
    Joining,
    /// Heard of within the stale time.
    Alive,
    /// Not heard of for the stale time; assumed busy.
    Silent,
}

impl PeerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Joining, Self::Alive, Self::Silent];

    /// The name in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Alive => "alive",
            Self::Silent => "silent",
        }
    }
}

/// One peer, as this node sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// Who.
    pub replica: ReplicaId,
    /// How it stands.
    pub state: PeerState,
    /// Smoothed round trip; none before the first confirmation.
    pub round_trip: Option<Nanos>,
    /// Time since its last frame; none before the first.
    pub news_age: Option<Nanos>,
    /// Its wall clock minus ours, in seconds; none before the first estimate.
    pub clock_offset: Option<f64>,
    /// Frames sent to it.
    pub frames_sent: u64,
    /// Frames received of it.
    pub frames_received: u64,
    /// Frames to it that were noticed as lost.
    pub frames_lost: u64,
}

/// One replica's counter of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaCount {
    /// Whose.
    pub replica: ReplicaId,
    /// Cumulative tokens granted, from an arbitrary start.
    pub granted: u64,
    /// Cumulative tokens refunded, from an arbitrary start.
    pub refunded: u64,
    /// Its smoothed offered load on the key, tokens a second.
    pub demand: f64,
    /// Since its last news of this key; zero for this node's own.
    pub age: Nanos,
}

/// All that a decision on one key depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The algorithm's name.
    pub algorithm: &'static str,
    /// The accuracy's name.
    pub accuracy: &'static str,
    /// Tokens a period.
    pub rate: Rate,
    /// Tokens that can be had at once.
    pub capacity: u64,
    /// Tokens left as this node sees it; negative is debt.
    pub level: f64,
    /// Own charges that are not common knowledge yet, tokens.
    pub unacked: f64,
    /// The most that may be unacked after a grant: the stability window, tokens; infinite in gossip mode.
    pub allowance: f64,
    /// This node's part of the demand, 0 to 1.
    pub weight: f64,
    /// This node's own smoothed offered load, tokens a second.
    pub demand: f64,
    /// The most that could have been admitted beyond the limit, cluster-wide, tokens.
    pub bound: f64,
    /// The number of the present window, for windowed limits.
    pub window: Option<u64>,
    /// Counters by replica, this node's own first.
    pub replicas: Vec<ReplicaCount>,
}

/// One of the busiest keys since it came into the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopKey {
    /// The limit's name.
    pub limit: String,
    /// The key's text.
    pub key: String,
    /// Tokens granted at this node.
    pub granted: u64,
    /// Requests denied at this node.
    pub denied: u64,
}

/// By what the busiest keys are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopBy {
    /// Tokens granted here.
    Granted,
    /// Requests denied here.
    Denied,
}
