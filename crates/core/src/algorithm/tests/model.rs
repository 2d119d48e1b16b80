//! The meters against models of another kind: a level that is refilled step by step, and a ledger of every window.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What happens to a meter.
#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    /// Charges when covered.
    Take(u64),
    /// A peer's charge, which may make debt; in the window so many before the present (or, with `None`, after it).
    News(u64, Option<u64>),
    Refund(u64),
    Reset,
}

/// A step of time near the scale of `period` and of one token.
fn ops(max_cost: u64) -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => (0u32..64, 0u64..=1000).prop_map(|(shift, n)| Op::Advance(n << (shift % 34))),
        4 => (0..=max_cost).prop_map(Op::Take),
        1 => (0..=max_cost, prop::option::weighted(0.8, 0u64..4)).prop_map(|(n, w)| Op::News(n, w)),
        1 => (0..=max_cost).prop_map(Op::Refund),
        1 => Just(Op::Reset),
    ];
    prop::collection::vec(op, 1..60)
}

/// A level in parts of which a token has as many as the period nanoseconds: nothing is reduced, nothing an instant.
struct Refilled {
    level: i128,
    last: u64,
}

impl Refilled {
    fn unit(rule: &Rule) -> i128 {
        i128::from(rule.rate().period().0)
    }

    fn most(rule: &Rule) -> i128 {
        i128::from(rule.capacity()) * Self::unit(rule)
    }

    fn advance(&mut self, rule: &Rule, now: u64) {
        self.level += i128::from(now - self.last) * i128::from(rule.rate().tokens());
        self.level = self.level.min(Self::most(rule));
        self.last = now;
    }

    fn missing(&self, rule: &Rule) -> u64 {
        let (missing, unit) = (Self::most(rule) - self.level, Self::unit(rule));
        u64::try_from((missing + unit - 1) / unit).unwrap()
    }
}

fn check_bucket(rule: &Rule, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut now = ns(5_000_000_000);
    let mut meter = Meter::full(rule, now);
    let mut model = Refilled { level: Refilled::most(rule), last: now.at.0 };
    let unit = Refilled::unit(rule);
    for op in ops {
        match op {
            Op::Advance(step) => {
                now = after(now, step);
                model.advance(rule, now.at.0);
            }
            Op::Take(tokens) => {
                let covered = model.level >= i128::from(tokens) * unit;
                prop_assert_eq!(meter.level(rule, now).covers(tokens), covered);
                if covered {
                    meter.charge(rule, now, tokens);
                    model.level -= i128::from(tokens) * unit;
                }
            }
            Op::News(tokens, window) => {
                meter.charge_window(rule, now, window.unwrap_or(u64::MAX), tokens);
                model.level -= i128::from(tokens) * unit;
            }
            Op::Refund(tokens) => {
                let given = tokens.min(model.missing(rule));
                prop_assert_eq!(meter.refund(rule, now, tokens), given);
                model.level = (model.level + i128::from(given) * unit).min(Refilled::most(rule));
            }
            Op::Reset => {
                prop_assert_eq!(meter.missing(rule, now), model.missing(rule));
                meter.refund(rule, now, model.missing(rule));
                model.level = Refilled::most(rule);
            }
        }
        let level = meter.level(rule, now);
        prop_assert_eq!(level.parts * (unit / i128::from(level.unit)), model.level);
        prop_assert_eq!(i128::from(level.whole()), model.level.max(0) / unit);
        if rule.algorithm() == Algorithm::LeakyBucket {
            let (backlog, rate) = (Refilled::most(rule) - model.level, i128::from(rule.rate().tokens()));
            prop_assert_eq!(i128::from(meter.delay(rule, now).0), (backlog + rate - 1) / rate);
        }
        for tokens in [0, 1, level.whole(), level.whole() + 1, rule.capacity()] {
            assert_wait_is_exact(&meter, rule, now, tokens);
        }
    }
    Ok(())
}

/// Every window's use, none of it ever forgotten.
#[derive(Default)]
struct Ledger(BTreeMap<u64, u64>);

impl Ledger {
    fn used(&self, window: u64) -> u64 {
        self.0.get(&window).copied().unwrap_or(0)
    }

    /// Takes up to `tokens` out of `window` and returns how many.
    fn give(&mut self, window: u64, tokens: u64) -> u64 {
        let used = self.0.entry(window).or_default();
        let given = tokens.min(*used);
        *used -= given;
        given
    }

    /// Level in parts of a token, a period's nanoseconds to the token.
    fn level(&self, rule: &Rule, now: Now) -> i128 {
        let period = rule.rate().period().0;
        let window = now.wall / period;
        let mut level = (i128::from(rule.capacity()) - i128::from(self.used(window))) * i128::from(period);
        if rule.algorithm() == Algorithm::SlidingWindow && window > 0 {
            level -= i128::from(self.used(window - 1)) * i128::from(period - now.wall % period);
        }
        level
    }
}

