//! Tests of the meters: exact boundaries, exact models, clocks that jump and numbers that are too large.

mod bucket;
mod clock;
mod extremes;
mod model;
mod rescale;
mod window;

use super::*;
use crate::limit::{Origin, RuleSpec};

/// A rule of `rate`, with `burst` where it is a bucket's.
fn rule(algorithm: Algorithm, rate: &str, burst: Option<u64>) -> Rule {
    spec_rule(RuleSpec { burst, ..RuleSpec::new(algorithm, rate.parse().unwrap()) })
}

fn spec_rule(spec: RuleSpec) -> Rule {
    Rule::new("test", Origin::Configured, spec).unwrap()
}

fn ms(ms: u64) -> Now {
    Now::at(Nanos::from_millis(ms))
}

fn ns(ns: u64) -> Now {
    Now::at(Nanos(ns))
}

fn whole(meter: &Meter, rule: &Rule, now: Now) -> u64 {
    meter.level(rule, now).whole()
}

/// `now` after `wait`, by both clocks.
fn after(now: Now, wait: u64) -> Now {
    Now { at: Nanos(now.at.0 + wait), wall: now.wall + wait }
}

/// Whether `tokens` would be granted.
fn grants(meter: &Meter, rule: &Rule, now: Now, tokens: u64) -> bool {
    meter.level(rule, now).covers(tokens) && !meter.delayed_too_long(rule, now)
}

/// `wait_for` is right to the nanosecond, as far as the clocks reach.
fn assert_wait_is_exact(meter: &Meter, rule: &Rule, now: Now, tokens: u64) {
    let wait = meter.wait_for(rule, now, tokens).0;
    // a clock that was really put back is taken at its word when it is seen, not later when it is nearly right again
    let mut meter = meter.clone();
    meter.roll(rule, now);
    assert_eq!(meter.wait_for(rule, now, tokens).0, wait);
    let meter = &meter;
    if now.at.0.max(now.wall).checked_add(wait).is_none() {
        return;
    }
    // the longest wait stands for never
    let granted = grants(meter, rule, after(now, wait), tokens);
    assert!(granted || wait == u64::MAX, "{tokens} after {wait}: {meter:?}");
    if wait > 0 {
        for early in [wait - 1, wait / 2, 0] {
            assert!(!grants(meter, rule, after(now, early), tokens), "{tokens} after {early} of {wait}: {meter:?}");
        }
    }
}

#[test]
fn levels_are_exact() {
    let level = |parts| Level { parts, unit: 3 };
    assert_eq!([level(-4), level(-1), level(0), level(2), level(3), level(8)].map(Level::whole), [0, 0, 0, 0, 1, 2]);
    assert_eq!(
        [level(-4), level(-1), level(0), level(1), level(3), level(4)].map(Level::whole_ceil),
        [0, 0, 0, 1, 1, 2]
    );
    assert!(level(6).covers(2) && !level(5).covers(2) && level(0).covers(0) && !level(-1).covers(0));
    assert!((level(-3).tokens() + 1.0).abs() < 1e-12);
    let large = Level { parts: i128::MAX, unit: u64::MAX };
    assert_eq!(large.whole(), u64::MAX / 2 + 1);
    assert!(large.covers(u64::MAX / 2) && !large.covers(u64::MAX));
    assert_eq!(Level { parts: i128::MAX, unit: 1 }.whole(), u64::MAX);
    assert_eq!(Level { parts: i128::MIN, unit: 1 }.whole(), 0);
    assert_eq!(Level { parts: i128::from(u64::MAX) + 2, unit: 2 }.whole(), u64::MAX / 2 + 1);
}
