//! The fixed window: a count that starts anew with each window. It must not know how windows follow the clock.

use super::Level;
use super::window::{Turn, ahead, present, turn, until};
use crate::limit::Rule;
use crate::time::{Nanos, Now};

/// What was used in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedWindow {
    number: u64,
    used: u64,
}

impl FixedWindow {
    pub(super) fn full(rule: &Rule, now: Now) -> Self {
        Self::with_used(rule, now, None, 0)
    }

    /// In `window`, or in the present one.
    pub(super) fn with_used(rule: &Rule, now: Now, window: Option<u64>, used: u64) -> Self {
        Self { number: window.unwrap_or_else(|| present(rule, now)), used }
    }

    pub(super) const fn window(self) -> u64 {
        self.number
    }

    /// As it is in the present window. A clock that was put back does not give back what was used.
    pub(super) fn rolled(self, rule: &Rule, now: Now) -> Self {
        match turn(rule, now, self.number) {
            Turn::Stay => self,
            Turn::Forward(windows) => self.after(windows),
            Turn::Back(number) => Self { number, ..self },
        }
    }

    pub(super) fn rolled_to(self, rule: &Rule, now: Now, window: u64) -> Self {
        ahead(rule, now, self.number, window).map_or(self, |windows| self.after(windows))
    }

    const fn after(self, windows: u64) -> Self {
        Self { number: self.number.saturating_add(windows), used: 0 }
    }

    pub(super) fn level(self, rule: &Rule) -> Level {
        Level { parts: i128::from(rule.capacity()) - i128::from(self.used), unit: 1 }
    }

    pub(super) const fn charge(&mut self, tokens: u64) {
        self.used = self.used.saturating_add(tokens);
    }

    pub(super) const fn charge_window(&mut self, window: u64, tokens: u64) {
        if window >= self.number {
            self.charge(tokens);
        }
    }

    pub(super) fn refund(&mut self, tokens: u64) -> u64 {
        let given = tokens.min(self.used);
        self.used -= given;
        given
    }

    pub(super) const fn missing(self) -> u64 {
        self.used
    }

    /// For at most the capacity, which the next window has.
    pub(super) fn wait_for(self, rule: &Rule, now: Now, tokens: u64) -> Nanos {
        if self.level(rule).covers(tokens) { Nanos::ZERO } else { until(rule, now, self.number.saturating_add(1), 0) }
    }
}
