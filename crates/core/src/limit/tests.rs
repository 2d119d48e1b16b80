//! Tests of rules, overrides and the set of limits.

use super::*;
use crate::rate::PERIOD_MAX;

fn spec(algorithm: Algorithm, rate: &str) -> RuleSpec {
    RuleSpec::new(algorithm, rate.parse().unwrap())
}

fn bucket(rate: &str, burst: Option<u64>) -> RuleSpec {
    RuleSpec { burst, ..spec(Algorithm::TokenBucket, rate) }
}

fn rule(spec: RuleSpec) -> Result<Rule, LimitError> {
    Rule::new("api", Origin::Configured, spec)
}

fn over(key: &str, rate: Option<&str>, burst: Option<u64>) -> OverrideSpec {
    OverrideSpec { key: key.to_owned(), rate: rate.map(|r| r.parse().unwrap()), burst }
}

#[test]
fn names_are_what_a_label_and_a_header_can_carry() {
    let named = |name: &str| Rule::new(name, Origin::Inline, bucket("1/s", None));
    for name in ["a", "Api-1_x.y:z", &"n".repeat(NAME_BYTES_MAX)] {
        assert_eq!(named(name).unwrap().limit(), name);
    }
    for name in ["", " ", "a b", "a/b", "é", "a\"", "a\n", &"n".repeat(NAME_BYTES_MAX + 1)] {
        assert!(matches!(named(name), Err(LimitError::Name(_))), "{name:?}");
    }
    let Err(LimitError::Name(shown)) = named(&"é".repeat(10_000)) else { panic!("accepted") };
    assert!(shown.chars().count() <= NAME_BYTES_MAX);
    assert_eq!(named("a").unwrap().origin(), Origin::Inline);
}

#[test]
fn capacity_is_the_burst_or_a_second_or_the_window() {
    let capacity = |spec| rule(spec).unwrap().capacity();
    assert_eq!(capacity(bucket("100/s", None)), 100);
    assert_eq!(capacity(bucket("100/s", Some(7))), 7);
    assert_eq!(capacity(bucket("90/m", None)), 1);
    assert_eq!(capacity(bucket("1/d", None)), 1);
    assert_eq!(capacity(bucket("1000G/ms", None)), CAPACITY_MAX);
    assert_eq!(capacity(spec(Algorithm::FixedWindow, "90/m")), 90);
    assert_eq!(capacity(spec(Algorithm::SlidingWindow, "90/m")), 90);
    assert_eq!(rule(bucket("1/s", Some(0))), Err(LimitError::Burst(0)));
    assert_eq!(rule(bucket("1/s", Some(CAPACITY_MAX + 1))), Err(LimitError::Burst(CAPACITY_MAX + 1)));
    assert_eq!(capacity(bucket("1/s", Some(CAPACITY_MAX))), CAPACITY_MAX);
}

#[test]
fn window_is_the_time_to_fill() {
    let window = |spec| rule(spec).unwrap().window();
    assert_eq!(window(bucket("100/s", Some(200))), Nanos::from_secs(2));
    assert_eq!(window(bucket("3/s", Some(1))), Nanos(333_333_334));
    assert_eq!(window(spec(Algorithm::FixedWindow, "90/m")), Nanos::from_secs(60));
}

#[test]
fn parts_are_the_rate_in_lowest_terms() {
    let parts = |rate| {
        let rule = rule(bucket(rate, None)).unwrap();
        (rule.parts_per_ns(), rule.parts_per_token())
    };
    assert_eq!(parts("100/s"), (1, 10_000_000));
    assert_eq!(parts("3/s"), (3, 1_000_000_000));
    assert_eq!(parts("10M/s"), (1, 100));
    assert_eq!(parts("1000G/s"), (1000, 1));
    assert_eq!(parts("1/366d"), (1, PERIOD_MAX.0));
}

#[test]
fn what_does_not_fit_the_algorithm_is_refused() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        assert!(algorithm.windowed());
        let with_burst = RuleSpec { burst: Some(5), ..spec(algorithm, "5/s") };
        assert_eq!(rule(with_burst), Err(LimitError::BurstOfWindow(5, algorithm.as_str())));
    }
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow] {
        let with_delay = RuleSpec { max_delay: Some(Nanos::SECOND), ..spec(algorithm, "5/s") };
        assert_eq!(rule(with_delay), Err(LimitError::DelayOfOther(algorithm.as_str())));
    }
    assert!(rule(RuleSpec { max_delay: Some(Nanos::ZERO), ..spec(Algorithm::LeakyBucket, "5/s") }).is_ok());
}

#[test]
fn fractions_are_in_range() {
    for max_overshoot in [0.0, -0.1, 1.01, f64::NAN, f64::INFINITY] {
        let accuracy = Accuracy::Bounded { max_overshoot };
        let refused = rule(RuleSpec { accuracy, ..bucket("1/s", None) });
        assert!(matches!(refused, Err(LimitError::MaxOvershoot(_))), "{max_overshoot}");
    }
    for max_overshoot in [f64::MIN_POSITIVE, 0.05, 1.0] {
        assert!(rule(RuleSpec { accuracy: Accuracy::Bounded { max_overshoot }, ..bucket("1/s", None) }).is_ok());
    }
    for fraction in [-0.1, 1.01, f64::NAN] {
        let reserve = vec![Reserve { priority: "low".to_owned(), fraction }];
        assert!(matches!(rule(RuleSpec { reserve, ..bucket("1/s", None) }), Err(LimitError::Reserve(..))));
    }
}

