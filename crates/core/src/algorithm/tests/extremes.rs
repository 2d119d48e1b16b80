//! Any numbers at all: nothing panics, and what must always hold holds.

use proptest::prelude::*;

use super::*;
use crate::limit::CAPACITY_MAX;
use crate::rate::{PERIOD_MAX, PERIOD_MIN, Rate};

/// Any number, and often one at an edge.
fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0u64..10, (u64::MAX - 10)..=u64::MAX, (0u32..64).prop_map(|shift| 1 << shift)]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let tokens = prop_oneof![Just(1), Just(CAPACITY_MAX), 1..=CAPACITY_MAX];
    let period = prop_oneof![Just(PERIOD_MIN.0), Just(PERIOD_MAX.0), PERIOD_MIN.0..=PERIOD_MAX.0];
    let burst = prop_oneof![Just(1), Just(CAPACITY_MAX), 1..=CAPACITY_MAX];
    (0usize..4, tokens, period, burst, prop::option::of(any_u64())).prop_map(|(n, tokens, period, burst, delay)| {
        let algorithm = Algorithm::ALL[n];
        spec_rule(RuleSpec {
            burst: (!algorithm.windowed()).then_some(burst),
            max_delay: delay.filter(|_| algorithm == Algorithm::LeakyBucket).map(Nanos),
            ..RuleSpec::new(algorithm, Rate::new(tokens, Nanos(period)).unwrap())
        })
    })
}

fn any_now() -> impl Strategy<Value = Now> {
    (any_u64(), any_u64()).prop_map(|(at, wall)| Now { at: Nanos(at), wall })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nothing_panics(
        rules in prop::collection::vec(any_rule(), 1..4),
        steps in prop::collection::vec((0u8..6, any_now(), any_u64(), any_u64()), 0..40),
        now in any_now(),
    ) {
        let mut rule = &rules[0];
        let mut meter = Meter::full(rule, now);
        for (step, now, tokens, window) in steps {
            match step {
                0 => meter.charge(rule, now, tokens),
                1 => meter.charge_window(rule, now, window, tokens),
                2 => prop_assert!(meter.refund(rule, now, tokens) <= tokens),
                3 => meter.roll_to(rule, now, window),
                4 => {
                    let to = &rules[usize::try_from(tokens % 4).unwrap() % rules.len()];
                    meter.rescale(rule, to, now);
                    rule = to;
                }
                _ => meter.roll(rule, now),
            }
            let level = meter.level(rule, now);
            prop_assert!(level.whole() <= rule.capacity());
            prop_assert_eq!(level.covers(tokens), tokens <= level.whole() && level.parts >= 0);
            prop_assert!(level.tokens().is_finite());
            prop_assert_eq!(meter.wait_for(rule, now, rule.capacity() + 1), Nanos::MAX);
            prop_assert!(meter.full_in(rule, now) >= meter.wait_for(rule, now, tokens % (rule.capacity() + 1)));
            prop_assert_eq!(meter.full_in(rule, now) == Nanos::ZERO, level.covers(rule.capacity()));
            prop_assert!(meter.delay(rule, now) == Nanos::ZERO || rule.algorithm() == Algorithm::LeakyBucket);
            assert_wait_is_exact(&meter, rule, now, tokens % (rule.capacity() + 1));
        }
    }

    /// A reset refunds what is missing, and then nothing is.
    #[test]
    fn what_is_missing_makes_it_full(rule in any_rule(), now in any_now(), charges in prop::collection::vec(0..1u64 << 60, 0..8)) {
        let mut meter = Meter::full(&rule, now);
        for tokens in charges {
            meter.charge(&rule, now, tokens);
        }
        let missing = meter.missing(&rule, now);
        prop_assert_eq!(meter.refund(&rule, now, u64::MAX), missing);
        prop_assert_eq!(meter.missing(&rule, now), 0);
        prop_assert!(meter.level(&rule, now).covers(rule.capacity()));
        prop_assert_eq!(meter.full_in(&rule, now), Nanos::ZERO);
    }
}

#[test]
fn debt_beyond_all_numbers_saturates() {
    for algorithm in Algorithm::ALL {
        let rule = rule(algorithm, "1/366d", None);
        let mut meter = Meter::full(&rule, ns(u64::MAX));
        for _ in 0..1000 {
            meter.charge(&rule, ns(u64::MAX), u64::MAX);
        }
        assert_eq!(whole(&meter, &rule, ns(u64::MAX)), 0);
        assert!(!meter.level(&rule, ns(u64::MAX)).covers(0));
        assert_eq!(meter.missing(&rule, ns(u64::MAX)), u64::MAX);
        assert!(meter.wait_for(&rule, ns(u64::MAX), 1) > Nanos::ZERO);
    }
}
