//! Tests of rates and durations as text, and of a rate's arithmetic.

use proptest::prelude::*;

use super::*;

const DAY: Nanos = Nanos::from_secs(86_400);

#[test]
fn reads_every_form_of_a_rate() {
    for (text, tokens, period) in [
        ("100/s", 100, Nanos::SECOND),
        ("5000/m", 5000, Nanos::from_secs(60)),
        ("5000/min", 5000, Nanos::from_secs(60)),
        ("1000/h", 1000, Nanos::from_secs(3600)),
        ("10/10s", 10, Nanos::from_secs(10)),
        ("1M/d", 1_000_000, DAY),
        ("2k/s", 2_000, Nanos::SECOND),
        ("2K/s", 2_000, Nanos::SECOND),
        ("1G/d", 1_000_000_000, DAY),
        ("1_000_000/s", 1_000_000, Nanos::SECOND),
        ("3/1.5s", 3, Nanos::from_millis(1500)),
        ("1/ms", 1, Nanos::from_millis(1)),
        ("1/0.001s", 1, Nanos::from_millis(1)),
        ("1/366d", 1, PERIOD_MAX),
        ("1000G/s", CAPACITY_MAX, Nanos::SECOND),
        (" 7 / 2m ", 7, Nanos::from_secs(120)),
    ] {
        assert_eq!(text.parse::<Rate>(), Rate::new(tokens, period), "{text}");
        assert!(text.parse::<Rate>().is_ok(), "{text}");
    }
}

#[test]
fn refuses_what_is_not_a_rate() {
    for text in
        ["", "/", "100", "100s", "/s", "100/", "x/s", "-1/s", "+1/s", "1.5/s", "_/s", "k/s", "1kk/s", "1 k/s", "1m/s"]
    {
        assert_eq!(text.parse::<Rate>(), Err(RateError::Rate(text.to_owned())), "{text:?}");
    }
    for text in ["1/x", "1/1", "1/1x", "1/-1s", "1/.5s", "1/1.s", "1/1/s", "1/1µs", "1/1 s", "1/é", "é/s", "1é/s"] {
        assert_eq!(text.parse::<Rate>(), Err(RateError::Rate(text.to_owned())), "{text:?}");
    }
}

#[test]
fn refuses_tokens_and_periods_out_of_range() {
    for text in ["0/s", "0k/s", "1000000000001/s", "1001G/s", "99999999999999999999/s", "18446744073709551615M/s"] {
        assert_eq!(text.parse::<Rate>(), Err(RateError::Tokens(text.to_owned())), "{text:?}");
    }
    for text in ["1/0", "1/0s", "1/999us", "1/999999ns", "1/367d", "1/999999999d", "1/99999999999999999999s"] {
        assert_eq!(text.parse::<Rate>(), Err(RateError::Period(text.to_owned())), "{text:?}");
    }
    assert_eq!(Rate::new(0, Nanos::SECOND), Err(RateError::Tokens("0/1s".to_owned())));
    assert_eq!(Rate::new(1, Nanos(PERIOD_MIN.0 - 1)), Err(RateError::Period("1/999999ns".to_owned())));
    assert!(Rate::new(1, PERIOD_MIN).is_ok());
    assert!(Rate::new(1, Nanos(PERIOD_MAX.0 + 1)).is_err());
}

