//! `[[workload]]`: where requests come from, what they ask for, and what refused clients do. It must not know how they
//! are drawn.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use spillgate_core::limit::{COST_MAX, KEY_BYTES_MAX};
use spillgate_core::time::Nanos;

use super::keys::{KeyIndex, Keys};
use super::limits::{LimitIndex, ScenarioLimit};
use super::nodes::{Endpoint, Nodes};
use super::reader::Table;
use super::{ReadFile, lasting};

/// The most keys of one workload.
const KEYS_MAX: u64 = 10_000_000;
/// The fastest workload, requests a second.
const RATE_MAX: f64 = 1e9;

/// A stream of requests.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What reports call it.
    pub name: String,
    /// Under which limit it asks.
    pub limit: LimitIndex,
    /// Requests a second, by its [`Shape`] at its base.
    pub rate: f64,
    /// How the moments of requests are drawn.
    pub arrivals: Arrivals,
    /// How the rate goes over time.
    pub shape: Shape,
    /// Whether all nodes' demand goes up and down together.
    pub phases: Phases,
    /// Which node is asked.
    pub nodes: NodeChoice,
    /// Under which key.
    pub keys: KeyChoice,
    /// For how much.
    pub cost: Cost,
    /// When it begins and ends.
    pub span: (Nanos, Nanos),
    /// How long an answer may be held, beyond what the limit's own `confirm_wait` does.
    pub wait: Nanos,
    /// What refused clients do; `None`: they go away.
    pub retry: Option<Retry>,
}

/// How moments are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Independently of one another.
    Poisson,
    /// Evenly spaced.
    Constant,
}

/// How the rate goes over time.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// As it is.
    Steady,
    /// As it is for `on`, nothing for `off`, and so on; the base is the rate while on.
    OnOff {
        /// How long on.
        on: Nanos,
        /// How long off.
        off: Nanos,
        /// Whether the lengths are drawn, exponentially with these means.
        random: bool,
    },
    /// A sine about the base.
    Diurnal {
        /// One day's length.
        period: Nanos,
        /// How far it goes up and down, as a part of the base.
        amplitude: f64,
    },
    /// Times `factor` from `at` on, for `lasts`.
    Flash {
        /// When the crowd comes, since the start of the workload.
        at: Nanos,
        /// How long it stays.
        lasts: Nanos,
        /// How many times the base it is.
        factor: f64,
        /// How long it takes to grow to that, and to go.
        ramp: Nanos,
    },
    /// A recorded one.
    Trace(Arc<[TraceRow]>),
}

/// One recorded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// When, since the start of the workload.
    pub at: Nanos,
    /// Under which key.
    pub key: KeyIndex,
    /// For how many tokens.
    pub cost: u64,
}

/// Whether nodes' demand goes up and down together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phases {
    /// One stream, spread over the nodes.
    Together,
    /// Each node has a stream of its own, of its part of the rate, that begins at another point of the shape.
    PerNode,
}

/// Which node is asked; where it takes no requests, the next one that does.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeChoice {
    /// Any, by weight.
    Weighted(Vec<f64>),
    /// One after the other.
    RoundRobin,
    /// The same one for each key.
    Sticky,
    /// Always this one.
    One(Endpoint),
    /// This one for `every`, then the next.
    Moving(Nanos),
}

/// Under which key is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyChoice {
    /// The first of them.
    pub first: KeyIndex,
    /// How many, in a row.
    pub count: u32,
    /// Zipf exponent of their popularity; 0: all alike.
    pub skew: f64,
}

/// For how many tokens is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Any of these, each as often as it stands there.
    OneOf(Vec<u64>),
    /// Anything between, both included.
    Between(u64, u64),
}

impl Cost {
    /// On average.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::OneOf(costs) => costs.iter().sum::<u64>() as f64 / costs.len().max(1) as f64,
            Self::Between(least, most) => (*least as f64 + *most as f64) / 2.0,
        }
    }
}

