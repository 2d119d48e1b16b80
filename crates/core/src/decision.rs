//! What is asked of the node and what it answers. It must not know how either is worked out.

use std::sync::Arc;

use crate::limit::{COST_MAX, KEY_BYTES_MAX, Rule};
use crate::time::Nanos;

/// The rule a request names or brings.
#[derive(Clone, Copy, Debug)]
pub enum LimitRef<'a> {
    /// A configured limit.
    Named(&'a str),
    /// The caller's own rule, of origin [`crate::limit::Origin::Inline`].
    Inline(&'a Arc<Rule>),
}

impl LimitRef<'_> {
    /// The limit's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Inline(rule) => rule.limit(),
        }
    }
}

/// One request for tokens.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// Under which limit.
    pub limit: LimitRef<'a>,
    /// Who is counted, 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: &'a str,
    /// Tokens wanted, 0 (a peek) to [`COST_MAX`].
    pub cost: u64,
    /// `normal`, or one that the limit's `reserve` names.
    pub priority: &'a str,
}

/// Why a request could not be decided at all; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No such limit.
    #[error("unknown limit {0:?}")]
    UnknownLimit(String),
    /// The key is empty or too long.
    #[error("the key has {0} bytes, it must have 1 to {KEY_BYTES_MAX}")]
    KeyLength(usize),
    /// The cost is absurd.
    #[error("cost {0} must be from 0 to {COST_MAX}")]
    Cost(u64),
    /// The limit reserves by priority and knows no such one.
    #[error("limit {limit:?} has no priority {priority:?}; it has: normal{known}")]
    Priority {
        /// The limit's name.
        limit: String,
        /// What was asked for.
        priority: String,
        /// The others, each with a comma before it.
        known: String,
    },
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There are not enough tokens.
    OverLimit,
    /// The stability window: peers have not confirmed this node's last charges yet.
    Unconfirmed,
    /// Peers are silent, and this node's share is used up or the limit refuses meanwhile.
    Partition,
    /// The cost is above the capacity: it can never be granted.
    TooLarge,
}

impl Reason {
    /// Every reason, in the order of its discriminant.
    pub const ALL: [Self; 4] = [Self::OverLimit, Self::Unconfirmed, Self::Partition, Self::TooLarge];

    /// The name in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OverLimit => "over_limit",
            Self::Unconfirmed => "unconfirmed",
            Self::Partition => "partition",
            Self::TooLarge => "too_large",
        }
    }
}

/// The answer to a [`Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the caller may go on. A dry run is always allowed; `reason` then says why it would not have been.
    pub allowed: bool,
    /// Why it was refused, or would have been.
    pub reason: Option<Reason>,
    /// Tokens asked for.
    pub cost: u64,
    /// Tokens that can be had at once when all is quiet.
    pub capacity: u64,
    /// The time in which the whole capacity comes back.
    pub window: Nanos,
    /// Whole tokens left after this answer.
    pub remaining: u64,
    /// How long to wait before it is worth asking again; zero when allowed, [`Nanos::MAX`] for never.
    pub retry_after: Nanos,
    /// How long until the whole capacity is there, were nobody to ask.
    pub reset_after: Nanos,
    /// Leaky bucket: how long the caller should hold the request before going on.
    pub delay: Nanos,
    /// How long the answer may be held for peers to confirm; zero unless that alone is missing.
    pub confirm_wait: Nanos,
}

/// The answer to a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refunded {
    /// Tokens given back: what was asked, or less when the bucket was full before.
    pub refunded: u64,
    /// Tokens that can be had at once when all is quiet.
    pub capacity: u64,
    /// Whole tokens left now.
    pub remaining: u64,
}
