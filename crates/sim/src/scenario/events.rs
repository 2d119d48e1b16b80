//! `[[event]]`: what happens to nodes and links, and when. It must not know what comes of it.

use spillgate_core::time::Nanos;

use super::lasting;
use super::links::{Network, Profile, read_profile};
use super::nodes::{Endpoint, Nodes};
use super::reader::Table;

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedEvent {
    /// When, since the start of the workload.
    pub at: Nanos,
    /// What.
    pub what: Happening,
}

/// What may happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A node that does not run starts: a new one, or a new run of one that was there.
    Start(Endpoint),
    /// A node is told to stop: it says its last word and leaves.
    Leave(Endpoint),
    /// A node is gone without a word; comes back as a new incarnation after that time, where there is one.
    Crash(Endpoint, Option<Nanos>),
    /// A node leaves and comes back as a new incarnation after that time.
    Restart(Endpoint, Nanos),
    /// A node stands still for so long, and its clocks go on.
    Pause(Endpoint, Nanos),
    /// A node's clocks change.
    Clock {
        /// Whose.
        node: Endpoint,
        /// It runs faster by so many millionths from now on.
        ppm: Option<i64>,
        /// Its wall clock jumps by so many nanoseconds.
        jump: i64,
    },
    /// Links change, for so long or for good.
    Links(LinkChange, Option<Nanos>),
    /// All that is cut or changed is as it was.
    Heal,
    /// The peers `by` are told, wrongly, that `node` is dead, and after that time that it is not.
    Suspect {
        /// Who is said to be dead.
        node: Endpoint,
        /// Who is told so.
        by: Vec<Endpoint>,
        /// For so long.
        lasts: Nanos,
    },
}

/// What happens to links.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkChange {
    /// What reports call it.
    pub label: String,
    /// The directed links concerned.
    pub links: Vec<(Endpoint, Endpoint)>,
    /// How messages travel on them: not at all, only when the change is over, or so.
    pub how: LinkState,
}

/// How messages travel on a link that has been tampered with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LinkState {
    /// Not at all.
    Cut,
    /// They are held until it is over.
    Clogged,
    /// In another way.
    Changed(Profile),
}

const KINDS: [&str; 13] = [
    "join",
    "leave",
    "crash",
    "restart",
    "pause",
    "clock",
    "partition",
    "isolate",
    "one-way",
    "clog",
    "network",
    "heal",
    "suspect",
];

pub(super) fn read_events(root: &Table<'_>, nodes: &Nodes, network: &Network) -> Vec<TimedEvent> {
    let mut events = Vec::new();
    for table in root.tables("event") {
        table.require("at", "when it happens since the start of the workload, like \"5s\"");
        table.require("kind", &format!("one of \"{}\"", KINDS.join("\", \"")));
        let at = lasting(&table, "at").unwrap_or(Nanos::ZERO);
        let Some(kind) = table.choice("kind", &KINDS) else { continue };
        let happenings = read_happenings(&table, KINDS[kind], nodes, network);
        let stagger = if happenings.len() > 1 { lasting(&table, "stagger") } else { None };
        table.close();
        let stagger = stagger.unwrap_or(Nanos::ZERO);
        let timed = happenings.into_iter().zip(0..);
        events.extend(timed.map(|(what, n)| TimedEvent { at: at.plus(stagger.times(n)), what }));
    }
    // those of one moment stay in the order of the file
    events.sort_by_key(|e| e.at);
    events
}

fn read_happenings(table: &Table<'_>, kind: &str, nodes: &Nodes, network: &Network) -> Vec<Happening> {
    let lasts = || lasting(table, "for");
    let each = |make: &dyn Fn(Endpoint) -> Happening| {
        table.require("node", "nodes like \"n2\", [\"n1\", \"n2\"] or \"*\"");
        nodes.select_nodes(table, "node").unwrap_or_default().into_iter().map(make).collect()
    };
    match kind {
        "join" => {
            // read when the nodes were counted
            let _ = table.text("group");
            each(&Happening::Start)
        }
        "leave" => each(&Happening::Leave),
        "crash" => {
            let back = lasts();
            each(&|node| Happening::Crash(node, back))
        }
        "restart" => {
            let back = lasts().unwrap_or(Nanos::SECOND);
            each(&|node| Happening::Restart(node, back))
        }
        "pause" => {
            table.require("for", "how long it stands still, like \"5s\"");
            let lasts = lasts().unwrap_or(Nanos::SECOND);
            each(&|node| Happening::Pause(node, lasts))
        }
        "clock" => {
            let ppm = table.signed("clock_ppm", -500_000, 1_000_000);
            let jump = table.signed_duration("wall_jump").unwrap_or(0);
            if ppm.is_none() && jump == 0 {
                table.report("kind", "the event changes nothing: give it clock_ppm, wall_jump or both");
            }
            each(&|node| Happening::Clock { node, ppm, jump })
        }
        "suspect" => {
            let by = nodes.select_nodes(table, "by").unwrap_or_else(|| (0..nodes.all.len()).collect());
            let lasts = lasts().unwrap_or(Nanos::from_secs(2));
            each(&|node| Happening::Suspect { node, by: by.clone(), lasts })
        }
        "heal" => vec![Happening::Heal],
        _ => read_change(table, kind, nodes, network).map(|c| Happening::Links(c, lasts())).into_iter().collect(),
    }
}

