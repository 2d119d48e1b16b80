//! The metrics: read as Prometheus reads them, every name that is documented, and no label that could grow with keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::daemon::{Daemon, start_cluster, until};
use crate::http::start;

const LIMIT: &str =
    "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\n[[limit]]\nname = \"other\"\nrate = \"1/h\"\n";

/// The value of one sample, named with its labels; 0 where there is none.
pub async fn sample(daemon: &Daemon, name: &str) -> f64 {
    Scraped::of(daemon).await.samples.get(name).copied().unwrap_or_default()
}

/// What was scraped: sample name with its labels as they stand, and value.
struct Scraped {
    text: String,
    /// By metric.
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scraped {
    async fn of(daemon: &Daemon) -> Self {
        let answer = daemon.get_raw("/metrics").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(answer.text())
    }

    /// As the text format is defined: one TYPE a metric, before its samples; no sample twice; every value a number.
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let mut scraped = Self { text: text.to_owned(), types: BTreeMap::new(), samples: BTreeMap::new() };
        let mut helped = BTreeSet::new();
        for line in text.lines().filter(|l| !l.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(scraped.types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').expect("a value");
                let metric = scraped.metric_of(sample);
                assert!(scraped.types.contains_key(&metric), "{line} has no type before it");
                let value = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
                assert!(scraped.samples.insert(sample.to_owned(), value).is_none(), "twice: {line}");
            }
        }
        let untold: Vec<_> = scraped.types.keys().filter(|name| !helped.contains(*name)).collect();
        assert!(untold.is_empty(), "without help: {untold:?}");
        scraped
    }

    /// The metric that a sample belongs to: a histogram has three kinds of them.
    fn metric_of(&self, sample: &str) -> String {
        let name = sample.split('{').next().unwrap_or_default();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let histogram = base.filter(|base| self.types.get(*base).is_some_and(|kind| kind == "histogram"));
        histogram.unwrap_or(name).to_owned()
    }

    fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("{sample} is not in\n{}", self.text))
    }

    /// Label names of a metric.
    fn labels(&self, metric: &str) -> BTreeSet<&str> {
        let samples = self.samples.keys().filter(|sample| self.metric_of(sample) == metric);
        let labels = samples.filter_map(|sample| sample.split_once('{')).map(|(_, rest)| rest.trim_end_matches('}'));
        labels.flat_map(|l| l.split(',')).filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect()
    }

    /// That the buckets of a histogram grow up to its count.
    fn assert_histogram(&self, metric: &str) -> f64 {
        let prefix = format!("{metric}_bucket{{le=\"");
        let buckets = self.samples.iter().filter_map(|(sample, value)| {
            let bound = sample.strip_prefix(&prefix)?.strip_suffix("\"}")?;
            Some((bound.replace("+Inf", "inf").parse::<f64>().unwrap(), *value))
        });
        let mut buckets: Vec<(f64, f64)> = buckets.collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.len() > 5 && buckets.is_sorted_by_key(|b| b.1), "{metric}: {buckets:?}");
        let count = self.value(&format!("{metric}_count"));
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{metric}");
        assert_eq!(self.value(&format!("{metric}_sum")) > 0.0, count > 0.0, "{metric}");
        count
    }
}

