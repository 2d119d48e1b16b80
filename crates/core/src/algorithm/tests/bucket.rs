//! Token bucket and leaky bucket at their exact boundaries.

use super::*;
use crate::limit::CAPACITY_MAX;

#[test]
fn token_bucket_refills_at_the_rate() {
    let rule = rule(Algorithm::TokenBucket, "10/s", Some(5));
    let mut meter = Meter::full(&rule, ms(0));
    assert_eq!(meter.level(&rule, ms(0)), Level { parts: 500_000_000, unit: 100_000_000 });
    meter.charge(&rule, ms(0), 5);
    assert!(!meter.level(&rule, ms(0)).covers(1) && meter.level(&rule, ms(0)).covers(0));
    assert!(!meter.level(&rule, ns(99_999_999)).covers(1));
    assert!(meter.level(&rule, ns(100_000_000)).covers(1));
    assert_eq!(whole(&meter, &rule, ms(250)), 2);
    assert_eq!(whole(&meter, &rule, ms(499)), 4);
    assert_eq!(whole(&meter, &rule, ms(500)), 5);
    assert_eq!(whole(&meter, &rule, ms(10_000)), 5);
    assert_eq!(meter.window(), None);
    assert_eq!(meter.delay(&rule, ms(0)), Nanos::ZERO);
    assert!(!meter.delayed_too_long(&rule, ms(0)));
}

#[test]
fn a_long_idle_bucket_holds_no_more_than_its_capacity() {
    let rule = rule(Algorithm::TokenBucket, "10/s", Some(5));
    let mut meter = Meter::full(&rule, ms(0));
    meter.charge(&rule, ms(3_600_000), 4);
    assert_eq!(whole(&meter, &rule, ms(3_600_000)), 1);
}

#[test]
fn waits_are_exact_where_the_rate_does_not_divide_a_second() {
    let rule = rule(Algorithm::TokenBucket, "3/s", Some(3));
    let mut meter = Meter::full(&rule, ms(0));
    meter.charge(&rule, ms(0), 3);
    assert_eq!(meter.wait_for(&rule, ms(0), 0), Nanos::ZERO);
    assert_eq!(meter.wait_for(&rule, ms(0), 1), Nanos(333_333_334));
    assert_eq!(meter.wait_for(&rule, ms(0), 2), Nanos(666_666_667));
    assert_eq!(meter.wait_for(&rule, ms(0), 3), Nanos::SECOND);
    assert_eq!(meter.full_in(&rule, ms(0)), Nanos::SECOND);
    assert_eq!(meter.wait_for(&rule, ms(0), 4), Nanos::MAX);
    for tokens in 0..=3 {
        assert_wait_is_exact(&meter, &rule, ns(123), tokens);
    }
    // a third of a second is never lost: after three of them a whole token more is there, not almost
    meter.charge(&rule, ns(333_333_334), 1);
    meter.charge(&rule, ns(666_666_667), 1);
    assert_eq!(meter.full_in(&rule, ms(1000)), Nanos(666_666_667));
}

#[test]
fn debt_is_paid_before_anything_is_there() {
    let rule = rule(Algorithm::TokenBucket, "10/s", Some(5));
    let mut meter = Meter::full(&rule, ms(0));
    meter.charge(&rule, ms(0), 25);
    assert_eq!(meter.level(&rule, ms(0)).parts, -20 * 100_000_000);
    assert_eq!(whole(&meter, &rule, ms(0)), 0);
    assert_eq!(meter.missing(&rule, ms(0)), 25);
    assert_eq!(meter.wait_for(&rule, ms(0), 0), Nanos::from_secs(2));
    assert_eq!(meter.wait_for(&rule, ms(0), 1), Nanos::from_millis(2100));
    assert_eq!(meter.full_in(&rule, ms(0)), Nanos::from_millis(2500));
    assert_wait_is_exact(&meter, &rule, ms(0), 0);
}

#[test]
fn refunds_fill_up_to_the_capacity() {
    let rule = rule(Algorithm::TokenBucket, "10/s", Some(5));
    let mut meter = Meter::full(&rule, ms(0));
    assert_eq!(meter.refund(&rule, ms(0), 3), 0);
    meter.charge(&rule, ms(0), 4);
    assert_eq!(meter.refund(&rule, ms(0), 1), 1);
    assert_eq!(whole(&meter, &rule, ms(0)), 2);
    // 2.5 are missing: a third token is begun, and no more are given than fit
    assert_eq!(meter.missing(&rule, ms(50)), 3);
    assert_eq!(meter.refund(&rule, ms(50), 100), 3);
    assert_eq!(meter.level(&rule, ms(50)), Level { parts: 500_000_000, unit: 100_000_000 });
    meter.charge(&rule, ms(50), 5);
    assert_eq!(whole(&meter, &rule, ms(149)), 0, "the refund gave nothing in advance");
}

#[test]
fn news_of_a_window_is_a_charge_like_any_other() {
    let rule = rule(Algorithm::TokenBucket, "10/s", Some(5));
    let mut meter = Meter::full(&rule, ms(0));
    meter.roll(&rule, ms(0));
    meter.roll_to(&rule, ms(0), 7);
    meter.charge_window(&rule, ms(0), 3, 2);
    assert_eq!(whole(&meter, &rule, ms(0)), 3);
}