/// What refused clients do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// How often a client asks in all, the first time included.
    pub attempts: u16,
    /// How long it waits before it asks again.
    pub after: Nanos,
    /// By what that grows each time.
    pub backoff: f64,
    /// Part of the wait that is drawn, to either side.
    pub jitter: f64,
    /// Whether a longer `retry_after` of the answer is heeded.
    pub heed: bool,
}

/// What a workload's tables are read beside.
struct Beside<'a> {
    nodes: &'a Nodes,
    limits: &'a [ScenarioLimit],
    duration: Nanos,
    read: &'a ReadFile<'a>,
}

pub(super) fn read_workloads(
    root: &Table<'_>,
    nodes: &Nodes,
    limits: &[ScenarioLimit],
    keys: &mut Keys,
    duration: Nanos,
    read: &ReadFile<'_>,
) -> Vec<Workload> {
    root.require("workload", "tables under headers [[workload]]");
    let tables = root.tables("workload");
    // ranges first, and each at its longest, so that workloads that share a prefix share keys
    let mut longest: BTreeMap<&str, u64> = BTreeMap::new();
    for table in &tables {
        if let (Some(count), false) = (table.count("keys", 1, KEYS_MAX), table.has("trace")) {
            let most = longest.entry(table.text("key").unwrap_or("k")).or_default();
            *most = count.max(*most);
        }
    }
    for (prefix, count) in longest {
        keys.range(prefix, count as u32);
    }
    let beside = Beside { nodes, limits, duration, read };
    tables.iter().enumerate().filter_map(|(n, table)| read_workload(table, n, &beside, keys)).collect()
}

fn read_workload(table: &Table<'_>, n: usize, beside: &Beside<'_>, keys: &mut Keys) -> Option<Workload> {
    let name = table.text("name").map_or_else(|| format!("workload {}", n + 1), str::to_owned);
    let limit = read_limit_name(table, beside.limits);
    let trace = table.text("trace").map(|path| read_trace(table, path, keys, beside.read));
    let (keys, cost) = if trace.is_some() {
        (KeyChoice { first: 0, count: 1, skew: 0.0 }, Cost::OneOf(vec![1]))
    } else {
        (read_keys(table, keys), read_cost(table))
    };
    let rate = if trace.is_some() { 0.0 } else { read_rate(table, limit.map(|i| &beside.limits[i]), &cost) };
    let processes = [Arrivals::Poisson, Arrivals::Constant];
    let arrivals = if trace.is_some() { None } else { table.choice("arrivals", &["poisson", "constant"]) };
    let shape = match trace {
        Some(rows) => Shape::Trace(rows.into()),
        None => read_shape(table),
    };
    let per_node = !matches!(shape, Shape::Trace(_)) && table.choice("phases", &["together", "per-node"]) == Some(1);
    let nodes = read_node_choice(table, beside.nodes);
    let from = lasting(table, "from").unwrap_or(Nanos::ZERO);
    let until = lasting(table, "until").unwrap_or(beside.duration);
    let wait = lasting(table, "wait").unwrap_or(Nanos::ZERO);
    let retry = read_retry(&table.table("retry"));
    if from >= until {
        table.report("from", &format!("from {from} must be before until {until}"));
    }
    if per_node && !matches!(nodes, NodeChoice::Weighted(_)) {
        table.report("phases", "phases \"per-node\" needs nodes by weight: nodes = \"even\", \"zipf\" or weights");
    }
    table.close();
    Some(Workload {
        name,
        limit: limit?,
        rate,
        arrivals: arrivals.map_or(Arrivals::Poisson, |i| processes[i]),
        shape,
        phases: if per_node { Phases::PerNode } else { Phases::Together },
        nodes,
        keys,
        cost,
        span: (from, until),
        wait,
        retry,
    })
}

fn read_limit_name(table: &Table<'_>, limits: &[ScenarioLimit]) -> Option<LimitIndex> {
    let Some(name) = table.text("limit") else { return (!limits.is_empty()).then_some(0) };
    let found = limits.iter().position(|l| l.name() == name);
    if found.is_none() {
        let known: Vec<&str> = limits.iter().map(ScenarioLimit::name).collect();
        let name = super::reader::shorten(name);
        table.report("limit", &format!("limit \"{name}\" must be of \"{}\"", known.join("\", \"")));
    }
    found
}

