//! The clocks of this machine as the core takes them. It must not know the node.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spillgate_core::algorithm::CLOCK_TOLERANCE;
use spillgate_core::time::{Nanos, Now};

/// The monotonic clock since the start, and the wall clock as of the last look at it.
pub(super) struct Clock {
    monotonic: quanta::Clock,
    start: quanta::Instant,
    /// Wall time at the start, nanoseconds since the epoch, as the last look at the wall clock has it.
    wall_at_start: AtomicU64,
    /// Whether it was seen to jump.
    jumped: AtomicBool,
}

impl Clock {
    pub(super) fn new() -> Self {
        let monotonic = quanta::Clock::new();
        let clock = Self {
            start: monotonic.now(),
            monotonic,
            wall_at_start: AtomicU64::new(0),
            jumped: AtomicBool::new(false),
        };
        clock.look();
        clock.jumped.store(false, Relaxed);
        clock
    }

    pub(super) fn now(&self) -> Now {
        let at = Nanos::from(self.monotonic.now().saturating_duration_since(self.start));
        Now { at, wall: self.wall_at_start.load(Relaxed).saturating_add(at.0) }
    }

    /// Looks at the wall clock: once a tick, so that a check reads one clock only.
    pub(super) fn look(&self) {
        let at = Nanos::from(self.monotonic.now().saturating_duration_since(self.start));
        let wall = Nanos::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
        let start = wall.since(at).0;
        let before = self.wall_at_start.swap(start, Relaxed);
        if before.abs_diff(start) > CLOCK_TOLERANCE.0 {
            self.jumped.store(true, Relaxed);
        }
    }

    /// Whether the wall clock was seen to jump since this was asked last.
    pub(super) fn jumped(&self) -> bool {
        self.jumped.swap(false, Relaxed)
    }
}
