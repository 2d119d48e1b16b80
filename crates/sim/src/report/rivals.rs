//! Who does better than spillgate in a scenario: goes over by no more, and admits more. It must not know why.

use std::fmt::Write as _;

use super::value;
use crate::run::RunResult;

/// What is set against all others.
pub const OURS: [&str; 2] = ["bounded", "strict"];
/// What no real system can be.
const IDEAL: &str = "oracle";
/// Overshoots nearer than this are the same, tokens.
const SAME_TOKENS: f64 = 1e-6;
/// Utilisations nearer than this are the same, percent.
const SAME_PERCENT: f64 = 0.05;

/// One that outdoes one of ours in a run of the same scenario and seed.
#[derive(Clone, Copy, Debug)]
pub struct Rival<'r> {
    /// Ours.
    pub ours: &'r RunResult,
    /// The one that outdoes it.
    pub other: &'r RunResult,
    /// Whether it even goes over by less; else by as much.
    pub less_over: bool,
}

/// All who go over by no more than one of ours and admit more, among `results`.
///
/// spillgate's own accuracies are not held against one another: that each buys something is what they are for.
pub fn rivals(results: &[RunResult]) -> impl Iterator<Item = Rival<'_>> {
    let ours = results.iter().filter(|r| OURS.contains(&r.strategy.as_str()));
    ours.flat_map(move |ours| {
        let same = move |r: &&RunResult| r.scenario == ours.scenario && r.seed == ours.seed;
        results.iter().filter(same).filter_map(move |other| compare(ours, other))
    })
}

fn compare<'r>(ours: &'r RunResult, other: &'r RunResult) -> Option<Rival<'r>> {
    let own = [IDEAL, "gossip"].iter().chain(&OURS).any(|name| *name == other.strategy);
    let of = |name| (value(&ours.measures, name), value(&other.measures, name));
    let (over, over_other) = of("overshoot");
    let (used, used_other) = of("utilisation_percent");
    let outdoes = over_other <= over + SAME_TOKENS && used_other > used + SAME_PERCENT;
    (!own && outdoes).then_some(Rival { ours, other, less_over: over_other < over - SAME_TOKENS })
}

/// Who outdoes which of ours in one scenario and seed, in a line of words; nothing where none of ours was run beside
/// others.
pub(super) fn sentence(results: &[RunResult]) -> String {
    let others = results.iter().any(|r| r.strategy != IDEAL && !OURS.contains(&r.strategy.as_str()));
    let mut out = String::new();
    for ours in results.iter().filter(|r| others && OURS.contains(&r.strategy.as_str())) {
        let name = &ours.strategy;
        let of = |less: bool| {
            let all = rivals(results).filter(|r| r.ours.strategy == *name && r.ours.seed == ours.seed);
            all.filter(|r| r.less_over == less).map(|r| described(&r)).collect::<Vec<_>>().join(", ")
        };
        let (less, equal) = (of(true), of(false));
        let _ = match less.is_empty() {
            true => write!(out, "  nobody goes over by less and admits more than {name}"),
            false => write!(out, "  OUTDONE {name}: less over and more admitted: {less}"),
        };
        let _ = match equal.is_empty() {
            true => writeln!(out),
            false => writeln!(out, "; as little over and more admitted: {equal}"),
        };
    }
    out
}

/// The rival's name; and how long its answers take, where clients wait for each.
pub(super) fn described(rival: &Rival<'_>) -> String {
    let wait = value(&rival.other.measures, "wait_median_ms");
    let name = &rival.other.strategy;
    if wait > 0.0 { format!("{name} (answers take {wait:.0} ms)") } else { name.clone() }
}
