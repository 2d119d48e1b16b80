//! Windows of wall time, aligned to the Unix epoch, and what a jumping clock does to them. It must not know what is
//! counted in them.

use crate::limit::Rule;
use crate::time::{Nanos, Now};

/// How far the wall clock may be behind a meter's window before the clock is taken at its word, rounded up to whole
/// windows.
///
/// Clocks of a cluster that are kept by NTP differ by milliseconds and are stepped by less than a second; ten seconds
/// is a clock that is not kept. Below it the window stays, so that no clock that is put back, and no node ahead of the
/// others, gives a window twice. Above it the clock was really put right, and waiting for it to come back to the old
/// window could take for ever.
pub const CLOCK_TOLERANCE: Nanos = Nanos::from_secs(10);

/// Where the wall clock is, seen from a meter's window.
pub(super) enum Turn {
    /// In the same window, or not far enough behind it to leave it.
    Stay,
    /// So many windows later, at least one.
    Forward(u64),
    /// Really put back, to that window.
    Back(u64),
}

/// The window of the wall clock.
pub(super) fn present(rule: &Rule, now: Now) -> u64 {
    now.wall / length(rule)
}

/// What the wall clock makes of a meter that stands in window `number`.
pub(super) fn turn(rule: &Rule, now: Now, number: u64) -> Turn {
    let start = number.checked_mul(length(rule));
    // nearly always; a multiplication is cheaper than a division
    if start.and_then(|s| now.wall.checked_sub(s)).is_some_and(|e| e < length(rule)) {
        return Turn::Stay;
    }
    let present = present(rule, now);
    match present.checked_sub(number) {
        Some(0) => Turn::Stay,
        Some(windows) => Turn::Forward(windows),
        None if number - present <= tolerance(rule) => Turn::Stay,
        None => Turn::Back(present),
    }
}

/// How many windows a peer's later `window` is ahead of `number`, when it may be followed: its clock may be ahead of this
/// one by [`CLOCK_TOLERANCE`], however long a window is, or one peer that is a day ahead would renew a daily quota for all.
pub(super) fn ahead(rule: &Rule, now: Now, number: u64, window: u64) -> Option<u64> {
    let begins = window.checked_mul(length(rule))?;
    let windows = window.checked_sub(number).filter(|n| *n >= 1)?;
    (begins <= now.wall.saturating_add(CLOCK_TOLERANCE.0)).then_some(windows)
}

/// Time since the start of window `number`, from zero to its length.
pub(super) fn elapsed(rule: &Rule, now: Now, number: u64) -> u64 {
    now.wall.saturating_sub(number.saturating_mul(length(rule))).min(length(rule))
}

/// Time from now until `into` after the start of window `number`; zero when that is past.
pub(super) fn until(rule: &Rule, now: Now, number: u64, into: u64) -> Nanos {
    let then = u128::from(number) * u128::from(length(rule)) + u128::from(into);
    Nanos(u64::try_from(then.saturating_sub(u128::from(now.wall))).unwrap_or(u64::MAX))
}

/// Nanoseconds, at least [`crate::rate::PERIOD_MIN`].
pub(super) const fn length(rule: &Rule) -> u64 {
    rule.rate().period().0
}

/// [`CLOCK_TOLERANCE`] in windows, at least one.
const fn tolerance(rule: &Rule) -> u64 {
    CLOCK_TOLERANCE.0.div_ceil(length(rule))
}
