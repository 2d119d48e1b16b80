//! SKELETON: signatures only, replaced before it lands.
#![allow(clippy::unimplemented, missing_docs, unused_variables)]

use std::sync::Arc;

use spillgate_core::decision::{Check, CheckError, Decision, LimitRef, Refunded};
use spillgate_core::limit::Limits;
use spillgate_core::time::Nanos;
use spillgate_core::view::{Explanation, PeerView, TopBy, TopKey};

#[derive(Clone)]
pub struct Driver {}

/// An item of a batch could not be decided; nothing of the batch was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("checks[{index}]: {error}")]
pub struct BatchError {
    pub index: usize,
    pub error: CheckError,
}

impl Driver {
    /// Decides at once.
    pub fn check(&self, check: &Check<'_>) -> Result<Decision, CheckError> {
        unimplemented!()
    }
    /// Decides, holding the answer up to the limit's `confirm_wait`, or up to `wait` if that is longer.
    pub async fn check_wait(&self, check: &Check<'_>, wait: Nanos) -> Result<Decision, CheckError> {
        unimplemented!()
    }
    /// Each by itself, with its own wait; validated as a whole before anything is charged.
    pub async fn check_each(&self, checks: &[(Check<'_>, Nanos)]) -> Result<Vec<Decision>, BatchError> {
        unimplemented!()
    }
    /// All or none. Where one refuses, nothing is charged; the ones that were not at fault have `allowed: false` and no reason.
    pub async fn check_all(&self, checks: &[Check<'_>], wait: Nanos) -> Result<Vec<Decision>, BatchError> {
        unimplemented!()
    }
    pub fn refund(&self, limit: LimitRef<'_>, key: &str, cost: u64) -> Result<Refunded, CheckError> {
        unimplemented!()
    }
    /// The key's whole capacity is there again, here at once and at the peers with the next news.
    pub fn reset(&self, limit: LimitRef<'_>, key: &str) -> Result<Refunded, CheckError> {
        unimplemented!()
    }
    /// `Ok(None)`: nothing is known of the key, so it is full.
    pub fn explain(&self, limit: LimitRef<'_>, key: &str) -> Result<Option<Explanation>, CheckError> {
        unimplemented!()
    }
    pub fn limits(&self) -> Arc<Limits> {
        unimplemented!()
    }
    pub fn top(&self, by: TopBy, n: usize) -> Vec<TopKey> {
        unimplemented!()
    }
    pub fn peers(&self) -> Vec<PeerView> {
        unimplemented!()
    }
}
