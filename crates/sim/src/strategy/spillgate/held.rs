//! Requests whose answers are held, as the daemon's driver holds them. It must not know nodes.

use std::cmp::Ordering;
use std::collections::VecDeque;

use spillgate_core::decision::{Decision, Reason};
use spillgate_core::time::Nanos;

use crate::observe::Request;
use crate::scenario::{KeyIndex, LimitIndex};

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

/// Held requests of one node in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<Held>);

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, id: u64) -> usize {
        self.0.partition_point(|held| held.request.id < id)
    }

    pub fn insert(&mut self, held: Held) {
        let place = self.place(held.request.id);
        self.0.insert(place, held);
    }

    /// Takes out the one of that number, if it is still held.
    pub fn remove(&mut self, id: u64) -> Option<Held> {
        // most are answered before their timers run out, and of the others the first runs out first
        match self.0.front().map(|held| held.request.id.cmp(&id)) {
            None | Some(Ordering::Greater) => None,
            Some(Ordering::Equal) => self.0.pop_front(),
            Some(Ordering::Less) => {
                let place = self.place(id);
                self.0.get(place).is_some_and(|held| held.request.id == id).then(|| self.0.remove(place)).flatten()
            }
        }
    }

    /// Goes through all of them, and keeps those of which `stays` says so.
    pub fn retain(&mut self, stays: impl FnMut(&mut Held) -> bool) {
        self.0.retain_mut(stays);
    }
}

/// What was refused at one instant: until something is charged or heard, the same will be refused again, in the same
/// words. Refused twice, that is: the first check of an instant also takes in what was confirmed since, which may help
/// the second.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Refusal>);

#[derive(Clone, Copy, Debug)]
struct Refusal {
    of: (LimitIndex, KeyIndex, u64),
    decision: Decision,
    twice: bool,
}

impl Refusals {
    /// How the same was refused, twice.
    pub fn of(&self, request: &Request) -> Option<Decision> {
        let refusal = self.0.iter().find(|refusal| refusal.of == asked(request))?;
        refusal.twice.then_some(refusal.decision)
    }

    /// Notes a decision; one that grants makes void what was refused.
    pub fn note(&mut self, request: &Request, decision: Decision) {
        let of = asked(request);
        if decision.allowed {
            self.0.clear();
        } else if let Some(refusal) = self.0.iter_mut().find(|refusal| refusal.of == of) {
            *refusal = Refusal { of, decision, twice: true };
        } else {
            self.0.push(Refusal { of, decision, twice: false });
        }
    }
}

const fn asked(request: &Request) -> (LimitIndex, KeyIndex, u64) {
    (request.limit, request.key, request.cost)
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
