//! Fixed and sliding window at their exact boundaries, with a clock that keeps still.

use super::*;

#[test]
fn fixed_window_starts_anew_at_its_boundary() {
    let rule = rule(Algorithm::FixedWindow, "10/s", None);
    let mut meter = Meter::full(&rule, ms(1500));
    assert_eq!(meter.window(), Some(1));
    meter.charge(&rule, ms(1500), 10);
    assert_eq!(meter.level(&rule, ms(1500)), Level { parts: 0, unit: 1 });
    assert_eq!(whole(&meter, &rule, ns(1_999_999_999)), 0);
    assert_eq!(whole(&meter, &rule, ms(2000)), 10);
    assert_eq!(meter.wait_for(&rule, ms(1500), 0), Nanos::ZERO);
    assert_eq!(meter.wait_for(&rule, ms(1500), 1), Nanos::from_millis(500));
    assert_eq!(meter.wait_for(&rule, ms(1500), 10), Nanos::from_millis(500));
    assert_eq!(meter.wait_for(&rule, ms(1500), 11), Nanos::MAX);
    assert_eq!(meter.full_in(&rule, ms(1500)), Nanos::from_millis(500));
    assert_wait_is_exact(&meter, &rule, ms(1500), 1);
    assert_eq!(meter.delay(&rule, ms(1500)), Nanos::ZERO);
    meter.roll(&rule, ms(2000));
    assert_eq!(meter.window(), Some(2));
    assert_eq!(meter.full_in(&rule, ms(2000)), Nanos::ZERO);
}

#[test]
fn fixed_window_goes_by_the_wall_clock() {
    let rule = rule(Algorithm::FixedWindow, "10/s", None);
    let meter = Meter::full(&rule, Now { at: Nanos::ZERO, wall: 1_700_000_000_500_000_000 });
    assert_eq!(meter.window(), Some(1_700_000_000));
}

#[test]
fn fixed_window_refunds_what_was_used_in_it() {
    let rule = rule(Algorithm::FixedWindow, "10/s", None);
    let mut meter = Meter::full(&rule, ms(0));
    meter.charge(&rule, ms(0), 14);
    assert_eq!(meter.level(&rule, ms(0)).parts, -4);
    assert_eq!(meter.wait_for(&rule, ms(0), 0), Nanos::SECOND);
    assert_eq!(meter.missing(&rule, ms(0)), 14);
    assert_eq!(meter.refund(&rule, ms(0), 5), 5);
    assert_eq!(whole(&meter, &rule, ms(0)), 1);
    assert_eq!(meter.refund(&rule, ms(999), 50), 9);
    assert_eq!(whole(&meter, &rule, ms(999)), 10);
    meter.charge(&rule, ms(999), 3);
    assert_eq!(meter.refund(&rule, ms(1000), 3), 0, "the window in which they were used is over");
}

#[test]
fn fixed_window_takes_news_of_its_own_window_only() {
    let rule = rule(Algorithm::FixedWindow, "10/s", None);
    let now = ms(5000);
    let mut meter = Meter::full(&rule, now);
    meter.charge_window(&rule, now, 5, 2);
    meter.charge_window(&rule, now, 4, 100);
    meter.charge_window(&rule, now, 0, 100);
    assert_eq!(whole(&meter, &rule, now), 8);
    meter.charge_window(&rule, now, 6, 1);
    assert_eq!(whole(&meter, &rule, now), 7, "a later window counts as the present one");
    meter.charge_window(&rule, ms(6000), 5, 3);
    assert_eq!(whole(&meter, &rule, ms(6000)), 10, "by the time of the news that window is over");
}