/// `rate = "1500/s"` in requests, or `load = 1.5` times the limit's rate, in tokens.
fn read_rate(table: &Table<'_>, limit: Option<&ScenarioLimit>, cost: &Cost) -> f64 {
    let rate = table.rate("rate").map(|r| r.per_second());
    let load = table.number("load", 0.0, 1e6);
    let rate = match (rate, load, limit) {
        (Some(_), Some(_), _) => {
            table.report("load", "load and rate say the same twice: give one of them");
            0.0
        }
        (Some(rate), None, _) => rate,
        (None, Some(load), Some(limit)) => load * limit.own_rule().rate().per_second() / cost.mean().max(1.0),
        (None, Some(_), None) => 0.0,
        (None, None, _) => {
            if !table.has("rate") && !table.has("load") {
                table.report(
                    "rate",
                    "rate is missing: requests a second like \"1500/s\", or load = 1.5 times the limit's",
                );
            }
            0.0
        }
    };
    if rate > RATE_MAX {
        table.report("rate", &format!("{rate} requests a second are too many; at most {RATE_MAX}"));
    }
    rate.min(RATE_MAX)
}

/// `keys = 1000` with `key` as their prefix, or the one key `key`.
fn read_keys(table: &Table<'_>, keys: &mut Keys) -> KeyChoice {
    let key = table.text("key").unwrap_or("k");
    if key.len() + 8 > KEY_BYTES_MAX {
        table.report("key", &format!("key must have at most {} bytes", KEY_BYTES_MAX - 8));
    }
    let skew = table.number("key_skew", 0.0, 5.0);
    match table.count("keys", 1, KEYS_MAX) {
        Some(count) => {
            let count = count as u32;
            KeyChoice { first: keys.range(key, count), count, skew: skew.unwrap_or(0.0) }
        }
        None => {
            if skew.is_some() {
                table.report("key_skew", "key_skew has no meaning without keys, their number");
            }
            KeyChoice { first: keys.one(key), count: 1, skew: 0.0 }
        }
    }
}

fn read_cost(table: &Table<'_>) -> Cost {
    match (table.list("cost", 1, COST_MAX), table.counts("cost_range", 1, COST_MAX)) {
        (Some(_), Some(_)) => {
            table.report("cost_range", "cost and cost_range exclude each other: give one of them");
            Cost::OneOf(vec![1])
        }
        (Some(costs), None) => Cost::OneOf(costs),
        (None, Some((least, most))) => Cost::Between(least, most),
        (None, None) => Cost::OneOf(vec![1]),
    }
}

fn read_shape(table: &Table<'_>) -> Shape {
    let time = |key, default: Nanos| match lasting(table, key) {
        Some(Nanos::ZERO) => {
            table.report(key, &format!("{key} must be above 0"));
            default
        }
        time => time.unwrap_or(default),
    };
    match table.choice("shape", &["steady", "on-off", "diurnal", "flash"]) {
        Some(1) => Shape::OnOff {
            on: time("on", Nanos::SECOND),
            off: time("off", Nanos::SECOND),
            random: table.flag("random").unwrap_or(false),
        },
        Some(2) => Shape::Diurnal {
            period: time("period", Nanos::from_secs(60)),
            amplitude: table.number("amplitude", 0.0, 1.0).unwrap_or(0.5),
        },
        Some(3) => Shape::Flash {
            at: lasting(table, "surge_at").unwrap_or(Nanos::SECOND),
            lasts: time("surge_for", Nanos::SECOND),
            factor: table.number("surge_factor", 0.0, 1e6).unwrap_or(10.0),
            ramp: lasting(table, "surge_ramp").unwrap_or(Nanos::ZERO),
        },
        _ => Shape::Steady,
    }
}

