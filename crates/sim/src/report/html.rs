//! One page that opens without a network: what happened first, in a table, then plots. It must not know how a plot is
//! drawn.

use std::fmt::Write as _;

use super::over_time::over_the_run;
use super::plot::{bars, escape, histogram};
use super::words::{sentence, short};
use super::{refusals, value};
use crate::run::RunResult;

const STYLE: &str = include_str!("style.css");

/// Plots are drawn for so many runs; the table has them all.
const PLOTTED_MAX: usize = 24;
/// And for so many limits of each.
const LIMITS_MAX: usize = 4;

/// A page about these runs, complete in itself.
#[must_use]
pub fn html(results: &[RunResult]) -> String {
    let scenarios: Vec<&[RunResult]> = results.chunk_by(|a, b| a.scenario == b.scenario).collect();
    let names: Vec<&str> = scenarios.iter().map(|runs| runs[0].scenario.as_str()).collect();
    let title = escape(&format!("spillgate simulate: {}", names.join(", ")));
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><link rel=\"icon\" href=\"data:,\">\
         <style>{STYLE}</style></head><body><h1>{title}</h1>"
    );
    table(&mut out, &scenarios);
    violations(&mut out, results);
    let mut left = PLOTTED_MAX;
    for runs in scenarios {
        let plotted = &runs[..runs.len().min(left)];
        left -= plotted.len();
        if !plotted.is_empty() {
            compared(&mut out, plotted);
            plotted.iter().for_each(|result| run(&mut out, result));
        }
    }
    if results.len() > PLOTTED_MAX {
        let _ = write!(out, "<p class=\"key\">Plots of the first {PLOTTED_MAX} of {} runs.</p>", results.len());
    }
    out.push_str("</body></html>\n");
    out
}

/// Heads of the table, the measure under each, and whether the sentence has it already: narrow windows leave it there.
const COLUMNS: [(&str, &str, bool); 5] = [
    ("overshoot, tokens", "overshoot", true),
    ("overshoot, % of capacity", "overshoot_percent", true),
    ("utilisation, %", "utilisation_percent", true),
    ("convergence p99, ms", "convergence_p99_ms", false),
    ("bytes/s per node", "bytes_per_node_second", false),
];

fn table(out: &mut String, scenarios: &[&[RunResult]]) {
    let heads: String = COLUMNS.iter().map(|(head, ..)| format!("<th>{head}</th>")).collect();
    let columns = COLUMNS.len() + 3;
    let _ = write!(
        out,
        "<div class=\"scroll\"><table><thead><tr><th class=\"words\">what happened</th><th>seed</th>{heads}\
         <th class=\"words\">refused</th></tr></thead>"
    );
    for runs in scenarios {
        let (name, question) = (escape(&runs[0].scenario), escape(&runs[0].question));
        let _ = write!(
            out,
            "<tbody><tr class=\"scenario\"><th class=\"words\" colspan=\"{columns}\">{name}<small>{question}</small></th></tr>"
        );
        runs.iter().for_each(|result| row(out, result));
        out.push_str("</tbody>");
    }
    out.push_str("</table></div>");
}

fn row(out: &mut String, result: &RunResult) {
    let spread = |name: &str| name.starts_with("convergence") && result.measures.convergence.count == 0;
    let cells = COLUMNS.map(|(head, name, said)| {
        // where nothing is ever confirmed there is no time that it takes
        let text = if spread(name) { "–".to_owned() } else { short(value(&result.measures, name)) };
        let class = if said { " class=\"said\"" } else { "" };
        format!("<td{class} data-head=\"{head}\">{text}</td>")
    });
    let (words, refused) = (told(result), escape(&refusals(&result.measures)));
    let (seed, cells) = (result.seed, cells.concat());
    let _ = write!(
        out,
        "<tr><td class=\"words\">{words}</td><td data-head=\"seed\">{seed}</td>{cells}\
         <td class=\"words small\" data-head=\"refused\">{refused}</td></tr>"
    );
}

/// The sentence, with the strategy's name set off.
fn told(result: &RunResult) -> String {
    let sentence = escape(&sentence(result));
    let name = escape(&result.strategy);
    match sentence.strip_prefix(&name) {
        Some(rest) => format!("<b>{name}</b>{rest}"),
        None => sentence,
    }
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
    ("Admitted, of what one central bucket would have", "utilisation_percent", "%", "bar"),
    ("Traffic per node", "bytes_per_node_second", "bytes/s", "bar"),
];

/// The runs of one scenario side by side.
fn compared(out: &mut String, runs: &[RunResult]) {
    let name = escape(&runs[0].scenario);
    let _ = write!(out, "<h2>{name}: side by side</h2><div class=\"plots\">");
    let seeds = runs.iter().any(|r| r.seed != runs[0].seed);
    for (heading, name, unit, class) in COMPARED {
        let label = |r: &RunResult| if seeds { format!("{}, {}", r.strategy, r.seed) } else { r.strategy.clone() };
        let values: Vec<(String, f64)> = runs.iter().map(|r| (label(r), value(&r.measures, name))).collect();
        figure(out, heading, "", &bars(heading, unit, class, &values));
    }
    out.push_str("</div>");
}

/// A plot under its heading and its key, which are HTML.
pub(super) fn figure(out: &mut String, heading: &str, key: &str, plot: &str) {
    let _ = write!(out, "<figure><figcaption><h3>{heading}</h3>");
    if !key.is_empty() {
        let _ = write!(out, "<p class=\"key\">{key}</p>");
    }
    let _ = write!(out, "</figcaption>{plot}</figure>");
}

fn run(out: &mut String, result: &RunResult) {
    let (strategy, scenario) = (escape(&result.strategy), escape(&result.scenario));
    let _ = write!(out, "<h2>{strategy}<small>{scenario}, seed {}</small></h2><p>{}</p>", result.seed, told(result));
    out.push_str("<div class=\"plots\">");
    for limit in result.measures.limits.iter().take(LIMITS_MAX) {
        over_the_run(out, result, limit);
    }
    let spread = &result.measures.convergence;
    if spread.count > 0 {
        let (median, p99, max) = (short(spread.median_ms), short(spread.p99_ms), short(spread.max_ms));
        let key =
            format!("from a charge to its being confirmed by all: median {median} ms, p99 {p99} ms, longest {max} ms");
        figure(out, "Convergence", &key, &histogram("Convergence", "up to so many ms", "charges", &spread.bars));
    }
    out.push_str("</div>");
}
