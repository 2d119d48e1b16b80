//! The sliding window, from two fixed ones: of the last window counts the part that a window ending now still covers.
//! It must not know how windows follow the clock.

use super::Level;
use super::window::{Turn, ahead, elapsed, length, present, turn, until};
use crate::limit::Rule;
use crate::time::{Nanos, Now};

/// What was used in one window and in the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    number: u64,
    previous: u64,
    current: u64,
}

impl SlidingWindow {
    pub(super) fn full(rule: &Rule, now: Now) -> Self {
        Self::with_used(rule, now, None, 0)
    }

    /// All in `window`, or in the present one.
    pub(super) fn with_used(rule: &Rule, now: Now, window: Option<u64>, used: u64) -> Self {
        Self { number: window.unwrap_or_else(|| present(rule, now)), previous: 0, current: used }
    }

    pub(super) const fn window(self) -> u64 {
        self.number
    }

    /// As it is in the present window.
    pub(super) fn rolled(self, rule: &Rule, now: Now) -> Self {
        match turn(rule, now, self.number) {
            Turn::Stay => self,
            Turn::Forward(windows) => self.after(windows),
            // how much of the last window counted is not known any more, so all of it does: never a token given
            Turn::Back(number) => Self { number, previous: 0, current: self.missing() },
        }
    }

    pub(super) fn rolled_to(self, rule: &Rule, now: Now, window: u64) -> Self {
        ahead(rule, now, self.number, window).map_or(self, |windows| self.after(windows))
    }

    const fn after(self, windows: u64) -> Self {
        let previous = if windows == 1 { self.current } else { 0 };
        Self { number: self.number.saturating_add(windows), previous, current: 0 }
    }

    pub(super) fn level(self, rule: &Rule, now: Now) -> Level {
        let length = length(rule);
        let covered = length - elapsed(rule, now, self.number);
        // each product is below 2^119
        let previous = i128::from(self.previous) * i128::from(covered);
        let current = i128::from(self.current) * i128::from(length);
        Level { parts: i128::from(rule.capacity()) * i128::from(length) - previous - current, unit: length }
    }

    pub(super) const fn charge(&mut self, tokens: u64) {
        self.current = self.current.saturating_add(tokens);
    }

    pub(super) fn charge_window(&mut self, window: u64, tokens: u64) {
        if window >= self.number {
            self.charge(tokens);
        } else if window == self.number - 1 {
            self.previous = self.previous.saturating_add(tokens);
        }
    }

    /// From the present window first: a token there counts whole, and longer.
    pub(super) fn refund(&mut self, tokens: u64) -> u64 {
        let of_current = tokens.min(self.current);
        let of_previous = (tokens - of_current).min(self.previous);
        self.current -= of_current;
        self.previous -= of_previous;
        of_current + of_previous
    }

    /// In the present window, and in the one before.
    pub(super) const fn used(self) -> (u64, u64) {
        (self.current, self.previous)
    }

    pub(super) const fn missing(self) -> u64 {
        self.previous.saturating_add(self.current)
    }

    /// For at most the capacity.
    pub(super) fn wait_for(self, rule: &Rule, now: Now, tokens: u64) -> Nanos {
        if self.level(rule, now).covers(tokens) {
            return Nanos::ZERO;
        }
        let room = rule.capacity().saturating_sub(tokens);
        match room.checked_sub(self.current) {
            Some(room) => until(rule, now, self.number, fades_to(rule, self.previous, room)),
            // this window's own tokens are too many, and fade only in the next
            None => until(rule, now, self.number.saturating_add(1), fades_to(rule, self.current, room)),
        }
    }
}

/// How far into a window `used` tokens of the window before count as `room` or less.
fn fades_to(rule: &Rule, used: u64, room: u64) -> u64 {
    let length = length(rule);
    // used * (length - into) <= room * length
    let covered = (u128::from(room) * u128::from(length)).checked_div(u128::from(used));
    covered.and_then(|c| u64::try_from(c).ok()).map_or(0, |c| length.saturating_sub(c))
}
