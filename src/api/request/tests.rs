//! Bodies that are read, that can't be read, and whose values are out of range.

use super::*;

fn problem(body: &str) -> Problem {
    check(body.as_bytes()).unwrap_err()
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let wanted = check(br#"{"limit":"api","key":"k"}"#).unwrap();
    assert_eq!((wanted.cost, wanted.wait, &*wanted.priority), (1, Nanos::ZERO, "normal"));
    assert!(matches!((&wanted.limit, &wanted.key), (Limit::Named(Cow::Borrowed("api")), Cow::Borrowed("k"))));
    let nulls = br#"{"limit":"api","key":"k","cost":null,"wait_ms":null,"priority":null}"#;
    assert_eq!(check(nulls).unwrap(), wanted);
}

#[test]
fn every_member_is_read() {
    let wanted = check(br#"{"priority":"low","wait_ms":250,"cost":3.0,"key":"\u00fc","limit":"api"}"#).unwrap();
    assert_eq!((wanted.cost, wanted.wait), (3, Nanos::from_millis(250)));
    assert_eq!((&*wanted.key, &*wanted.priority), ("ü", "low"));
}

#[test]
fn what_cannot_be_read_is_malformed_and_says_where() {
    let cases = [
        ("", "EOF"),
        ("nonsense", "line 1"),
        ("[\"api\",\"k\"]", "expected an object"),
        ("\"api\"", "expected an object"),
        (r#"{"limit":"api"}"#, "missing field `key`"),
        (r#"{"limit":"api","key":"k"} x"#, "trailing characters"),
        (r#"{"limit":"api","key":"k","costs":5}"#, "unknown field `costs`"),
        (r#"{"limit":"api","key":"k","cost":"5"}"#, "expected a number"),
        (r#"{"limit":"api","key":"k","cost":1,"cost":2}"#, "duplicate field `cost`"),
        (r#"{"limit":"api","key":42}"#, "expected a string"),
        (r#"{"limit":7,"key":"k"}"#, "a limit's name or an object"),
        (r#"{"limit":["api"],"key":"k"}"#, "a limit's name or an object"),
        (r#"{"limit":{"name":"x"},"key":"k"}"#, "missing field `rate`"),
        (r#"{"limit":{"name":"x","rate":"1/s","brust":2},"key":"k"}"#, "unknown field `brust`"),
    ];
    for (body, part) in cases {
        let problem = problem(body);
        assert_eq!(problem.kind, Kind::Malformed, "{body}: {}", problem.detail);
        assert!(problem.detail.contains(part), "{body}: {}", problem.detail);
    }
    assert_eq!(check(b"{\"limit\":\"api\",\"key\":\"\xff\"}").unwrap_err().kind, Kind::Malformed);
    let deep = "[".repeat(100_000);
    assert_eq!(problem(&deep).kind, Kind::Malformed);
    assert_eq!(batch(format!("{{\"checks\":{deep}").as_bytes()).unwrap_err().kind, Kind::Malformed);
}

#[test]
fn numbers_out_of_range_are_invalid_and_shown() {
    let with = |member: &str| format!("{{\"limit\":\"api\",\"key\":\"k\",{member}}}");
    for (member, part) in [
        ("\"cost\":-1", "cost -1 must be a whole number from 0 to 1000000000"),
        ("\"cost\":1.5", "cost 1.5 "),
        ("\"cost\":1000000001", "cost 1000000001 "),
        ("\"cost\":99999999999999999999999", "cost 1e23 "),
        ("\"cost\":-0.5", "cost -0.5 "),
        ("\"cost\":1e999", "number out of range"),
        ("\"wait_ms\":60001", "wait_ms 60001 must be a whole number from 0 to 60000"),
    ] {
        let problem = problem(&with(member));
        assert_eq!(problem.kind, Kind::InvalidValue, "{member}: {}", problem.detail);
        assert!(problem.detail.contains(part), "{member}: {}", problem.detail);
    }
    assert_eq!(check(with("\"cost\":1000000000").as_bytes()).unwrap().cost, COST_MAX);
    assert_eq!(check(with("\"cost\":0,\"wait_ms\":60000").as_bytes()).unwrap().cost, 0);
}

#[test]
fn a_key_has_1_to_1024_bytes() {
    let with = |key: &str| format!("{{\"limit\":\"api\",\"key\":\"{key}\"}}");
    assert!(check(with(&"k".repeat(1024)).as_bytes()).is_ok());
    assert!(problem(&with(&"k".repeat(1025))).detail.contains("1025 bytes"));
    assert_eq!(problem(&with("")).kind, Kind::InvalidValue);
    assert_eq!(problem(&with(&"ü".repeat(513))).kind, Kind::InvalidValue);
}

#[test]
fn a_rule_of_ones_own_is_checked_like_any_other() {
    let rule = |members: &str| {
        let body = format!("{{\"limit\":{{\"name\":\"own\",{members}}},\"key\":\"k\"}}");
        check(body.as_bytes()).map(|w| match w.limit {
            Limit::Inline(rule) => rule,
            Limit::Named(name) => panic!("named {name}"),
        })
    };
    let plain = rule(r#""rate":"10/s""#).unwrap();
    assert_eq!((plain.limit(), plain.origin(), plain.capacity()), ("own", Origin::Inline, 10));
    let full = rule(r#""rate":"10/s","burst":20,"algorithm":"leaky-bucket","accuracy":"bounded","max_overshoot":"2%""#);
    let full = full.unwrap();
    assert_eq!((full.algorithm(), full.capacity()), (Algorithm::LeakyBucket, 20));
    assert_eq!(full.spec().accuracy, Accuracy::Bounded { max_overshoot: 0.02 });
    assert_eq!(rule(r#""rate":"1/s","accuracy":"strict""#).unwrap().spec().accuracy, Accuracy::Strict);
    for (members, part) in [
        (r#""rate":"fast""#, "rate \"fast\" is not like"),
        (r#""rate":"1/s","algorithm":"bucket""#, "algorithm \"bucket\" must be one of token-bucket"),
        (r#""rate":"1/s","accuracy":"exact""#, "accuracy \"exact\" must be one of"),
        (r#""rate":"1/s","accuracy":"strict","max_overshoot":"5%""#, "no meaning for accuracy \"strict\""),
        (r#""rate":"1/s","max_overshoot":"5""#, "is not like \"5%\""),
        (r#""rate":"1/s","max_overshoot":7"#, "max_overshoot 7 must be above 0"),
        (r#""rate":"1/s","burst":0"#, "burst 0 must be from 1"),
        (r#""rate":"1/s","burst":-2"#, "burst -2 must be"),
        (r#""rate":"1/s","burst":5,"algorithm":"fixed-window""#, "burst 5 has no meaning"),
    ] {
        let problem = rule(members).unwrap_err();
        assert_eq!(problem.kind, Kind::InvalidValue, "{members}: {}", problem.detail);
        assert!(problem.detail.contains(part), "{members}: {}", problem.detail);
    }
}

#[test]
fn a_batch_has_1_to_1000_checks_and_its_errors_name_the_item() {
    let item = r#"{"limit":"api","key":"k"}"#;
    let of = |n: usize, mode: &str| format!("{{\"checks\":[{}]{mode}}}", vec![item; n].join(","));
    assert_eq!(batch(of(1, "").as_bytes()).unwrap().mode, Mode::Each);
    let all = of(1000, ",\"mode\":\"all\"");
    let all = batch(all.as_bytes()).unwrap();
    assert_eq!((all.checks.len(), all.mode), (1000, Mode::All));
    for n in [0, 1001] {
        let problem = batch(of(n, "").as_bytes()).unwrap_err();
        assert_eq!(problem.kind, Kind::InvalidValue);
        assert!(problem.detail.contains(&format!("{n} checks")), "{}", problem.detail);
    }
    assert!(batch(of(1, ",\"mode\":\"some\"").as_bytes()).unwrap_err().detail.contains("\"some\""));
    let second = format!("{{\"checks\":[{item},{{\"limit\":\"api\",\"key\":\"k\",\"cost\":-3}}]}}");
    let problem = batch(second.as_bytes()).unwrap_err();
    assert!(problem.detail.starts_with("checks[1]: cost -3"), "{}", problem.detail);
    assert_eq!(batch(br#"{"checks":[["api","k"]]}"#).unwrap_err().kind, Kind::Malformed);
}

#[test]
fn refunds_and_resets_take_no_more_than_they_use() {
    let target = refund(br#"{"limit":"api","key":"k","cost":5}"#).unwrap();
    assert_eq!((target.limit, &*target.key, target.cost), (Limit::Named("api".into()), "k", 5));
    assert_eq!(refund(br#"{"limit":"api","key":"k"}"#).unwrap().cost, 1);
    assert_eq!(reset(br#"{"limit":"api","key":"k"}"#).unwrap().cost, 0);
    let problem = reset(br#"{"limit":"api","key":"k","cost":5}"#).unwrap_err();
    assert!(problem.detail.contains("unknown field `cost`"), "{}", problem.detail);
}
