//! Whether Redis is worth asking: a circuit breaker, and counts of what came of asking. It must not know connections.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::RedisError;

/// Failures in a row after which Redis is not asked until it has shown itself well.
const FAILURES_MAX: u32 = 3;
/// Beats in a row that must come through before it is asked again: some 300 ms, in which every node that decided without
/// it tells what it granted. Whoever asked first would else be granted what the others have spent.
const BEATS_LEAST: u32 = 6;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Redis granted it.
    Allowed,
    /// Redis refused it.
    Denied,
    /// No reply in time: the node decided.
    Timeout,
    /// An error: the node decided.
    Error,
    /// Not asked, since Redis failed before: the node decided.
    Skipped,
    /// The reply came after the node had decided; what Redis had counted too much was given back.
    Late,
    /// Limits of several keys in a Redis Cluster, which could not be decided at once.
    Split,
}

impl Outcome {
    /// Every outcome, in the order of its discriminant.
    pub const ALL: [Self; 7] =
        [Self::Allowed, Self::Denied, Self::Timeout, Self::Error, Self::Skipped, Self::Late, Self::Split];

    /// The name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Skipped => "skipped",
            Self::Late => "late",
            Self::Split => "split",
        }
    }
}

/// How Redis has been doing.
#[derive(Debug, Default)]
pub(super) struct Health {
    up: AtomicBool,
    failures: AtomicU32,
    beats: AtomicU32,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    last_error: Mutex<Option<String>>,
}

impl Health {
    /// Whether it is worth asking.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Whether it answers at all, so that it can be told what was granted without it.
    pub(super) fn is_reachable(&self) -> bool {
        self.beats.load(Relaxed) > 0
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> [(Outcome, u64); Outcome::ALL.len()] {
        Outcome::ALL.map(|o| (o, self.outcomes[o as usize].load(Relaxed)))
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request was answered.
    pub(super) fn request_well(&self) {
        self.failures.store(0, Relaxed);
    }

    /// A request or a beat failed.
    pub(super) fn failed(&self, error: &RedisError) {
        self.beats.store(0, Relaxed);
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let text = error.to_string();
        let before = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).replace(text.clone());
        if failures >= FAILURES_MAX && self.up.swap(false, Relaxed) {
            tracing::warn!(error = text, "Redis fails: not asked until it is well again");
        } else if !self.up.load(Relaxed) && before.as_ref() != Some(&text) {
            tracing::warn!(error = text, "Redis can't be asked");
        }
    }

    /// A beat came through.
    pub(super) fn beat_well(&self) {
        let beats = self.beats.fetch_add(1, Relaxed) + 1;
        if beats >= BEATS_LEAST && !self.up.swap(true, Relaxed) {
            self.failures.store(0, Relaxed);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
            tracing::info!("Redis is well");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_opens_after_some_failures_and_closes_after_some_beats() {
        let health = Health::default();
        let error = RedisError::Timeout(Duration::from_millis(1));
        assert!(!health.is_up(), "not before it has been seen");
        let beats = |n: u32| (0..n).for_each(|_| health.beat_well());
        beats(BEATS_LEAST - 1);
        assert!(!health.is_up() && health.is_reachable());
        beats(1);
        assert!(health.is_up());
        for _ in 1..FAILURES_MAX {
            health.failed(&error);
            assert!(health.is_up());
        }
        health.request_well();
        for _ in 0..FAILURES_MAX {
            assert!(health.is_up(), "one that came through in between begins the count anew");
            health.failed(&error);
        }
        assert!(!health.is_up());
        health.request_well();
        assert!(!health.is_up(), "a late reply does not close it");
        beats(BEATS_LEAST - 1);
        health.failed(&error);
        assert!(!health.is_reachable());
        beats(BEATS_LEAST - 1);
        assert!(!health.is_up(), "in a row");
        beats(1);
        assert!(health.is_up());
    }
}