/// `nodes = "even" | "zipf" | "round-robin" | "sticky" | "moving" | "n2"`, or weights.
fn read_node_choice(table: &Table<'_>, nodes: &Nodes) -> NodeChoice {
    let n = nodes.all.len();
    let words = ["even", "zipf", "round-robin", "sticky", "moving"];
    let expected = format!("one of \"{}\", a node like \"n1\", or node_weights beside it", words.join("\", \""));
    let word = table.read("nodes", &expected, |v| {
        let text = v.as_str()?;
        let named = nodes.all.iter().position(|node| node.name == text).map(|i| (usize::MAX, i));
        words.iter().position(|w| *w == text).map(|i| (i, 0)).or(named)
    });
    let weights = table.weights("node_weights");
    if let Some(mut weights) = weights {
        if weights.len() > n {
            table.report("node_weights", &format!("node_weights has {} values for {n} nodes", weights.len()));
        }
        if table.has("nodes") {
            table.report("node_weights", "node_weights and nodes exclude each other: give one of them");
        }
        weights.resize(n, 0.0);
        return NodeChoice::Weighted(weights);
    }
    match word {
        Some((1, _)) => {
            let skew = table.number("node_skew", 0.0, 5.0).unwrap_or(1.0);
            NodeChoice::Weighted((1..=n).map(|rank| crate::math::power(rank as f64, -skew)).collect())
        }
        Some((2, _)) => NodeChoice::RoundRobin,
        Some((3, _)) => NodeChoice::Sticky,
        Some((4, _)) => {
            let every = lasting(table, "move_every").unwrap_or(Nanos::from_secs(3));
            NodeChoice::Moving(every.max(Nanos::from_millis(1)))
        }
        Some((usize::MAX, node)) => NodeChoice::One(node),
        _ => NodeChoice::Weighted(vec![1.0; n]),
    }
}

fn read_retry(table: &Table<'_>) -> Option<Retry> {
    let retry = Retry {
        attempts: table.count("attempts", 1, 1000).unwrap_or(3) as u16,
        after: lasting(table, "after").unwrap_or(Nanos::from_millis(100)),
        backoff: table.number("backoff", 1.0, 10.0).unwrap_or(2.0),
        jitter: table.fraction("jitter").unwrap_or(0.1),
        heed: table.flag("heed_retry_after").unwrap_or(false),
    };
    table.close();
    table.is_present().then_some(retry)
}

/// A CSV of `time,key,cost`: seconds since the start of the workload, text, tokens. The cost may be left out (1), and
/// so may a first line that names the columns.
fn read_trace(table: &Table<'_>, path: &str, keys: &mut Keys, read: &ReadFile<'_>) -> Vec<TraceRow> {
    let text = match read(Path::new(path)) {
        Ok(text) => text,
        Err(error) => {
            table.report("trace", &format!("trace {error}"));
            return Vec::new();
        }
    };
    let mut rows: Vec<TraceRow> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || (n == 0 && line.starts_with("time")) {
            continue;
        }
        match read_row(line, keys) {
            Ok(row) => rows.push(row),
            Err(why) => {
                table.report("trace", &format!("{path}:{}: {why}", n + 1));
                break;
            }
        }
    }
    // in order of time; rows of one moment in the order of the file
    rows.sort_by_key(|row| row.at);
    rows
}

fn read_row(line: &str, keys: &mut Keys) -> Result<TraceRow, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let (time, key, cost) = match fields[..] {
        [time, key] => (time, key, "1"),
        [time, key, cost] => (time, key, cost),
        _ => return Err(format!("\"{}\" must be time,key,cost", super::reader::shorten(line))),
    };
    let at = spillgate_core::rate::parse_duration(&format!("{time}s"))
        .map_err(|_| format!("time \"{}\" must be seconds like 1.25", super::reader::shorten(time)))?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(format!("the key has {} bytes, it must have 1 to {KEY_BYTES_MAX}", key.len()));
    }
    let cost = cost.parse().ok().filter(|c| (1..=COST_MAX).contains(c));
    let cost = cost.ok_or_else(|| format!("cost must be a whole number from 1 to {COST_MAX}"))?;
    Ok(TraceRow { at, key: keys.one(key), cost })
}