#[test]
fn errors_say_what_is_allowed_and_stay_short() {
    let error = |text: &str| text.parse::<Rate>().unwrap_err().to_string();
    assert_eq!(error("1/367d"), r#"the period of rate "1/367d" must be from 1ms to 366d"#);
    assert_eq!(error("0/s"), r#"rate "0/s" must give from 1 to 1000000000000 tokens a period"#);
    assert!(error("x").contains(r#""x" is not like "100/s""#));
    for text in ["9".repeat(1 << 20) + "/s", "1/".to_owned() + &"9".repeat(1 << 20) + "s", "x".repeat(1 << 20)] {
        assert!(error(&text).len() < 256);
        assert!(parse_duration(&text).unwrap_err().to_string().len() < 256);
    }
}

#[test]
fn reads_every_form_of_a_duration() {
    for (text, nanos) in [
        ("0", 0),
        ("0s", 0),
        ("7ns", 7),
        ("7us", 7_000),
        ("10ms", 10_000_000),
        ("1.5s", 1_500_000_000),
        ("0.000000001s", 1),
        ("1m", 60_000_000_000),
        ("1min", 60_000_000_000),
        ("2h", 7_200_000_000_000),
        ("1d", DAY.0),
        (" 1s ", 1_000_000_000),
        ("18446744073709551615ns", u64::MAX),
    ] {
        assert_eq!(parse_duration(text), Ok(Nanos(nanos)), "{text}");
    }
}

#[test]
fn refuses_what_is_not_a_duration() {
    for text in ["", "1", "00", "s", ".5s", "1.s", "1..5s", "1.5.5s", "-1s", "1 s", "1x", "1S", "1.0000000001s", "1sé"]
    {
        assert_eq!(parse_duration(text), Err(RateError::Duration(text.to_owned())), "{text:?}");
    }
    for text in ["18446744073709551616ns", "213504d", "99999999999999999999s"] {
        assert_eq!(parse_duration(text), Err(RateError::TooLong(text.to_owned())), "{text:?}");
    }
    assert!(parse_duration("213503d").is_ok());
}

#[test]
fn shows_a_rate_as_it_is_written() {
    for text in ["100/s", "5000/m", "10/10s", "1000000/d", "3/1500ms", "1/ms", "1/11d", "1/366d"] {
        assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
    }
}

#[test]
fn tokens_round_down_and_times_round_up() {
    let rate = Rate::new(3, Nanos::SECOND).unwrap();
    assert_eq!(rate.tokens_in(Nanos(333_333_333)), 0);
    assert_eq!(rate.tokens_in(Nanos(333_333_334)), 1);
    assert_eq!(rate.time_for(1), Nanos(333_333_334));
    assert_eq!(rate.time_for(3), Nanos::SECOND);
    assert_eq!(rate.time_for(0), Nanos::ZERO);
    assert_eq!(Rate::new(1, PERIOD_MAX).unwrap().time_for(CAPACITY_MAX), Nanos::MAX);
    assert_eq!(Rate::new(CAPACITY_MAX, PERIOD_MIN).unwrap().tokens_in(Nanos::MAX), u64::MAX);
    assert!((Rate::new(1, DAY).unwrap().per_second() - 1.0 / 86_400.0).abs() < 1e-15);
}

proptest! {
    #[test]
    fn what_is_shown_reads_back(tokens in 1..=CAPACITY_MAX, period in PERIOD_MIN.0..=PERIOD_MAX.0, size in 0usize..7) {
        let size = [1, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000, 3_600_000_000_000, DAY.0][size];
        let rate = Rate::new(tokens, Nanos((period / size * size).max(size.max(PERIOD_MIN.0)))).unwrap();
        prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
    }

    #[test]
    fn no_text_panics(text in "\\PC*", number in "[0-9_.kMG]{0,24}", unit in "[0-9.a-zµ]{0,24}") {
        for text in [text, format!("{number}/{unit}"), format!("{number}{unit}")] {
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert!((1..=CAPACITY_MAX).contains(&rate.tokens()));
                prop_assert!((PERIOD_MIN..=PERIOD_MAX).contains(&rate.period()));
            }
            let _ = parse_duration(&text);
        }
    }

    /// `time_for` is the shortest time in which `tokens_in` gives that many.
    #[test]
    fn time_and_tokens_agree(tokens in 1..=CAPACITY_MAX, period in PERIOD_MIN.0..=PERIOD_MAX.0, n in 1..=CAPACITY_MAX) {
        let rate = Rate::new(tokens, Nanos(period)).unwrap();
        let time = rate.time_for(n);
        if time < Nanos::MAX {
            prop_assert!(rate.tokens_in(time) >= n);
            prop_assert!(rate.tokens_in(Nanos(time.0 - 1)) < n);
        }
    }
}
