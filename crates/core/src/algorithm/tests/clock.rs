//! Wall clocks that jump, and peers whose clocks differ.

use proptest::prelude::*;

use super::*;

const WINDOWED: [Algorithm; 2] = [Algorithm::FixedWindow, Algorithm::SlidingWindow];

fn secs(secs: u64) -> Now {
    Now::at(Nanos::from_secs(secs))
}

#[test]
fn a_clock_a_little_behind_stays_in_the_window() {
    for algorithm in WINDOWED {
        let rule = rule(algorithm, "10/s", None);
        let mut meter = Meter::full(&rule, secs(100));
        meter.charge(&rule, secs(100), 7);
        for second in [99, 95, 90] {
            assert_eq!(whole(&meter, &rule, secs(second)), 3);
            meter.roll(&rule, secs(second));
            assert_eq!(meter.window(), Some(100));
        }
        meter.charge(&rule, secs(90), 1);
        assert_eq!(meter.window(), Some(100));
        assert_eq!(whole(&meter, &rule, secs(100)), 2);
        assert_eq!(meter.wait_for(&rule, secs(90), 2), Nanos::ZERO);
        assert_wait_is_exact(&meter, &rule, secs(90), 5);
    }
    let rule = rule(Algorithm::FixedWindow, "10/s", None);
    let mut meter = Meter::full(&rule, secs(100));
    meter.charge(&rule, secs(100), 7);
    assert_eq!(meter.wait_for(&rule, secs(95), 5), Nanos::from_secs(6), "until the clock passes the window's end");
}

#[test]
fn a_clock_put_back_keeps_what_was_used() {
    for algorithm in WINDOWED {
        let rule = rule(algorithm, "10/s", None);
        let mut meter = Meter::full(&rule, secs(100));
        meter.charge(&rule, secs(100), 7);
        meter.roll(&rule, secs(89));
        assert_eq!(meter.window(), Some(89));
        assert_eq!(whole(&meter, &rule, secs(89)), 3);
        assert!(meter.wait_for(&rule, secs(89), 10) > Nanos::ZERO);
        assert_wait_is_exact(&meter, &rule, secs(89), 10);
        assert_eq!(whole(&meter, &rule, secs(91)), 10, "and goes on from there");
    }
}

#[test]
fn sliding_window_put_back_counts_the_last_window_whole() {
    let rule = rule(Algorithm::SlidingWindow, "10/s", None);
    let mut meter = Meter::full(&rule, secs(99));
    meter.charge(&rule, secs(99), 4);
    meter.charge(&rule, secs(100), 5);
    assert_eq!(whole(&meter, &rule, ms(50_500)), 1);
    assert_eq!(meter.missing(&rule, ms(50_500)), 9);
}

#[test]
fn tolerance_is_ten_seconds_of_windows_and_at_least_one() {
    for (rate, period_ms, tolerated) in
        [("10/ms", 1, 10_000), ("10/s", 1000, 10), ("10/3s", 3000, 4), ("10/10s", 10_000, 1), ("10/h", 3_600_000, 1)]
    {
        let rule = rule(Algorithm::FixedWindow, rate, None);
        let at = |window: u64| ms(window * period_ms);
        let mut meter = Meter::full(&rule, at(20_000));
        meter.roll(&rule, at(20_000 - tolerated));
        assert_eq!(meter.window(), Some(20_000), "{rate}");
        meter.roll(&rule, at(20_000 - tolerated - 1));
        assert_eq!(meter.window(), Some(20_000 - tolerated - 1), "{rate}");
    }
}

/// However long a window is: a peer that is a day ahead must not renew a daily quota.
#[test]
fn a_peer_is_followed_into_a_window_that_begins_within_ten_seconds() {
    for (rate, period_ms) in [("10/s", 1000), ("10/3s", 3000), ("10/m", 60_000), ("10/d", 86_400_000)] {
        let rule = rule(Algorithm::FixedWindow, rate, None);
        let start = 20_000 * period_ms;
        let full = Meter::full(&rule, ms(start - 12_000));
        for (early_ms, followed) in [(10_001, false), (10_000, true), (1, true)] {
            let mut meter = full.clone();
            meter.roll(&rule, ms(start - early_ms));
            meter.roll_to(&rule, ms(start - early_ms), 20_000);
            assert_eq!(meter.window() == Some(20_000), followed, "{rate}, {early_ms} ms before");
            // and not left again
            meter.roll(&rule, ms(start - early_ms));
            assert_eq!(meter.window() == Some(20_000), followed, "{rate}, {early_ms} ms before");
        }
    }
}

