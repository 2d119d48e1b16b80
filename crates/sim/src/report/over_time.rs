//! A run over time: what was admitted beside the limit, and how far it went over. It must not know how a plot is drawn.

use super::html::figure;
use super::plot::{Line, Shade, escape, over_time};
use super::words::short;
use crate::measure::{LimitMeasures, Slice, Span};
use crate::run::RunResult;

/// So many faults are told in words; all are shaded.
const FAULTS_TOLD: usize = 3;

/// The slices of one limit.
struct Course<'r> {
    limit: &'r LimitMeasures,
    /// How long one is, seconds.
    slice: f64,
    shades: Vec<Shade>,
    /// What the shades mean, as HTML.
    faults: String,
}

impl Course<'_> {
    fn end(&self) -> f64 {
        self.slice * self.limit.slices.len() as f64
    }

    fn middle(&self, place: usize) -> f64 {
        (place as f64 + 0.5) * self.slice
    }

    fn line(&self, class: &'static str, of: impl Fn(&Slice) -> f64) -> Line {
        let points = self.limit.slices.iter().enumerate().map(|(n, s)| (self.middle(n), of(s)));
        Line { class, points: points.collect(), filled: false }
    }

    fn flat(&self, class: &'static str, value: f64) -> Line {
        Line { class, points: vec![(0.0, value), (self.end(), value)], filled: false }
    }

    /// Where some key was over: what was admitted there above `ground`, as areas.
    fn while_over(&self, ground: impl Fn(&Slice) -> f64) -> Vec<Line> {
        let slices: Vec<(usize, &Slice)> = self.limit.slices.iter().enumerate().collect();
        let stretches = slices.chunk_by(|a, b| (a.1.overshoot > 0.0) == (b.1.overshoot > 0.0));
        let areas = stretches.filter(|stretch| stretch[0].1.overshoot > 0.0).map(|stretch| {
            let (first, last) =
                (stretch[0].0 as f64 * self.slice, (stretch[stretch.len() - 1].0 + 1) as f64 * self.slice);
            let admitted = |s: &Slice| (s.admitted as f64 / self.slice).max(ground(s));
            let edge =
                |at: f64, (n, s): (usize, &Slice), of: &dyn Fn(&Slice) -> f64| [(at, of(s)), (self.middle(n), of(s))];
            let along = |of: &dyn Fn(&Slice) -> f64| {
                let mut points = edge(first, stretch[0], of).to_vec();
                points.extend(stretch.iter().map(|(n, s)| (self.middle(*n), of(s))));
                points.push((last, of(stretch[stretch.len() - 1].1)));
                points
            };
            let back = along(&|s| ground(s));
            let points = along(&admitted).into_iter().chain(back.into_iter().rev()).collect();
            Line { class: "over", points, filled: true }
        });
        areas.collect()
    }
}

/// Both plots of one limit.
pub(super) fn over_the_run(out: &mut String, result: &RunResult, limit: &LimitMeasures) {
    let slice = result.measures.slice_ms / 1000.0;
    if limit.slices.is_empty() || slice <= 0.0 {
        return;
    }
    let spans = &result.measures.spans;
    let shades = spans.iter().map(|s| Shade { from: s.from_ms / 1e3, until: s.until_ms / 1e3, label: s.label.clone() });
    let course = Course { limit, slice, shades: shades.collect(), faults: faults(spans) };
    rates(out, &course);
    beyond(out, &course);
}

fn rates(out: &mut String, course: &Course<'_>) {
    let Course { limit, slice, .. } = course;
    // with many keys the limit of one is no line to hold their sum against
    let keys: u64 = limit.classes.iter().map(|c| c.keys).sum();
    let one = keys == 1;
    let mut lines =
        if one { course.while_over(|_| limit.rate) } else { course.while_over(|s| s.central as f64 / slice) };
    let over = if lines.is_empty() { String::new() } else { entry("v", "while over the limit") };
    lines.extend([
        course.line("offered", |s| s.offered as f64 / slice),
        course.line("central", |s| s.central as f64 / slice),
        course.line("admitted", |s| s.admitted as f64 / slice),
    ]);
    if one {
        lines.push(course.flat("limit", limit.rate));
    }
    let drawn = if one { entry("l", "limit") } else { String::new() };
    let held = if one { "one key".to_owned() } else { format!("{keys} keys") };
    let entries =
        [entry("a", "admitted"), entry("o", "offered"), entry("c", "one central bucket"), drawn, over].concat();
    let (rate, capacity, faults) = (short(limit.rate), limit.capacity, &course.faults);
    let key = format!("{held}, rate {rate}/s, capacity {capacity}<br>{entries}{faults}");
    let plot =
        over_time(&format!("Tokens a second under {}", limit.name), "tokens/s", course.end(), &lines, &course.shades);
    figure(out, &format!("{}: tokens a second", escape(&limit.name)), &key, &plot);
}

/// None where nothing was over and no bound is stated: the sentence has said so.
fn beyond(out: &mut String, course: &Course<'_>) {
    let limit = course.limit;
    let mut lines = Vec::new();
    let mut key = String::new();
    if limit.overshoot > 0.0 {
        let Line { class, points, .. } = course.line("over", |s| s.overshoot);
        let ends = [(points[0].0, 0.0)].into_iter().chain(points.iter().copied());
        let points = ends.chain([(points[points.len() - 1].0, 0.0)]).collect();
        lines.push(Line { class, points, filled: true });
        key.push_str(&entry("v", "the key that is furthest over"));
    }
    if limit.bound_max > 0.0 {
        lines.push(course.line("bound", |s| s.bound));
        key.push_str(&entry("l", "the most that nodes state could be over"));
    }
    if lines.is_empty() {
        return;
    }
    key.push_str(&course.faults);
    let title = format!("Tokens over the limit {}", limit.name);
    let plot = over_time(&title, "tokens over the limit", course.end(), &lines, &course.shades);
    figure(out, &format!("{}: beyond the limit", escape(&limit.name)), &key, &plot);
}

/// What was wrong and when, for a plot's key.
fn faults(spans: &[Span]) -> String {
    if spans.is_empty() {
        return String::new();
    }
    let seconds = |ms: f64| short(ms / 1000.0);
    let told = |s: &Span| format!("{}, {} to {} s", escape(&s.label), seconds(s.from_ms), seconds(s.until_ms));
    let mut all: Vec<String> = spans.iter().take(FAULTS_TOLD).map(told).collect();
    if spans.len() > FAULTS_TOLD {
        all.push(format!("and {} more", spans.len() - FAULTS_TOLD));
    }
    entry("f", &all.join("; "))
}

/// What a mark in a plot means, as HTML.
fn entry(class: &str, meaning: &str) -> String {
    format!("<span><i class=\"{class}\"></i>{meaning}</span>")
}