#[test]
fn sliding_window_forgets_the_last_window_bit_by_bit() {
    let rule = rule(Algorithm::SlidingWindow, "10/s", None);
    let mut meter = Meter::full(&rule, ms(0));
    meter.charge(&rule, ms(900), 10);
    assert_eq!(whole(&meter, &rule, ms(999)), 0);
    assert_eq!(meter.level(&rule, ms(1000)), Level { parts: 0, unit: 1_000_000_000 });
    assert!(!meter.level(&rule, ns(1_099_999_999)).covers(1));
    assert!(meter.level(&rule, ms(1100)).covers(1));
    assert_eq!(whole(&meter, &rule, ms(1500)), 5);
    meter.charge(&rule, ms(1500), 5);
    assert_eq!(whole(&meter, &rule, ms(1500)), 0);
    assert_eq!(whole(&meter, &rule, ms(1600)), 1);
    assert_eq!(whole(&meter, &rule, ms(2000)), 5);
    assert_eq!(whole(&meter, &rule, ms(3000)), 10);
}

#[test]
fn sliding_window_after_a_gap_is_full() {
    let rule = rule(Algorithm::SlidingWindow, "10/s", None);
    let mut meter = Meter::full(&rule, ms(0));
    meter.charge(&rule, ms(0), 30);
    assert_eq!(whole(&meter, &rule, ms(1999)), 9);
    assert_eq!(whole(&meter, &rule, ms(2000)), 10);
    assert_eq!(whole(&meter, &rule, ms(7_777)), 10);
}

#[test]
fn sliding_window_waits_across_boundaries() {
    let rule = rule(Algorithm::SlidingWindow, "10/s", None);
    let mut meter = Meter::full(&rule, ms(0));
    meter.charge(&rule, ms(0), 6);
    meter.charge(&rule, ms(1000), 4);
    // 6 * (1 - e) + 4 used; 1 token needs 6 * (1 - e) <= 5
    assert_eq!(meter.wait_for(&rule, ms(1000), 0), Nanos::ZERO);
    assert_eq!(meter.wait_for(&rule, ms(1000), 1), Nanos(166_666_667));
    assert_eq!(meter.wait_for(&rule, ms(1000), 6), Nanos::SECOND, "exactly when the last window is gone");
    assert_eq!(meter.wait_for(&rule, ms(1000), 8), Nanos::from_millis(1500), "half of this window, in the next");
    assert_eq!(meter.wait_for(&rule, ms(1000), 10), Nanos::from_secs(2));
    assert_eq!(meter.full_in(&rule, ms(1000)), Nanos::from_secs(2));
    assert_eq!(meter.wait_for(&rule, ms(1000), 11), Nanos::MAX);
    for tokens in 0..=10 {
        for millis in [1000, 1001, 1333, 1999, 2000, 2500] {
            assert_wait_is_exact(&meter, &rule, ms(millis), tokens);
        }
    }
}

#[test]
fn sliding_window_refunds_the_present_window_first() {
    let rule = rule(Algorithm::SlidingWindow, "10/s", None);
    let mut meter = Meter::full(&rule, ms(0));
    meter.charge(&rule, ms(0), 4);
    meter.charge(&rule, ms(1500), 3);
    assert_eq!(meter.missing(&rule, ms(1500)), 7);
    assert_eq!(meter.refund(&rule, ms(1500), 4), 4);
    assert_eq!(meter.level(&rule, ms(1500)).parts, 8_500_000_000, "three of now, one of before that counts half");
    assert_eq!(meter.refund(&rule, ms(1500), 100), 3);
    assert_eq!(whole(&meter, &rule, ms(1500)), 10);
    assert_eq!(meter.full_in(&rule, ms(1500)), Nanos::ZERO);
}

#[test]
fn sliding_window_takes_news_of_two_windows() {
    let rule = rule(Algorithm::SlidingWindow, "10/s", None);
    let now = ms(5500);
    let mut meter = Meter::full(&rule, now);
    meter.charge_window(&rule, now, 5, 2);
    meter.charge_window(&rule, now, 4, 6);
    meter.charge_window(&rule, now, 3, 100);
    assert_eq!(whole(&meter, &rule, now), 5);
    meter.charge_window(&rule, now, 9, 1);
    assert_eq!(whole(&meter, &rule, now), 4, "a later window counts as the present one");
    let mut first = Meter::full(&rule, ms(0));
    first.charge_window(&rule, ms(0), u64::MAX, 1);
    assert_eq!(whole(&first, &rule, ms(0)), 9);
}