#[test]
fn reserve_is_to_the_nearest_token() {
    let reserving = |capacity, reserve: &[(&str, f64)]| {
        let reserve = reserve.iter().map(|(p, f)| Reserve { priority: (*p).to_owned(), fraction: *f }).collect();
        rule(RuleSpec { reserve, ..bucket("1/s", Some(capacity)) }).unwrap()
    };
    let low = reserving(100, &[("low", 0.29), ("batch", 0.5)]);
    assert_eq!(low.reserved("low"), Some(29), "0.29 * 100 is 28.999999999999996");
    assert_eq!(low.reserved("batch"), Some(50));
    assert_eq!(low.reserved("normal"), Some(0));
    assert_eq!(low.reserved("unheard"), None);
    assert_eq!(reserving(100, &[]).reserved("unheard"), Some(0));
    assert_eq!(reserving(100, &[("high", 0.0), ("normal", 0.1)]).reserved("normal"), Some(10));
    assert_eq!(reserving(CAPACITY_MAX, &[("low", 1.0)]).reserved("low"), Some(CAPACITY_MAX));
}

#[test]
fn exact_override_beats_the_longest_prefix() {
    let overrides = [
        over("tenant:*", Some("2/s"), None),
        over("tenant:premium-*", Some("3/s"), None),
        over("tenant:premium-7", Some("4/s"), None),
        over("tenant:premium-77*", Some("5/s"), None),
        over("*", Some("6/s"), None),
    ];
    let limit = Limit::new("api", bucket("1/s", None), &overrides).unwrap();
    for (key, tokens) in [
        ("tenant:premium-7", 4),
        ("tenant:premium-8", 3),
        ("tenant:premium-", 3),
        ("tenant:premium-778", 5),
        ("tenant:premium-77", 5),
        ("tenant:free", 2),
        ("tenant", 6),
        ("", 6),
    ] {
        assert_eq!(limit.rule_for(key).rate().tokens(), tokens, "{key}");
    }
    assert_eq!(limit.rule().rate().tokens(), 1);
    let shown: Vec<_> = limit.overrides().into_iter().map(|(key, _)| key).collect();
    assert_eq!(shown, ["tenant:premium-7", "tenant:premium-77*", "tenant:premium-*", "tenant:*", "*"]);

    let plain = Limit::new("api", bucket("1/s", None), &overrides[2..3]).unwrap();
    assert_eq!(plain.rule_for("tenant:premium-70").rate().tokens(), 1);
}

#[test]
fn override_takes_what_it_does_not_say_from_the_limit() {
    let overrides =
        [over("rate", Some("50/s"), None), over("burst", None, Some(9)), over("both", Some("5/s"), Some(8))];
    let limit = Limit::new("api", RuleSpec { enforce: false, ..bucket("10/s", Some(20)) }, &overrides).unwrap();
    let rate_and_capacity = |key| {
        let rule = limit.rule_for(key);
        assert!(!rule.spec().enforce);
        assert_eq!(rule.limit(), "api");
        (rule.rate().tokens(), rule.capacity())
    };
    assert_eq!(rate_and_capacity("other"), (10, 20));
    assert_eq!(rate_and_capacity("rate"), (50, 50));
    assert_eq!(rate_and_capacity("burst"), (10, 9));
    assert_eq!(rate_and_capacity("both"), (5, 8));
}

#[test]
fn broken_overrides_are_refused() {
    let with = |overrides: &[OverrideSpec]| Limit::new("api", bucket("1/s", None), overrides);
    for key in ["", "a*b", "a**", "*a", "**", &"k".repeat(KEY_BYTES_MAX + 1)] {
        assert!(matches!(with(&[over(key, None, None)]), Err(LimitError::Pattern(_))), "{key:?}");
    }
    assert!(with(&[over(&"k".repeat(KEY_BYTES_MAX), None, None)]).is_ok());
    for key in ["a", "a*"] {
        let twice = with(&[over(key, None, None), over(key, Some("2/s"), None)]);
        assert_eq!(twice, Err(LimitError::DuplicatePattern(key.to_owned())));
    }
    assert!(with(&[over("a", None, None), over("a*", None, None)]).is_ok());
    assert_eq!(with(&[over("a", None, Some(0))]), Err(LimitError::Burst(0)));
    let window = Limit::new("api", spec(Algorithm::FixedWindow, "1/s"), &[over("a", None, Some(5))]);
    assert_eq!(window, Err(LimitError::BurstOfWindow(5, "fixed-window")));
}

#[test]
fn limits_are_found_by_name_and_unique() {
    let named = |name| Limit::new(name, bucket("1/s", None), &[]).unwrap();
    let limits = Limits::new([named("b"), named("a")]).unwrap();
    assert_eq!(limits.len(), 2);
    assert!(!limits.is_empty());
    assert_eq!(limits.find("a").unwrap().rule().limit(), "a");
    assert!(limits.find("c").is_none());
    assert_eq!(limits.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(Limits::new([named("a"), named("a")]), Err(LimitError::Duplicate("a".to_owned())));
    assert!(Limits::default().is_empty());
}