fn read_change(table: &Table<'_>, kind: &str, nodes: &Nodes, network: &Network) -> Option<LinkChange> {
    match kind {
        "partition" => read_partition(table, nodes),
        "isolate" => {
            table.require("node", "nodes like \"n2\"");
            let alone = nodes.select(table, "node")?;
            let others: Vec<Endpoint> = (0..=nodes.store()).collect();
            let mut links = pairs(&alone, &others);
            links.extend(pairs(&others, &alone));
            links.sort_unstable();
            links.dedup();
            Some(LinkChange { label: format!("isolate {}", names(nodes, &alone)), links, how: LinkState::Cut })
        }
        _ => {
            table.require("from", "nodes like \"n1\"");
            table.require("to", "nodes like \"n2\"");
            let (from, to) = (nodes.select(table, "from"), nodes.select(table, "to"));
            let both = kind != "one-way" && table.flag("both").unwrap_or(true);
            let how = match kind {
                "one-way" => LinkState::Cut,
                "clog" => {
                    table.require("for", "how long messages are held, like \"2s\"");
                    LinkState::Clogged
                }
                _ => LinkState::Changed(read_profile(table, network.default)),
            };
            let (from, to) = (from?, to?);
            let mut links = pairs(&from, &to);
            if both {
                links.extend(pairs(&to, &from));
                links.sort_unstable();
                links.dedup();
            }
            let label = format!("{kind} {} to {}", names(nodes, &from), names(nodes, &to));
            Some(LinkChange { label, links, how })
        }
    }
}

/// `sides = [["n1", "eu"], ["n3"]]`: a side names nodes and groups; nodes that no side names are on one more.
fn read_partition(table: &Table<'_>, nodes: &Nodes) -> Option<LinkChange> {
    table.require("sides", "a list of sides like [[\"n1\", \"n2\"], [\"n3\"]]");
    let mut sides = table.read("sides", "a list of sides like [[\"n1\", \"n2\"], [\"n3\"]]", |v| {
        let side = |v: &toml::Spanned<toml::de::DeValue<'_>>| -> Option<Vec<Endpoint>> {
            let names = v.get_ref().as_array()?;
            let found: Option<Vec<Vec<Endpoint>>> =
                names.iter().map(|n| nodes.resolve(n.get_ref().as_str()?)).collect();
            found.map(|all| all.concat())
        };
        v.as_array()?.iter().map(side).collect::<Option<Vec<_>>>()
    })?;
    let mut named: Vec<Endpoint> = sides.concat();
    named.sort_unstable();
    if named.windows(2).any(|w| w[0] == w[1]) {
        table.report("sides", "sides must not share a node");
    }
    let rest: Vec<Endpoint> = (0..=nodes.store()).filter(|e| !named.contains(e)).collect();
    // the store is on the first side, unless it is named
    match (rest == [nodes.store()], sides.first_mut()) {
        (true, Some(first)) => first.push(nodes.store()),
        _ => sides.push(rest),
    }
    let mut links = Vec::new();
    for (i, side) in sides.iter().enumerate() {
        for (j, other) in sides.iter().enumerate() {
            if i != j {
                links.extend(pairs(side, other));
            }
        }
    }
    let label: Vec<String> = sides.iter().filter(|s| !s.is_empty()).map(|s| names(nodes, s)).collect();
    Some(LinkChange { label: format!("partition {}", label.join(" | ")), links, how: LinkState::Cut })
}

fn pairs(from: &[Endpoint], to: &[Endpoint]) -> Vec<(Endpoint, Endpoint)> {
    from.iter().flat_map(|a| to.iter().filter(move |b| *b != a).map(move |b| (*a, *b))).collect()
}

fn names(nodes: &Nodes, endpoints: &[Endpoint]) -> String {
    const SHOWN: usize = 6;
    let mut text: Vec<&str> = endpoints.iter().take(SHOWN).map(|e| nodes.name(*e)).collect();
    if endpoints.len() > SHOWN {
        text.push("…");
    }
    text.join(" ")
}