#[test]
fn leaky_bucket_delays_by_what_is_queued() {
    let rule = rule(Algorithm::LeakyBucket, "3/s", Some(6));
    let mut meter = Meter::full(&rule, ms(0));
    for delay in [0, 333_333_334, 666_666_667, 1_000_000_000, 1_333_333_334, 1_666_666_667] {
        assert!(grants(&meter, &rule, ms(0), 1));
        assert_eq!(meter.delay(&rule, ms(0)), Nanos(delay));
        meter.charge(&rule, ms(0), 1);
    }
    assert!(!grants(&meter, &rule, ms(0), 1));
    assert!(!meter.delayed_too_long(&rule, ms(0)), "without max_delay the queue alone is the limit");
    assert_eq!(meter.delay(&rule, ms(1500)), Nanos::from_millis(500));
    assert_eq!(meter.delay(&rule, ms(9000)), Nanos::ZERO);
}

#[test]
fn leaky_bucket_keeps_to_its_longest_delay() {
    let spec = |max_delay| RuleSpec {
        burst: Some(100),
        max_delay: Some(max_delay),
        ..RuleSpec::new(Algorithm::LeakyBucket, "10/s".parse().unwrap())
    };
    let half = spec_rule(spec(Nanos::from_millis(500)));
    let mut meter = Meter::full(&half, ms(0));
    meter.charge(&half, ms(0), 5);
    assert!(grants(&meter, &half, ms(0), 1), "half a second is allowed");
    meter.charge(&half, ms(0), 1);
    assert!(!grants(&meter, &half, ms(0), 1));
    assert!(meter.delayed_too_long(&half, ms(0)));
    assert_eq!(meter.wait_for(&half, ms(0), 1), Nanos::from_millis(100));
    assert_eq!(meter.wait_for(&half, ms(0), 94), Nanos::from_millis(100));
    assert_eq!(meter.wait_for(&half, ms(0), 96), Nanos::from_millis(200), "now the room is what is missing");
    for tokens in [0, 1, 94, 95, 96, 100] {
        assert_wait_is_exact(&meter, &half, ms(0), tokens);
    }

    let none = spec_rule(spec(Nanos::ZERO));
    let mut meter = Meter::full(&none, ms(0));
    assert!(grants(&meter, &none, ms(0), 1));
    meter.charge(&none, ms(0), 1);
    assert_eq!(meter.wait_for(&none, ms(0), 1), Nanos::from_millis(100));
    assert_eq!(meter.full_in(&none, ms(0)), Nanos::from_millis(100));

    let forever = spec_rule(spec(Nanos::MAX));
    let mut meter = Meter::full(&forever, ms(0));
    meter.charge(&forever, ms(0), 100);
    assert_eq!(meter.wait_for(&forever, ms(0), 1), Nanos::from_millis(100));
    let slow = RuleSpec { burst: Some(1000), rate: "1/366d".parse().unwrap(), ..spec(Nanos::MAX) };
    let slow = spec_rule(slow);
    let mut meter = Meter::full(&slow, ms(0));
    meter.charge(&slow, ms(0), 999);
    assert_eq!(meter.delay(&slow, ms(0)), Nanos::MAX, "a thousand years");
    assert!(grants(&meter, &slow, ms(0), 1));
    assert_eq!(meter.wait_for(&slow, ms(0), 1), Nanos::ZERO);
}

#[test]
fn one_a_day_and_ten_million_a_second_are_exact() {
    let slow = rule(Algorithm::TokenBucket, "1/d", None);
    let mut meter = Meter::full(&slow, ms(0));
    meter.charge(&slow, ns(7), 1);
    assert_eq!(meter.wait_for(&slow, ns(7), 1), Nanos::from_secs(86_400));
    assert_wait_is_exact(&meter, &slow, ns(8), 1);

    let fast = rule(Algorithm::TokenBucket, "10M/s", Some(1));
    let ten_years = 10 * 366 * 86_400 * 1_000_000_000;
    let mut meter = Meter::full(&fast, ms(0));
    for step in 0..1000 {
        let now = ns(ten_years + step * 100);
        assert!(grants(&meter, &fast, now, 1), "{step}");
        meter.charge(&fast, now, 1);
        assert_eq!(meter.wait_for(&fast, now, 1), Nanos(100));
        assert!(!grants(&meter, &fast, ns(now.at.0 + 99), 1), "{step}");
    }
}

#[test]
fn the_largest_burst_of_the_slowest_rate_is_exact() {
    let rule = rule(Algorithm::TokenBucket, "1/366d", Some(CAPACITY_MAX));
    let mut meter = Meter::full(&rule, ns(5));
    assert_eq!(whole(&meter, &rule, ns(5)), CAPACITY_MAX);
    meter.charge(&rule, ns(5), CAPACITY_MAX - 1);
    assert_eq!(whole(&meter, &rule, ns(5)), 1);
    meter.charge(&rule, ns(5), 2);
    assert_eq!(meter.missing(&rule, ns(5)), CAPACITY_MAX + 1);
    assert_eq!(meter.wait_for(&rule, ns(5), 1), Nanos::from_secs(2 * 366 * 86_400));
    assert_eq!(meter.full_in(&rule, ns(5)), Nanos::MAX, "longer than can be told");
}

#[test]
fn a_monotonic_clock_that_slips_back_gives_nothing() {
    let rule = rule(Algorithm::TokenBucket, "10/s", Some(5));
    let mut meter = Meter::full(&rule, ms(1000));
    meter.charge(&rule, ms(1000), 5);
    assert_eq!(whole(&meter, &rule, ms(900)), 0);
    meter.charge(&rule, ms(900), 1);
    assert_eq!(meter.full_in(&rule, ms(1000)), Nanos::from_millis(600), "no charge is lost");
    assert_eq!(whole(&meter, &rule, ms(1600)), 5);
}
