//! Tests of durations and instants.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::rate::parse_duration;

#[test]
fn whole_units_round_up() {
    assert_eq!(Nanos::ZERO.as_millis_ceil(), 0);
    assert_eq!(Nanos(1).as_millis_ceil(), 1);
    assert_eq!(Nanos(1_000_000).as_millis_ceil(), 1);
    assert_eq!(Nanos(1_000_001).as_millis_ceil(), 2);
    assert_eq!(Nanos::MAX.as_millis_ceil(), 18_446_744_073_710);
    assert_eq!(Nanos(999_999_999).as_secs_ceil(), 1);
    assert_eq!(Nanos(1_000_000_001).as_secs_ceil(), 2);
}

#[test]
fn arithmetic_saturates() {
    assert_eq!(Nanos(1).since(Nanos(2)), Nanos::ZERO);
    assert_eq!(Nanos(5).since(Nanos(2)), Nanos(3));
    assert_eq!(Nanos::MAX.plus(Nanos(1)), Nanos::MAX);
    assert_eq!(Nanos::MAX.times(2), Nanos::MAX);
    assert_eq!(Nanos(3).times(4), Nanos(12));
    assert_eq!(Nanos::from_secs(u64::MAX), Nanos::MAX);
    assert_eq!(Nanos::from_millis(u64::MAX), Nanos::MAX);
}

#[test]
fn converts_to_and_from_std() {
    assert_eq!(Nanos::from(Duration::from_millis(3)), Nanos::from_millis(3));
    assert_eq!(Nanos::from(Duration::MAX), Nanos::MAX);
    assert_eq!(Duration::from(Nanos(7)), Duration::from_nanos(7));
    assert!((Nanos::from_millis(1500).as_secs_f64() - 1.5).abs() < 1e-12);
}

#[test]
fn shows_the_largest_unit_that_divides_it() {
    for (nanos, text) in [
        (Nanos::ZERO, "0s"),
        (Nanos(1), "1ns"),
        (Nanos(1_500), "1500ns"),
        (Nanos(2_000), "2us"),
        (Nanos::from_millis(1500), "1500ms"),
        (Nanos::from_secs(10), "10s"),
        (Nanos::from_secs(90), "90s"),
        (Nanos::from_secs(120), "2m"),
        (Nanos::from_secs(7200), "2h"),
        (Nanos::from_secs(86_400), "1d"),
    ] {
        assert_eq!(nanos.to_string(), text);
    }
}

proptest! {
    #[test]
    fn what_is_shown_reads_back(nanos in any::<u64>(), size in prop::sample::select(vec![1u64, 1_000, 60_000_000_000])) {
        let nanos = Nanos(nanos / size * size);
        prop_assert_eq!(parse_duration(&nanos.to_string()), Ok(nanos));
    }
}
