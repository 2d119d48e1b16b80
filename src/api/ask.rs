//! Checks, as every protocol asks them: whether this node still decides and has room to, what the driver says, and what of that is an
//! error. It must not know how requests and answers look.

use std::sync::Arc;

use spillgate_core::decision::{CheckError, Decision, Reason};
use tokio::sync::OwnedSemaphorePermit;

use super::problem::{Kind, Problem};
use super::request::Wanted;
use super::{Api, Readiness};
use crate::driver::BatchError;

impl Api {
    /// An error on a node that is on its way out.
    pub(super) fn refuse_if_draining(&self) -> Result<(), Problem> {
        match self.control.readiness() {
            Readiness::Ready | Readiness::Joining => Ok(()),
            Readiness::Draining => Err(draining()),
        }
    }

    /// To be kept while a check is being answered.
    pub(super) fn slot(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.checks).try_acquire_owned().map_err(|_| {
            Problem::new(Kind::Overloaded, "this node answers as many checks as it can at once: try again in a moment")
        })
    }

    /// Decides, and holds the answer where that is worth it.
    pub(super) async fn check(&self, wanted: &Wanted<'_>) -> Result<Decision, Problem> {
        self.refuse_if_draining()?;
        let _slot = self.slot()?;
        self.driver.check_wait(&wanted.check(), wanted.wait).await.map_err(|e| self.problem(&e))
    }

    /// Decides at once, unless another than this node is to decide: `None` then. The slot is to be kept for as long as the
    /// answer is held.
    pub(super) fn check_now(&self, wanted: &Wanted<'_>) -> Result<(Option<Decision>, OwnedSemaphorePermit), Problem> {
        self.refuse_if_draining()?;
        let slot = self.slot()?;
        if !self.driver.decides_alone() {
            return Ok((None, slot));
        }
        let decision = self.driver.check(&wanted.check()).map_err(|e| self.problem(&e))?;
        Ok((Some(decision), slot))
    }

    pub(super) fn problem(&self, error: &CheckError) -> Problem {
        Problem::of_check(error, &self.driver.limits())
    }

    pub(super) fn problem_of_item(&self, e: &BatchError) -> Problem {
        self.problem(&e.error).at(e.index)
    }
}

pub(super) fn draining() -> Problem {
    Problem::new(Kind::Draining, "this node is draining and decides no more; ask another node")
}

/// Whether it was refused, and always will be.
pub(super) fn can_never_be(decision: &Decision) -> bool {
    !decision.allowed && decision.reason == Some(Reason::TooLarge)
}

/// A refusal as an error, where it is a mistake of the caller's: no time will come when the limit grants so much.
pub(super) fn refuse_mistake(limit: &str, decision: &Decision) -> Result<(), Problem> {
    if !can_never_be(decision) {
        return Ok(());
    }
    let (cost, capacity) = (decision.cost, decision.capacity);
    // a cost within the capacity is too large only for a priority that must leave a reserve
    let less = if cost <= capacity { " less what it reserves from that priority" } else { "" };
    Err(Problem::new(
        Kind::NeverGranted,
        format!(
            "cost {cost} is above the capacity {capacity} of limit {limit:?}{less}: it can never be granted; \
             ask for less, or raise the limit's burst"
        ),
    ))
}
