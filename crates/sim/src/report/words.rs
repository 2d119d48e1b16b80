//! What happened in a run, in a sentence. It must not know where it is read.

use super::value;
use crate::run::RunResult;

/// One sentence.
pub(super) fn sentence(result: &RunResult) -> String {
    let measures = &result.measures;
    let of = |name| value(measures, name);
    let over = if of("overshoot") > 0.0 {
        format!(
            "went over by {} tokens at worst ({} % of the capacity)",
            short(of("overshoot")),
            short(of("overshoot_percent"))
        )
    } else {
        "never went over the limit".to_owned()
    };
    let used = format!("admitted {} % of what one central bucket would have", short(of("utilisation_percent")));
    let mut more = String::new();
    if of("false_refusals") > 0.0 {
        more.push_str(&format!(
            "; {} % of the requests were refused although tokens were left",
            short(of("false_refusals_percent"))
        ));
    }
    if of("unanswered") > 0.0 {
        more.push_str(&format!("; {} requests were never answered", short(of("unanswered"))));
    }
    if !result.violations.is_empty() {
        more.push_str(&format!("; it broke its promise: {} violation(s)", result.violations.len()));
    }
    format!("{} {over} and {used}{more}.", result.strategy)
}

/// A number with about three digits.
pub(super) fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == v.trunc() || v < 0.00005 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 4,
    };
    format!("{value:.digits$}")
}
