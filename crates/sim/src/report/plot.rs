//! Plots as inline SVG, coloured by the page's style. It must not know what is plotted.

use std::fmt::Write as _;

use super::words::short;

/// As wide as half of a wide window and, with its 13 px letters, legible in a window of 480 px.
const WIDTH: f64 = 560.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// What a letter takes at most, on average, in the widest of common fonts.
const LETTER: f64 = 8.0;

/// A line of a plot over time, or the outline of an area: class of the style, and its points.
pub(super) struct Line {
    pub class: &'static str,
    pub points: Vec<(f64, f64)>,
    pub filled: bool,
}

/// A shaded stretch of the x axis, and what it means.
pub(super) struct Shade {
    pub from: f64,
    pub until: f64,
    pub label: String,
}

/// Text that is safe between tags and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The first of 1, 2, 5, 10, ... (times a power of ten) that is at least a fifth of `most`.
fn step(most: f64) -> f64 {
    let rough = (most / 5.0).max(1e-6);
    let mut power = 1e-6;
    while power * 10.0 <= rough {
        power *= 10.0;
    }
    [1.0, 2.0, 5.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(power * 10.0)
}

fn ticks(most: f64) -> Vec<f64> {
    let step = step(most);
    (0..=20).map(|n| f64::from(n) * step).take_while(|at| *at <= most * 1.0001).collect()
}

fn open(out: &mut String, height: f64, title: &str) {
    let title = escape(title);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\" class=\"plot\"><title>{title}</title>"
    );
}

/// A plot over time in seconds.
pub(super) fn over_time(title: &str, unit: &str, end: f64, lines: &[Line], shades: &[Shade]) -> String {
    let height = 260.0;
    let most = lines.iter().flat_map(|l| &l.points).map(|p| p.1).fold(0.0, f64::max);
    let most = if most > 0.0 { most * 1.08 } else { 1.0 };
    let end = if end > 0.0 { end } else { 1.0 };
    let x = |at: f64| LEFT + (WIDTH - LEFT - RIGHT) * at.clamp(0.0, end) / end;
    let y = |value: f64| height - BOTTOM - (height - TOP - BOTTOM) * value / most;
    let mut out = String::new();
    open(&mut out, height, title);
    for shade in shades {
        let (from, wide) = (x(shade.from), (x(shade.until) - x(shade.from)).max(1.0));
        let (tall, label) = (height - TOP - BOTTOM, escape(&shade.label));
        let _ = write!(
            out,
            "<rect class=\"fault\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{wide:.1}\" height=\"{tall}\"><title>{label}</title></rect>"
        );
    }
    axes(&mut out, height, "time, s", (most, unit), &y);
    for tick in ticks(end) {
        label(&mut out, height, x(tick), &short(tick));
    }
    for line in lines.iter().filter(|l| !l.points.is_empty()) {
        let points: Vec<String> = line.points.iter().map(|(at, v)| format!("{:.1},{:.1}", x(*at), y(*v))).collect();
        let (class, points) = (line.class, points.join(" "));
        let shape = if line.filled { "polygon" } else { "polyline" };
        let _ = write!(out, "<{shape} class=\"{class}\" points=\"{points}\"/>");
    }
    out.push_str("</svg>");
    out
}

/// Text below the x axis.
fn label(out: &mut String, height: f64, x: f64, text: &str) {
    let y = height - BOTTOM + 20.0;
    let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>");
}

/// Both axes with their units, and the labels of the y axis.
fn axes(out: &mut String, height: f64, along: &str, (most, unit): (f64, &str), y: &dyn Fn(f64) -> f64) {
    let (base, right) = (height - BOTTOM, WIDTH - RIGHT);
    for tick in ticks(most) {
        let (at, text) = (y(tick), short(tick));
        let _ = write!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = write!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0, at + 4.0);
    }
    let middle = f64::midpoint(LEFT, right);
    let _ = write!(out, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{along}</text>", height - 8.0);
    let across = f64::midpoint(TOP, base);
    let unit = escape(unit);
    let _ = write!(out, "<text transform=\"translate(14 {across}) rotate(-90)\" text-anchor=\"middle\">{unit}</text>");
    let _ = write!(out, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{base}\" y2=\"{base}\"/>");
}

/// Bars that lie, each with its name before and its value behind.
pub(super) fn bars(title: &str, unit: &str, class: &str, values: &[(String, f64)]) -> String {
    const NAME_MAX: usize = 32;
    let letters = |texts: &mut dyn Iterator<Item = usize>| LETTER * texts.max().unwrap_or(0) as f64 + 8.0;
    let row = 26.0;
    let left = letters(&mut values.iter().map(|(name, _)| name.chars().count().min(NAME_MAX)));
    let right = letters(&mut values.iter().map(|(_, value)| short(*value).len() + 1 + unit.len()));
    let height = row * values.len() as f64 + 8.0;
    let most = values.iter().map(|v| v.1).fold(0.0, f64::max);
    let mut out = String::new();
    open(&mut out, height, title);
    for (place, (name, value)) in values.iter().enumerate() {
        let top = row * place as f64 + 4.0;
        let long = if most > 0.0 { (WIDTH - left - right) * value / most } else { 0.0 };
        let name: String = name.chars().take(NAME_MAX).collect();
        let (name, text, line) = (escape(&name), short(*value), top + 16.0);
        let _ = write!(out, "<text x=\"{}\" y=\"{line}\" text-anchor=\"end\">{name}</text>", left - 8.0);
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{:.1}\" height=\"20\"/>",
            long.max(1.0)
        );
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{line}\">{text} {unit}</text>", left + long + 8.0);
    }
    out.push_str("</svg>");
    out
}

/// Bars that stand side by side: the upper end of each and how many it counts.
pub(super) fn histogram(title: &str, along: &str, across: &str, counts: &[(f64, u64)]) -> String {
    let height = 200.0;
    let most = counts.iter().map(|c| c.1 as f64).fold(1.0, f64::max) * 1.08;
    let wide = (WIDTH - LEFT - RIGHT) / counts.len().max(1) as f64;
    let y = |value: f64| height - BOTTOM - (height - TOP - BOTTOM) * value / most;
    let mut out = String::new();
    open(&mut out, height, title);
    axes(&mut out, height, along, (most, across), &y);
    let every = counts.len().div_ceil(12).max(1);
    for (place, (upper, count)) in counts.iter().enumerate() {
        let (left, top) = (LEFT + wide * place as f64, y(*count as f64));
        let tall = (height - BOTTOM - top).max(1.0);
        let text = short(*upper);
        let _ = write!(
            out,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"><title>{count} up to {text} ms</title></rect>",
            left + 1.0,
            (wide - 2.0).max(1.0)
        );
        if place % every == 0 {
            label(&mut out, height, left + wide / 2.0, &text);
        }
    }
    out.push_str("</svg>");
    out
}
