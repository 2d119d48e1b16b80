//! All that can be seen of a run, as it happens. It must not know who listens, nor what they make of it.
//!
//! Times count from the start of the workload; before it, during the warm-up, nothing is observed but faults.

use spillgate_core::time::Nanos;
use spillgate_core::view::Explanation;

use crate::scenario::{Endpoint, KeyIndex, LimitIndex, Scenario};

/// One request of a client at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number, from 1 in the order of arrival; each retry is a request of its own.
    pub id: u64,
    /// The number of the first attempt: its own, unless it is a retry.
    pub first: u64,
    /// Which attempt it is, from 1.
    pub attempt: u16,
    /// Which workload it belongs to, by its place in the scenario.
    pub workload: u16,
    /// Under which limit.
    pub limit: LimitIndex,
    /// Under which key.
    pub key: KeyIndex,
    /// For how many tokens.
    pub cost: u64,
    /// At which node.
    pub node: Endpoint,
    /// When it arrived, since the start of the workload.
    pub at: Nanos,
}

/// Why a request was decided so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It was allowed.
    Granted,
    /// There are not enough tokens.
    OverLimit,
    /// Peers have not confirmed this node's last charges yet.
    Unconfirmed,
    /// Peers are silent.
    Partition,
    /// It can never be granted.
    TooLarge,
    /// Whoever was to decide could not be reached in time.
    Unreachable,
    /// No node took it, or the one that did is gone or stood still for too long: the client never got an answer.
    Unanswered,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Granted,
        Self::OverLimit,
        Self::Unconfirmed,
        Self::Partition,
        Self::TooLarge,
        Self::Unreachable,
        Self::Unanswered,
    ];

    /// The name in reports and traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::OverLimit => "over_limit",
            Self::Unconfirmed => "unconfirmed",
            Self::Partition => "partition",
            Self::TooLarge => "too_large",
            Self::Unreachable => "unreachable",
            Self::Unanswered => "unanswered",
        }
    }
}

/// A strategy's answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the client may go on.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
    /// How long the client is to wait before it goes on (leaky bucket).
    pub delay: Nanos,
    /// How long it is told to wait before it asks again; zero when allowed, or when not told.
    pub retry_after: Nanos,
}

impl Verdict {
    /// Allowed, at once.
    pub const ALLOWED: Self =
        Self { allowed: true, reason: Reason::Granted, delay: Nanos::ZERO, retry_after: Nanos::ZERO };

    /// Refused.
    #[must_use]
    pub const fn denied(reason: Reason) -> Self {
        Self { allowed: false, reason, delay: Nanos::ZERO, retry_after: Nanos::ZERO }
    }
}

/// An answer that reached its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// When: what it admits is admitted now.
    pub at: Nanos,
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub verdict: Verdict,
}

impl Decided {
    /// How long the client waited for the answer.
    #[must_use]
    pub const fn waited(&self) -> Nanos {
        self.at.since(self.request.at)
    }
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// At most once or twice, in any order, up to the size of a datagram.
    Datagram,
    /// In order, again and again until it arrives or the connection is given up.
    Stream,
}

/// What became of a message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is under way.
    Carried,
    /// It is under way twice.
    Doubled,
    /// Lost by chance; a stream sends it again.
    Lost,
    /// The link is cut; a stream sends it again.
    Cut,
    /// The queue before the link is full.
    Full,
    /// Longer than a datagram may be.
    TooLong,
    /// The receiver does not run.
    NoReceiver,
}

/// What happens to nodes, and what they hear of one another. [`crate::strategy::Strategy::fault`] is told each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node's process starts; its state is empty. Its incarnation is [`crate::world::World::incarnation`].
    Up(Endpoint),
    /// A node's process is gone, and all its state; nobody was told.
    Crashed(Endpoint),
    /// A node is told to stop. It gets no more requests; when it has said its last word it calls
    /// [`crate::world::World::gone`], or is gone after 5 s.
    Leaving(Endpoint),
    /// A node's process has ended after [`Fault::Leaving`].
    Gone(Endpoint),
    /// A node stands still: it gets nothing and its timers do not run, until it is resumed.
    Paused(Endpoint),
    /// It goes on; what came meanwhile is delivered now.
    Resumed(Endpoint),
    /// `node` hears from membership that `peer` is there (again), in that incarnation.
    PeerUp {
        /// Who hears it.
        node: Endpoint,
        /// Of whom.
        peer: Endpoint,
        /// Which run of it.
        incarnation: u64,
    },
    /// `node` hears from membership that `peer` is dead or out of reach. It may be wrong.
    PeerDead {
        /// Who hears it.
        node: Endpoint,
        /// Of whom.
        peer: Endpoint,
        /// Which run of it.
        incarnation: u64,
    },
    /// `node` hears that `peer` has left for good, or that a newer run took its place.
    PeerLeft {
        /// Who hears it.
        node: Endpoint,
        /// Of whom.
        peer: Endpoint,
        /// Which run of it.
        incarnation: u64,
    },
}

/// Something seen.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// The workload begins; the first of all.
    Began {
        /// What is run.
        scenario: &'a Scenario,
        /// The strategy's name.
        strategy: &'static str,
        /// The seed.
        seed: u64,
    },
    /// A request arrived.
    Offered(&'a Request),
    /// A request was answered; every one that arrived is, once.
    Decided(&'a Decided),
    /// After the workload and [`Scenario::settle`], when all should be quiet, one request of cost 1 was made to see
    /// whether a node grants it again. It belongs to no workload.
    Probed(&'a Decided),
    /// A message was sent.
    Sent {
        /// When.
        at: Nanos,
        /// By whom.
        from: Endpoint,
        /// To whom.
        to: Endpoint,
        /// How.
        channel: Channel,
        /// How long it is, in bytes.
        bytes: usize,
        /// What became of it.
        fate: Fate,
    },
    /// What a node charged has been confirmed by all its peers.
    Converged {
        /// When.
        at: Nanos,
        /// Whose charge it was.
        node: Endpoint,
        /// How long it took.
        took: Nanos,
    },
    /// A node states the most that could have been admitted beyond a limit, cluster-wide.
    Bound {
        /// When.
        at: Nanos,
        /// Who.
        node: Endpoint,
        /// Of which limit.
        limit: LimitIndex,
        /// How many tokens.
        tokens: f64,
        /// How many more each second, as long as nothing is heard.
        growth: f64,
    },
    /// What a node knows of a key that is watched.
    Known {
        /// When.
        at: Nanos,
        /// Who.
        node: Endpoint,
        /// Of which limit.
        limit: LimitIndex,
        /// Of which key.
        key: KeyIndex,
        /// What it knows; `None`: nothing, so that the key is full.
        explanation: Option<&'a Explanation>,
    },
    /// How much a node keeps.
    Table {
        /// When.
        at: Nanos,
        /// Who.
        node: Endpoint,
        /// How many keys.
        keys: usize,
        /// How many it has evicted though they held information.
        evictions: u64,
    },
    /// Something happened to a node, or it heard of a peer's fate.
    Fault {
        /// When.
        at: Nanos,
        /// What.
        fault: Fault,
    },
    /// Links were tampered with, or are as they were before.
    Links {
        /// When.
        at: Nanos,
        /// What was done, as reports call it.
        label: &'a str,
        /// Whether it is over.
        over: bool,
    },
}

/// Sees what happens in a run.
pub trait Observer {
    /// Something was seen.
    fn observe(&mut self, seen: &Observation<'_>);
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn observe(&mut self, seen: &Observation<'_>) {
        (**self).observe(seen);
    }
}