#[test]
fn a_clock_put_back_within_a_window_s_length_stays_in_it() {
    let rule = rule(Algorithm::FixedWindow, "10/h", None);
    let mut meter = Meter::full(&rule, secs(7200));
    meter.charge(&rule, secs(7200), 4);
    meter.roll(&rule, secs(5400));
    assert_eq!((meter.window(), whole(&meter, &rule, secs(7300))), (Some(2), 6), "no window twice");
}

#[test]
fn a_jump_forward_is_a_roll() {
    for algorithm in WINDOWED {
        let rule = rule(algorithm, "10/s", None);
        let mut meter = Meter::full(&rule, secs(100));
        meter.charge(&rule, secs(100), 70);
        meter.roll(&rule, secs(1_000_000));
        assert_eq!(meter.window(), Some(1_000_000));
        assert_eq!(whole(&meter, &rule, secs(1_000_000)), 10);
    }
}

#[test]
fn a_peer_ahead_is_followed_and_not_left_again() {
    let rule = rule(Algorithm::SlidingWindow, "10/s", None);
    let now = ms(100_999);
    let mut meter = Meter::full(&rule, now);
    meter.charge(&rule, now, 6);
    meter.roll_to(&rule, now, 100);
    meter.roll_to(&rule, now, 99);
    assert_eq!(meter.window(), Some(100));
    meter.roll_to(&rule, now, 101);
    meter.charge_window(&rule, now, 101, 1);
    meter.charge_window(&rule, now, 100, 1);
    assert_eq!(meter.window(), Some(101));
    assert_eq!(whole(&meter, &rule, now), 2, "7 of the last window whole, since the new one has not begun here");
    assert_eq!(whole(&meter, &rule, ms(101_500)), 5);
    meter.roll_to(&rule, now, 103);
    assert_eq!(meter.missing(&rule, now), 0);
}

proptest! {
    /// However far the clock is put back, nobody gets a token by it.
    #[test]
    fn no_clock_put_back_gives_tokens(
        sliding in any::<bool>(),
        period_ms in prop::sample::select(vec![1u64, 7, 1000, 3000, 60_000]),
        charges in prop::collection::vec((0u64..200_000, 0u64..15), 1..6),
        back in 0u64..200_000_000_000,
    ) {
        let algorithm = WINDOWED[usize::from(sliding)];
        let rule = rule(algorithm, &format!("10/{period_ms}ms"), None);
        let mut wall = 500_000_000_000;
        let mut meter = Meter::full(&rule, ns(wall));
        for (step_us, tokens) in charges {
            wall += step_us * 1000;
            meter.charge(&rule, ns(wall), tokens);
        }
        let before = meter.level(&rule, ns(wall));
        prop_assert!(meter.level(&rule, ns(wall - back)).parts <= before.parts);
        let mut rolled = meter.clone();
        rolled.roll(&rule, ns(wall - back));
        prop_assert_eq!(rolled.level(&rule, ns(wall - back)), meter.level(&rule, ns(wall - back)));
    }

    /// A clock that swings by less than the tolerance admits no more than one that stands at its latest time.
    #[test]
    fn a_swinging_clock_admits_no_more_windows_than_it_saw(
        steps in prop::collection::vec((-9_000i64..9_000, 1u64..5), 1..60),
    ) {
        let rule = rule(Algorithm::FixedWindow, "10/s", None);
        let start = 1_000_000i64;
        let mut meter = Meter::full(&rule, secs(1000));
        let (mut admitted, mut latest) = (0, start);
        for (offset, cost) in steps {
            let at = (latest + offset.min(500)).max(latest - 9_000);
            latest = latest.max(at);
            let now = ms(u64::try_from(at).unwrap());
            if meter.level(&rule, now).covers(cost) {
                meter.charge(&rule, now, cost);
                admitted += cost;
            }
        }
        let windows = u64::try_from(latest / 1000 - start / 1000).unwrap() + 1;
        prop_assert!(admitted <= 10 * windows);
    }
}
