//! One page that opens without a network: what happened first, in a table, then plots. It must not know how a plot is
//! drawn.

use std::fmt::Write as _;

use super::plot::{Line, Shade, bars, escape, histogram, over_time};
use super::words::{sentence, short};
use super::{refusals, value};
use crate::measure::LimitMeasures;
use crate::run::RunResult;

const STYLE: &str = include_str!("style.css");

/// Plots are drawn for so many runs; the table has them all.
const PLOTTED_MAX: usize = 24;
/// And for so many limits of each.
const LIMITS_MAX: usize = 4;

/// A page about these runs, complete in itself.
#[must_use]
pub fn html(results: &[RunResult]) -> String {
    let mut names: Vec<&str> = results.iter().map(|r| r.scenario.as_str()).collect();
    names.dedup();
    let title = escape(&format!("spillgate simulate: {}", names.join(", ")));
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><link rel=\"icon\" href=\"data:,\">\
         <style>{STYLE}</style></head><body><h1>{title}</h1>"
    );
    table(&mut out, results);
    violations(&mut out, results);
    compared(&mut out, results);
    for result in results.iter().take(PLOTTED_MAX) {
        run(&mut out, result);
    }
    if results.len() > PLOTTED_MAX {
        let _ = write!(out, "<p class=\"key\">Plots of the first {PLOTTED_MAX} of {} runs.</p>", results.len());
    }
    out.push_str("</body></html>\n");
    out
}

fn title(result: &RunResult) -> String {
    escape(&format!("{}, {}, seed {}", result.strategy, result.scenario, result.seed))
}

fn table(out: &mut String, results: &[RunResult]) {
    out.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>What happened</th><th>seed</th><th>overshoot, tokens</th>\
         <th>% of capacity</th><th>utilisation, %</th><th>convergence p99, ms</th><th>bytes per node and s</th>\
         <th>refused</th></tr></thead><tbody>",
    );
    for result in results {
        let cells =
            ["overshoot", "overshoot_percent", "utilisation_percent", "convergence_p99_ms", "bytes_per_node_second"]
                .map(|name| format!("<td>{}</td>", short(value(&result.measures, name))));
        let (words, refused) = (escape(&sentence(result)), escape(&refusals(&result.measures)));
        let (seed, cells) = (result.seed, cells.concat());
        let _ = write!(out, "<tr><td class=\"words\">{words}</td><td>{seed}</td>{cells}<td>{refused}</td></tr>");
    }
    out.push_str("</tbody></table></div>");
}

fn violations(out: &mut String, results: &[RunResult]) {
    let mut all = results.iter().flat_map(|r| &r.violations).peekable();
    if all.peek().is_none() {
        return;
    }
    out.push_str("<h2 class=\"bad\">Violations</h2><ul>");
    for violation in all {
        let _ = write!(out, "<li><code>{}</code></li>", escape(&violation.to_string()));
    }
    out.push_str("</ul>");
}

/// A plot's heading, measure, unit and class.
const COMPARED: [(&str, &str, &str, &str); 3] = [
    ("Overshoot at worst", "overshoot", "tokens", "overbar"),
    ("Utilisation: admitted, of what one central bucket would have", "utilisation_percent", "%", "bar"),
    ("Traffic per node", "bytes_per_node_second", "bytes/s", "bar"),
];

fn compared(out: &mut String, results: &[RunResult]) {
    out.push_str("<h2>Side by side</h2>");
    let seeds = results.iter().any(|r| r.seed != results[0].seed);
    let shown = &results[..results.len().min(PLOTTED_MAX)];
    for (heading, name, unit, class) in COMPARED {
        let label = |r: &RunResult| if seeds { format!("{}, {}", r.strategy, r.seed) } else { r.strategy.clone() };
        let values: Vec<(String, f64)> = shown.iter().map(|r| (label(r), value(&r.measures, name))).collect();
        let _ = write!(out, "<h3>{heading}</h3><div class=\"scroll\">{}</div>", bars(heading, unit, class, &values));
    }
}

