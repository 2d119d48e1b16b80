//! Whatever the text, there is an answer: a configuration that keeps its promises, or problems with lines.

use proptest::prelude::*;

use super::super::overrides::parse_limit_flag;
use super::super::{ConfigError, Overrides};
use super::read_with;

const SHIPPED: &str = include_str!("../../../config/spillgate.toml");

/// Pieces that files are made of, well and badly put.
const PIECES: &[&str] = &[
    "[node]",
    "[http]",
    "[cluster]",
    "[cluster.tls]",
    "[[limit]]",
    "[[limit.override]]",
    "[limit]",
    "[limit.reserve]",
    "node.",
    "limit.override.key",
    "name",
    "id",
    "rate",
    "burst",
    "key",
    "listen",
    "seeds",
    "secret_file",
    "reserve",
    "accuracy",
    "max_overshoot",
    "gossip_interval",
    "algorithm",
    "unix",
    " = ",
    "\"100/s\"",
    "'5%'",
    "\"10ms\"",
    "0",
    "-1",
    "99999999999999999999999",
    "0x_f",
    "0xff",
    "1e400",
    "nan",
    "-inf",
    "true",
    "1979-05-27",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\"",
    "'''",
    "#",
    "\u{feff}",
    "\0",
    "ä",
    "\\u00",
    "*",
    "api",
    "strict",
];

/// Asserts what holds of every text.
fn answers(text: &str) {
    match read_with(text, &Overrides::default()) {
        Ok(config) => {
            assert!(config.node.max_keys >= 1000);
            assert!(config.http.listen.is_some() || config.http.unix.is_some());
            assert!(config.limits.iter().all(|(name, limit)| name == limit.rule().limit()));
            assert!(!config.to_string().is_empty());
        }
        Err(ConfigError::Invalid(problems)) => {
            let lines = text.matches('\n').count() + 1;
            assert!(!problems.all().is_empty());
            for problem in problems.all() {
                assert!(problem.line().is_none_or(|line| (1..=lines).contains(&line)), "{problem:?} of {text:?}");
                assert!(!problem.text().contains('\n'), "{problem:?}");
            }
        }
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #[test]
    fn any_text_gets_an_answer(text in "(?s).{0,200}") {
        answers(&text);
    }

    #[test]
    fn anything_that_looks_like_a_file_gets_an_answer(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60),
    ) {
        answers(&pieces.concat());
    }

    #[test]
    fn a_damaged_file_gets_an_answer(
        at in 0..SHIPPED.len(),
        len in 0..200usize,
        piece in prop::sample::select(PIECES),
    ) {
        let mut bytes = SHIPPED.replace("\n# ", "\n").into_bytes();
        let at = at.min(bytes.len());
        let end = (at + len).min(bytes.len());
        bytes.splice(at..end, piece.bytes());
        answers(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_limit_flag_gets_an_answer(text in ".{0,40}", name in "[a-z=:]{0,5}", rate in "[0-9kM/smhd:]{0,12}") {
        let _ = parse_limit_flag(&text);
        if let Ok(limit) = parse_limit_flag(&format!("{name}={rate}")) {
            prop_assert!(limit.rule().capacity() > 0);
        }
    }
}
