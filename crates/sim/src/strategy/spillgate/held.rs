//! Requests whose answers are held, as the daemon's driver holds them. It must not know nodes.

use spillgate_core::decision::{Decision, Reason};
use spillgate_core::time::Nanos;

use crate::observe::Request;

/// A request whose answer is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub request: Request,
    /// Since when, on its node's clock.
    pub start: Nanos,
    /// How long the client is ready to wait.
    pub wait: Nanos,
    /// What was decided last.
    pub decision: Decision,
    /// When its timer runs out, where one is set.
    pub wakes: Option<Nanos>,
}

impl Held {
    /// How long it may still be held.
    pub fn left(&self, now: Nanos) -> Nanos {
        hold_time(&self.decision, self.wait).since(now.since(self.start))
    }

    /// When it is to be tried again though nothing has come meanwhile.
    pub fn wakes_at(&self, now: Nanos) -> Nanos {
        let left = self.left(now);
        let pause = match self.decision.reason {
            Some(Reason::OverLimit) => left.min(self.decision.retry_after),
            _ => left,
        };
        now.plus(pause)
    }
}

/// How long the answer may be held in all.
pub(super) fn hold_time(decision: &Decision, wait: Nanos) -> Nanos {
    match decision.reason {
        Some(Reason::TooLarge) | None => Nanos::ZERO,
        Some(Reason::Unconfirmed) => wait.max(decision.confirm_wait),
        Some(Reason::OverLimit | Reason::Partition) => wait,
    }
}

/// Why a held request was refused last.
pub(super) fn refusal(decision: &Decision) -> Option<Reason> {
    decision.reason.filter(|_| !decision.allowed)
}
