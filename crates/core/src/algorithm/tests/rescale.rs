//! A rule is replaced by another: what was used stays used.

use proptest::prelude::*;

use super::*;

#[test]
fn a_bucket_keeps_its_charges_under_another_rate_and_burst() {
    let from = rule(Algorithm::TokenBucket, "10/s", Some(20));
    let to = rule(Algorithm::TokenBucket, "7/m", Some(50));
    let mut meter = Meter::full(&from, ms(0));
    meter.charge(&from, ms(0), 12);
    meter.rescale(&from, &to, ms(500));
    assert_eq!(whole(&meter, &to, ms(500)), 43, "12 charged, 5 refilled");
    assert_eq!(meter.missing(&to, ms(500)), 7);
    assert_eq!(meter.full_in(&to, ms(500)), Nanos::from_secs(60));
    meter.rescale(&to, &from, ms(500));
    assert_eq!(meter.full_in(&from, ms(500)), Nanos::from_millis(700));
}

#[test]
fn debt_stays_debt() {
    let from = rule(Algorithm::TokenBucket, "10/s", Some(20));
    let to = rule(Algorithm::FixedWindow, "5/s", None);
    let mut meter = Meter::full(&from, ms(0));
    meter.charge(&from, ms(0), 33);
    meter.rescale(&from, &to, ms(0));
    assert_eq!(meter.level(&to, ms(0)).parts, 5 - 33);
}

#[test]
fn a_started_token_counts_whole_in_a_window() {
    let from = rule(Algorithm::TokenBucket, "10/s", Some(20));
    let mut meter = Meter::full(&from, ms(0));
    meter.charge(&from, ms(0), 12);
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let (mut meter, to) = (meter.clone(), rule(algorithm, "100/m", None));
        meter.rescale(&from, &to, ms(61_150));
        assert_eq!(whole(&meter, &to, ms(61_150)), 100, "all refilled by then");
        let mut meter = Meter::full(&from, ms(61_000));
        meter.charge(&from, ms(61_000), 12);
        meter.rescale(&from, &to, ms(61_150));
        assert_eq!(whole(&meter, &to, ms(61_150)), 89, "10.5 are 11");
        assert_eq!(meter.window(), Some(1));
    }
}

#[test]
fn windows_of_one_length_keep_number_and_both_counts() {
    let from = rule(Algorithm::SlidingWindow, "10/s", None);
    let to = rule(Algorithm::SlidingWindow, "30/s", None);
    let mut meter = Meter::full(&from, ms(5000));
    meter.charge(&from, ms(5000), 8);
    meter.charge(&from, ms(6000), 2);
    meter.roll_to(&from, ms(6000), 6);
    meter.rescale(&from, &to, ms(6500));
    assert_eq!(whole(&meter, &to, ms(6500)), 24);
    assert_eq!(meter.missing(&to, ms(6500)), 10);
    assert_eq!(whole(&meter, &to, ms(6750)), 26, "the last window goes on fading");

    // a peer ahead was followed: the number is not the clock's, and stays
    meter.roll_to(&to, ms(6500), 7);
    let fixed = rule(Algorithm::FixedWindow, "10/s", None);
    meter.rescale(&to, &fixed, ms(6900));
    assert_eq!(meter.window(), Some(7));
    assert_eq!(whole(&meter, &fixed, ms(6900)), 8);
    meter.rescale(&fixed, &from, ms(6900));
    assert_eq!(meter.window(), Some(7));
    assert_eq!(meter.missing(&from, ms(6900)), 2);
}

#[test]
fn windows_of_another_length_are_numbered_anew() {
    let from = rule(Algorithm::SlidingWindow, "10/s", None);
    let mut meter = Meter::full(&from, ms(65_000));
    meter.charge(&from, ms(65_000), 8);
    let to = rule(Algorithm::SlidingWindow, "10/m", None);
    meter.rescale(&from, &to, ms(65_500));
    assert_eq!(meter.window(), Some(1));
    assert_eq!(whole(&meter, &to, ms(65_500)), 2);
}

#[test]
fn a_window_becomes_a_backlog() {
    let from = rule(Algorithm::SlidingWindow, "10/s", None);
    let to = rule(Algorithm::LeakyBucket, "3/s", Some(10));
    let mut meter = Meter::full(&from, ms(1000));
    meter.charge(&from, ms(1000), 4);
    meter.charge(&from, ms(2000), 1);
    meter.rescale(&from, &to, ms(2125));
    // 4 * 7/8 + 1 = 4.5 tokens, exactly one and a half seconds
    assert_eq!(meter.delay(&to, ms(2125)), Nanos::from_millis(1500));
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let rates = ["100/s", "3/s", "7/11ms", "1/d", "10M/s", "999983/min", "1/366d", "1000G/s"];
    (0usize..4, prop::sample::select(rates.to_vec()), 1u64..1000).prop_map(|(algorithm, rate, burst)| {
        let algorithm = Algorithm::ALL[algorithm];
        rule(algorithm, rate, (!algorithm.windowed()).then_some(burst))
    })
}

/// Capacity less level, in parts.
fn used(meter: &Meter, rule: &Rule, now: Now) -> (i128, i128) {
    let level = meter.level(rule, now);
    (i128::from(rule.capacity()) * i128::from(level.unit) - level.parts, i128::from(level.unit))
}

proptest! {
    #[test]
    fn no_token_is_given_and_less_than_one_is_taken(
        from in any_rule(),
        to in any_rule(),
        charges in prop::collection::vec((0u64..3_000_000_000, 0u64..2000), 0..5),
    ) {
        let mut now = ns(1_700_000_000_000_000_000);
        let mut meter = Meter::full(&from, now);
        for (step, tokens) in charges {
            now = after(now, step);
            meter.charge(&from, now, tokens);
        }
        let (before, before_unit) = used(&meter, &from, now);
        meter.rescale(&from, &to, now);
        let (behind, behind_unit) = used(&meter, &to, now);
        prop_assert!(behind * before_unit >= before * behind_unit, "{before}/{before_unit} {behind}/{behind_unit}");
        // a bucket rounds up to its next part, a window to its next token
        let step = if to.algorithm().windowed() { behind_unit } else { 1 };
        prop_assert!((behind - step) * before_unit < before * behind_unit);
        let fits = matches!(
            (&meter, to.algorithm()),
            (Meter::Bucket(_), Algorithm::TokenBucket | Algorithm::LeakyBucket)
                | (Meter::Fixed(_), Algorithm::FixedWindow)
                | (Meter::Sliding(_), Algorithm::SlidingWindow)
        );
        prop_assert!(fits);
    }
}