fn run(out: &mut String, result: &RunResult) {
    let _ = write!(out, "<h2>{}</h2><p>{}</p>", title(result), escape(&sentence(result)));
    for limit in result.measures.limits.iter().take(LIMITS_MAX) {
        over_the_run(out, result, limit);
    }
    let spread = &result.measures.convergence;
    if spread.count > 0 {
        let (median, p99, max) = (short(spread.median_ms), short(spread.p99_ms), short(spread.max_ms));
        let plot =
            histogram("Convergence", "up to so many ms from a charge to its being confirmed by all", &spread.bars);
        let _ = write!(
            out,
            "<h3>Convergence</h3><p class=\"key\">median {median} ms, p99 {p99} ms, longest {max} ms</p>\
             <div class=\"scroll\">{plot}</div>"
        );
    }
}

fn over_the_run(out: &mut String, result: &RunResult, limit: &LimitMeasures) {
    let slice = result.measures.slice_ms / 1000.0;
    if limit.slices.is_empty() || slice <= 0.0 {
        return;
    }
    let end = slice * limit.slices.len() as f64;
    let line = |class, of: &dyn Fn(&crate::measure::Slice) -> f64, filled| {
        let points = limit.slices.iter().enumerate();
        let points = points.map(|(n, s)| ((n as f64 + 0.5) * slice, of(s))).collect();
        Line { class, points, filled }
    };
    let span = |s| Shade { from: s_from(s), until: s_until(s), label: &s.label };
    let shades: Vec<Shade<'_>> = result.measures.spans.iter().map(span).collect();
    let flat = |class, value: f64| Line { class, points: vec![(0.0, value), (end, value)], filled: false };
    let mut rates = vec![
        line("offered", &|s| s.offered as f64 / slice, false),
        line("central", &|s| s.central as f64 / slice, false),
        line("admitted", &|s| s.admitted as f64 / slice, false),
    ];
    // with many keys the limit of one is no line to hold their sum against
    let keys: u64 = limit.classes.iter().map(|c| c.keys).sum();
    let one = keys == 1;
    if one {
        rates.push(flat("limit", limit.rate));
    }
    let name = escape(&limit.name);
    let (rate, drawn) = (short(limit.rate), if one { "<i class=\"l\"></i>limit" } else { "" });
    let faults = if shades.is_empty() { "" } else { "<i class=\"f\"></i>something is broken" };
    let plot = over_time(&format!("Tokens a second under {}", limit.name), "tokens/s", end, &rates, &shades);
    let _ = write!(
        out,
        "<h3>{name}: tokens a second</h3><p class=\"key\">rate {rate}/s, capacity {}, {keys} key(s)<i class=\"a\"></i>admitted\
         <i class=\"o\"></i>offered<i class=\"c\"></i>one central bucket{drawn}{faults}</p><div class=\"scroll\">{plot}</div>",
        limit.capacity
    );
    let mut over = vec![line("over", &|s| s.overshoot, true)];
    if limit.bound_max > 0.0 {
        over.push(line("bound", &|s| s.bound, false));
    }
    let plot = over_time(&format!("Tokens over the limit {}", limit.name), "tokens over", end, &over, &shades);
    let stated = if limit.bound_max > 0.0 { "<i class=\"l\"></i>the most that nodes state" } else { "" };
    let _ = write!(
        out,
        "<h3>{name}: beyond the limit</h3><p class=\"key\"><i class=\"v\"></i>the key that is furthest over{stated}{faults}</p>\
         <div class=\"scroll\">{plot}</div>"
    );
}

const fn s_from(span: &crate::measure::Span) -> f64 {
    span.from_ms / 1000.0
}

const fn s_until(span: &crate::measure::Span) -> f64 {
    span.until_ms / 1000.0
}