#[tokio::test]
async fn checks_are_counted_by_limit_and_outcome() {
    let daemon = start().await;
    daemon.check("k", 100).await;
    daemon.check("k", 1).await;
    daemon.check("l", 1).await;
    for _ in 0..3 {
        daemon.post("/v1/check", json!({"limit": "dry", "key": "k"})).await.unwrap();
    }
    daemon.post("/v1/check", json!({"limit": {"name": "own", "rate": "1/s"}, "key": "k"})).await.unwrap();
    assert!(daemon.post("/v1/check", json!({"limit": "api", "key": "k", "cost": 101})).await.is_err());
    let scraped = Scraped::of(&daemon).await;
    let checks =
        |limit, outcome| scraped.value(&format!("spillgate_checks_total{{limit=\"{limit}\",outcome=\"{outcome}\"}}"));
    let outcomes = ["allowed", "would_deny", "over_limit", "unconfirmed", "partition", "too_large"];
    assert_eq!(outcomes.map(|o| checks("api", o)), [2.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!(outcomes.map(|o| checks("dry", o)), [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    // callers' own limits are counted together: their names are as many as callers like
    assert_eq!(outcomes.map(|o| checks("(other)", o)), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(scraped.value("spillgate_keys{limit=\"api\"}"), 2.0);
    assert_eq!(scraped.value("spillgate_unconfirmed_denials_total{limit=\"api\"}"), 0.0);
    assert_eq!(scraped.value("spillgate_overshoot_tokens{limit=\"api\"}"), 0.0);
    assert_eq!(scraped.value("spillgate_evictions_total"), 0.0);
    assert_eq!(scraped.assert_histogram("spillgate_check_duration_seconds"), 8.0);
    assert_eq!(scraped.value(&format!("spillgate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    // to count is no event of its own: nothing else has changed by looking
    let again = Scraped::of(&daemon).await;
    let changed = |name: &&String| name.starts_with("spillgate_") && scraped.value(name) != again.value(name);
    assert_eq!(scraped.samples.keys().filter(changed).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn every_documented_metric_is_there_and_none_grows_with_keys() {
    let daemons = start_cluster(3, LIMIT).await;
    let secret_keys: Vec<String> = (0..50).map(|i| format!("customer-{i}@example.org")).collect();
    for (daemon, key) in daemons.iter().cycle().zip(&secret_keys) {
        daemon.check(key, 1).await;
        assert!(daemon.post("/v1/check", json!({"limit": "nowhere", "key": key})).await.is_err());
    }
    until("the charges have converged and clocks were compared", async || {
        let scraped = Scraped::of(&daemons[0]).await;
        let converged = scraped.samples.get("spillgate_gossip_convergence_seconds_count").is_some_and(|n| *n > 0.0);
        converged && scraped.samples.keys().filter(|s| s.starts_with("spillgate_clock_offset_seconds")).count() == 2
    })
    .await;
    let scraped = Scraped::of(&daemons[0]).await;
    let documented: [(&str, &str, &[&str]); 20] = [
        ("checks_total", "counter", &["limit", "outcome"]),
        ("check_duration_seconds", "histogram", &["le"]),
        ("unconfirmed_denials_total", "counter", &["limit"]),
        ("overshoot_tokens", "gauge", &["limit"]),
        ("overshoot_bound_tokens", "gauge", &["limit"]),
        ("keys", "gauge", &["limit"]),
        ("evictions_total", "counter", &[]),
        ("gossip_frames_total", "counter", &["direction", "peer"]),
        ("gossip_bytes_total", "counter", &["direction"]),
        ("gossip_news_age_seconds", "gauge", &["peer"]),
        ("gossip_round_trip_seconds", "gauge", &["peer"]),
        ("gossip_convergence_seconds", "histogram", &["le"]),
        ("gossip_lost_frames_total", "counter", &["peer"]),
        ("gossip_refused_frames_total", "counter", &[]),
        ("members", "gauge", &["state"]),
        ("mode", "gauge", &["mode"]),
        ("clock_offset_seconds", "gauge", &["peer"]),
        ("build_info", "gauge", &["version"]),
        ("process_cpu_seconds_total", "counter", &[]),
        ("process_resident_memory_bytes", "gauge", &[]),
    ];
    for (name, kind, labels) in documented {
        let name = if name.starts_with("process_") { name.to_owned() } else { format!("spillgate_{name}") };
        assert_eq!(scraped.types.get(&name).map(String::as_str), Some(kind), "{name}");
        assert_eq!(scraped.labels(&name), labels.iter().copied().collect(), "{name}");
    }
    for key in &secret_keys {
        assert!(!scraped.text.contains(key.as_str()), "{key}");
    }
    assert!(!scraped.text.contains("nowhere"));
    assert_eq!(scraped.value("spillgate_members{state=\"alive\"}"), 2.0);
    assert!(scraped.value("process_resident_memory_bytes") > 1e6);
    // three nodes, each may go 5 % over what the bucket holds: the bound says so before it happens
    let bound = scraped.value("spillgate_overshoot_bound_tokens{limit=\"api\"}");
    assert!((1.0..=100.0).contains(&bound), "{bound}");
    assert!(scraped.assert_histogram("spillgate_gossip_convergence_seconds") > 0.0);
    for peer in ["b", "c"] {
        let sent = scraped.value(&format!("spillgate_gossip_frames_total{{peer=\"{peer}\",direction=\"sent\"}}"));
        let received =
            scraped.value(&format!("spillgate_gossip_frames_total{{peer=\"{peer}\",direction=\"received\"}}"));
        assert!(sent > 0.0 && received > 0.0, "{peer}: {sent} sent, {received} received");
        assert!(scraped.value(&format!("spillgate_clock_offset_seconds{{peer=\"{peer}\"}}")).abs() < 1.0);
        assert!(scraped.value(&format!("spillgate_gossip_news_age_seconds{{peer=\"{peer}\"}}")) < 30.0);
    }
    // a thousand keys more make not one line more
    let lines = scraped.samples.len();
    for chunk in 0..4 {
        let checks: Vec<_> = (0..250).map(|i| json!({"limit": "api", "key": format!("more-{chunk}-{i}")})).collect();
        daemons[0].post("/v1/checks", json!({"checks": checks})).await.unwrap();
    }
    assert_eq!(Scraped::of(&daemons[0]).await.samples.len(), lines);
}