fn check_window(rule: &Rule, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let period = rule.rate().period().0;
    let sliding = rule.algorithm() == Algorithm::SlidingWindow;
    let mut now = ns(5_000_000_000 + 9 * period);
    let mut meter = Meter::full(rule, now);
    let mut model = Ledger::default();
    for op in ops {
        let window = now.wall / period;
        match op {
            Op::Advance(step) => now = after(now, step % (3 * period)),
            Op::Take(tokens) => {
                let covered = model.level(rule, now) >= i128::from(tokens) * i128::from(period);
                prop_assert_eq!(meter.level(rule, now).covers(tokens), covered);
                if covered {
                    meter.charge(rule, now, tokens);
                    *model.0.entry(window).or_default() += tokens;
                }
            }
            Op::News(tokens, before) => {
                let of = before.map_or(window + 1, |n| window - n);
                meter.charge_window(rule, now, of, tokens);
                *model.0.entry(of.min(window)).or_default() += tokens;
            }
            Op::Refund(_) | Op::Reset => {
                let most = model.used(window) + if sliding { model.used(window - 1) } else { 0 };
                prop_assert_eq!(meter.missing(rule, now), most);
                let tokens = if let Op::Refund(tokens) = op { tokens } else { most };
                let mut given = model.give(window, tokens);
                if sliding {
                    given += model.give(window - 1, tokens - given);
                }
                prop_assert_eq!(meter.refund(rule, now, tokens), given);
            }
        }
        let level = meter.level(rule, now);
        prop_assert_eq!(level.parts * i128::from(period / level.unit), model.level(rule, now));
        for tokens in [0, 1, level.whole(), level.whole() + 1, rule.capacity()] {
            assert_wait_is_exact(&meter, rule, now, tokens);
        }
    }
    Ok(())
}

const RATES: [&str; 9] =
    ["100/s", "3/s", "7/11ms", "1/d", "10M/s", "999983/min", "1/366d", "1000G/s", "12345678/97531246ns"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn token_bucket_is_the_refilled_level(rate in 0..RATES.len(), burst in prop::option::of(1u64..50), ops in ops(40)) {
        check_bucket(&rule(Algorithm::TokenBucket, RATES[rate], burst), ops)?;
    }

    #[test]
    fn large_token_bucket_is_the_refilled_level(rate in 0..RATES.len(), ops in ops(1_000_000_000_000)) {
        check_bucket(&rule(Algorithm::TokenBucket, RATES[rate], Some(1_000_000_000_000)), ops)?;
    }

    #[test]
    fn leaky_bucket_is_the_refilled_level(
        rate in 0..RATES.len(),
        burst in 1u64..50,
        max_delay in prop::option::of(0u64..10_000_000_000),
        ops in ops(40),
    ) {
        let spec = RuleSpec::new(Algorithm::LeakyBucket, RATES[rate].parse().unwrap());
        let rule = spec_rule(RuleSpec { burst: Some(burst), max_delay: max_delay.map(Nanos), ..spec });
        check_bucket(&rule, ops)?;
    }

    #[test]
    fn fixed_window_is_the_ledger(rate in 0..RATES.len(), ops in ops(120)) {
        check_window(&rule(Algorithm::FixedWindow, RATES[rate], None), ops)?;
    }

    #[test]
    fn sliding_window_is_the_ledger(rate in 0..RATES.len(), ops in ops(120)) {
        check_window(&rule(Algorithm::SlidingWindow, RATES[rate], None), ops)?;
    }

    /// What leaves a leaky bucket leaves no faster than the rate, to the nanosecond that a delay is rounded up by.
    #[test]
    fn leaky_bucket_sends_no_faster_than_the_rate(
        requests in prop::collection::vec((0u64..400_000_000, 1u64..4), 2..80),
    ) {
        let rule = rule(Algorithm::LeakyBucket, "7/s", Some(9));
        let mut meter = Meter::full(&rule, ns(0));
        let (mut now, mut next) = (ns(0), 0);
        for (step, cost) in requests {
            now = after(now, step);
            if grants(&meter, &rule, now, cost) {
                let leaves = now.at.0 + meter.delay(&rule, now).0;
                prop_assert!(leaves >= next);
                meter.charge(&rule, now, cost);
                next = leaves + cost * 1_000_000_000 / 7;
            }
        }
    }

    /// Whatever the monotonic clock does, no more is granted than a burst and the rate over the time that it showed.
    #[test]
    fn no_monotonic_clock_grants_more_than_the_limit(
        steps in prop::collection::vec((-2_000_000_000i64..3_000_000_000, 1u64..6), 1..80),
    ) {
        let rule = rule(Algorithm::TokenBucket, "3/s", Some(5));
        let start = 100_000_000_000i64;
        let (mut at, mut first, mut last, mut granted) = (start, start, start, 0);
        let mut meter = Meter::full(&rule, ns(0));
        for (step, cost) in steps {
            at = (at + step).max(0);
            (first, last) = (first.min(at), last.max(at));
            let now = ns(u64::try_from(at).unwrap());
            if meter.level(&rule, now).covers(cost) {
                meter.charge(&rule, now, cost);
                granted += cost;
            }
        }
        let shown = Nanos(u64::try_from(last - first).unwrap());
        prop_assert!(granted <= rule.capacity() + rule.rate().tokens_in(shown));
    }
}
