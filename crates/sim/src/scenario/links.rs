//! `[network]`, `[[network.link]]` and `[membership]`: how messages travel, and when nodes hear of one another. It must
//! not know what travels.

use spillgate_core::time::Nanos;

use super::nodes::{Endpoint, Nodes};
use super::reader::Table;

/// A span of time as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Always the same.
    Fixed(Nanos),
    /// Anything between, evenly.
    Uniform(Nanos, Nanos),
    /// Log-normal.
    LogNormal {
        /// Half are shorter.
        median: Nanos,
        /// Of the logarithm.
        sigma: f64,
    },
}

/// How messages travel one way between two endpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// One way.
    pub latency: Spread,
    /// Up to so much on top, evenly; messages may overtake.
    pub jitter: Nanos,
    /// Part of the messages that is lost.
    pub loss: f64,
    /// Part that arrives twice.
    pub duplicate: f64,
    /// Part that is held up.
    pub reorder: f64,
    /// Held up for so long at most, evenly.
    pub reorder_by: Nanos,
    /// Bits a second; none: no bound.
    pub bandwidth: Option<u64>,
    /// The longest that a message queues for the bandwidth; what would have to wait longer is lost.
    pub queue: Nanos,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            latency: Spread::Fixed(Nanos(500_000)),
            jitter: Nanos::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Nanos::from_millis(50),
            bandwidth: None,
            queue: Nanos::from_millis(100),
        }
    }
}

/// Another profile for some links; a later rule wins over an earlier one.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkRule {
    /// Senders.
    pub from: Vec<Endpoint>,
    /// Receivers.
    pub to: Vec<Endpoint>,
    /// Whether the same goes for the way back.
    pub both: bool,
    /// How messages travel there.
    pub profile: Profile,
}

/// How messages travel.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// On links without a rule of their own.
    pub default: Profile,
    /// Rules for some.
    pub links: Vec<LinkRule>,
    /// The longest datagram that travels, in bytes.
    pub datagram_bytes: usize,
}

/// When nodes hear of one another's coming and going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// From a node's being there (or being reachable again) to its peers' hearing of it: the least and the most.
    pub news: (Nanos, Nanos),
    /// From a node's crash (or its being cut off) to its peers' calling it dead: the least and the most.
    pub death: (Nanos, Nanos),
}

pub(super) fn read_network(root: &Table<'_>, nodes: &Nodes) -> Network {
    let table = root.table("network");
    let default = read_profile(&table, Profile::default());
    let datagram_bytes = table.count("datagram", 500, 65_507).unwrap_or(1150) as usize;
    let links = table.tables("link").iter().map(|link| read_link(link, nodes, default)).collect();
    table.close();
    Network { default, links, datagram_bytes }
}

fn read_link(table: &Table<'_>, nodes: &Nodes, default: Profile) -> LinkRule {
    table.require("from", "nodes or groups, like \"n1\" or \"eu\"");
    table.require("to", "nodes or groups, like \"n2\" or \"us\"");
    let from = nodes.select(table, "from").unwrap_or_default();
    let to = nodes.select(table, "to").unwrap_or_default();
    let both = table.flag("both").unwrap_or(true);
    let profile = read_profile(table, default);
    table.close();
    LinkRule { from, to, both, profile }
}

/// What of a profile a table gives; the rest is as in `base`.
pub(super) fn read_profile(table: &Table<'_>, base: Profile) -> Profile {
    Profile {
        latency: read_latency(table).unwrap_or(base.latency),
        jitter: table.duration("jitter").unwrap_or(base.jitter),
        loss: table.fraction("loss").unwrap_or(base.loss),
        duplicate: table.fraction("duplicate").unwrap_or(base.duplicate),
        reorder: table.fraction("reorder").unwrap_or(base.reorder),
        reorder_by: table.duration("reorder_by").unwrap_or(base.reorder_by),
        bandwidth: read_bandwidth(table).or(base.bandwidth),
        queue: table.duration("queue").unwrap_or(base.queue),
    }
}

/// `"5ms"`, `["1ms", "5ms"]` for a uniform one, or `"20ms"` with `latency_sigma` for a log-normal one.
fn read_latency(table: &Table<'_>) -> Option<Spread> {
    let latency = table.durations("latency");
    let sigma = table.number("latency_sigma", 0.0, 3.0);
    match (latency, sigma) {
        (Some((least, most)), None) if least == most => Some(Spread::Fixed(least)),
        (Some((least, most)), None) => Some(Spread::Uniform(least, most)),
        (Some((least, most)), Some(sigma)) if least == most => Some(Spread::LogNormal { median: least, sigma }),
        (latency, Some(_)) => {
            let why = if latency.is_some() { "a range is uniform" } else { "it needs a latency, its median" };
            table.report("latency_sigma", &format!("latency_sigma makes the latency log-normal; {why}"));
            None
        }
        (None, None) => None,
    }
}

/// Bits a second: `"10Mbit/s"`.
fn read_bandwidth(table: &Table<'_>) -> Option<u64> {
    table.read("bandwidth", "bits a second like \"512kbit/s\", \"10Mbit/s\" or \"1Gbit/s\"", |v| {
        let text = v.as_str()?.strip_suffix("bit/s")?.trim();
        let (digits, factor) = match text.as_bytes().last()? {
            b'k' => (&text[..text.len() - 1], 1_000),
            b'M' => (&text[..text.len() - 1], 1_000_000),
            b'G' => (&text[..text.len() - 1], 1_000_000_000),
            _ => (text, 1),
        };
        digits.trim().parse::<u64>().ok()?.checked_mul(factor).filter(|b| *b >= 1000)
    })
}

pub(super) fn read_membership(root: &Table<'_>) -> Membership {
    let table = root.table("membership");
    // a round of chitchat every 100 ms and dials every 250 ms; a crash was noticed after 1.0 to 1.6 s
    let news = table.durations("news").unwrap_or((Nanos::from_millis(100), Nanos::from_millis(350)));
    let death = table.durations("death").unwrap_or((Nanos::from_millis(1000), Nanos::from_millis(1600)));
    table.close();
    Membership { news, death }
}
