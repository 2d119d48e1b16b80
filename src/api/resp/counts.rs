//! What the Redis protocol's connections have done, for metrics and `INFO`. It must not know commands.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Labels of the counted commands; each further one counts as the last.
pub const COMMANDS: [&str; 4] = ["cl.throttle", "throttle", "spillgate.check", "other"];

/// Counts of all connections since the start.
#[derive(Debug, Default)]
pub struct RespCounts {
    pub(super) open: AtomicU64,
    pub(super) accepted: AtomicU64,
    commands: [AtomicU64; COMMANDS.len()],
    errors: AtomicU64,
}

impl RespCounts {
    /// Connections now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Commands by their label.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, u64)> {
        COMMANDS.into_iter().zip(&self.commands).map(|(label, count)| (label, count.load(Relaxed)))
    }

    /// Commands answered with an error, and connections ended for one of the protocol.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    pub(super) fn add(&self, batch: &mut BatchCounts) {
        for (sum, count) in self.commands.iter().zip(batch.commands) {
            if count > 0 {
                sum.fetch_add(count, Relaxed);
            }
        }
        if batch.errors > 0 {
            self.errors.fetch_add(batch.errors, Relaxed);
        }
        *batch = BatchCounts::default();
    }
}

/// What one batch adds: shared counters are touched once a batch, not once a command.
#[derive(Debug, Default)]
pub(super) struct BatchCounts {
    /// By place in [`COMMANDS`].
    pub commands: [u64; COMMANDS.len()],
    pub errors: u64,
}
