//! `[nodes]`, `[[group]]` and `[[node]]`: which nodes there are, and what they are called. It must not know links.

use spillgate_core::time::Nanos;

use super::reader::Table;

/// A node's number, from 0; the node `n1` is 0. The number after the last node's is the central store.
pub type Endpoint = usize;

/// What the central store is called where links are named.
pub const STORE: &str = "store";

/// The most nodes: as many peers as the core takes.
const NODES_MAX: u64 = 1000;

/// The cluster.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// All nodes, those that join later included.
    pub all: Vec<NodeSpec>,
    /// The names of groups.
    pub groups: Vec<String>,
    /// Between rounds of news.
    pub gossip_interval: Nanos,
    /// A peer silent for so long is assumed busy.
    pub stale_after: Nanos,
    /// A peer silent for so long is forgotten.
    pub forget_after: Nanos,
    /// How long a starting node waits for the cluster.
    pub join_timeout: Nanos,
    /// The most keys in a node's table.
    pub max_keys: usize,
    /// How long a client waits for an answer of a node that stands still.
    pub client_timeout: Nanos,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// `n1`, `n2`, ...
    pub name: String,
    /// Its place among [`Nodes::groups`].
    pub group: Option<usize>,
    /// Whether it runs from the start.
    pub initial: bool,
    /// Its clock runs faster by so many millionths (slower when negative).
    pub clock_ppm: i64,
    /// Its wall clock is ahead by so many nanoseconds (behind when negative).
    pub wall_offset: i64,
}

impl Nodes {
    /// The endpoint of the central store.
    #[must_use]
    pub const fn store(&self) -> Endpoint {
        self.all.len()
    }

    /// How many run from the start.
    #[must_use]
    pub fn initial(&self) -> usize {
        self.all.iter().filter(|n| n.initial).count()
    }

    /// An endpoint's name.
    #[must_use]
    pub fn name(&self, endpoint: Endpoint) -> &str {
        self.all.get(endpoint).map_or(STORE, |n| n.name.as_str())
    }

    pub(super) fn resolve(&self, name: &str) -> Option<Vec<Endpoint>> {
        if name == "*" {
            return Some((0..self.all.len()).collect());
        }
        if name == STORE {
            return Some(vec![self.store()]);
        }
        if let Some(group) = self.groups.iter().position(|g| g == name) {
            return Some((0..self.all.len()).filter(|i| self.all[*i].group == Some(group)).collect());
        }
        self.all.iter().position(|n| n.name == name).map(|i| vec![i])
    }

    /// The endpoints that `key` names: nodes, groups, `"*"` for all nodes, `"store"`; one or a list, in its order.
    pub(super) fn select(&self, table: &Table<'_>, key: &'static str) -> Option<Vec<Endpoint>> {
        let mut selected = Vec::new();
        for name in table.texts(key)? {
            match self.resolve(name) {
                Some(found) => selected.extend(found.into_iter().filter(|e| !selected.contains(e)).collect::<Vec<_>>()),
                None => {
                    table.report(key, &format!("{key} \"{}\" {}", super::reader::shorten(name), self.known()));
                    return None;
                }
            }
        }
        Some(selected)
    }

    /// The same, of nodes only.
    pub(super) fn select_nodes(&self, table: &Table<'_>, key: &'static str) -> Option<Vec<Endpoint>> {
        let selected = self.select(table, key)?;
        if selected.contains(&self.store()) {
            table.report(key, &format!("{key} must name nodes; the store is none"));
            return None;
        }
        Some(selected)
    }

    fn known(&self) -> String {
        let groups: String = self.groups.iter().map(|g| format!(", \"{g}\"")).collect();
        format!("must be of \"n1\" to \"n{}\", \"*\", \"store\"{groups}", self.all.len())
    }
}

pub(super) fn read_nodes(root: &Table<'_>) -> Nodes {
    let table = root.table("nodes");
    let groups = read_groups(root);
    let grouped: usize = groups.iter().map(|(_, n)| n).sum();
    let count = match table.count("count", 1, NODES_MAX) {
        Some(_) if !groups.is_empty() => {
            table.report("count", "count has no meaning beside [[group]]: each group has its own");
            grouped
        }
        Some(count) => count as usize,
        None if groups.is_empty() => 3,
        None => grouped,
    };
    let positive = |key, default: u64| match table.duration(key) {
        Some(Nanos::ZERO) => {
            table.report(key, &format!("{key} must be above 0"));
            Nanos::from_millis(default)
        }
        time => time.unwrap_or(Nanos::from_millis(default)),
    };
    let of_group = groups.iter().enumerate().flat_map(|(g, (_, n))| std::iter::repeat_n(Some(g), *n));
    let of_group: Vec<Option<usize>> =
        if groups.is_empty() { vec![None; count] } else { of_group.take(NODES_MAX as usize).collect() };
    let mut nodes = Nodes {
        all: of_group.into_iter().enumerate().map(|(i, group)| node(i, group, true)).collect(),
        groups: groups.into_iter().map(|(name, _)| name).collect(),
        gossip_interval: positive("gossip_interval", 10),
        stale_after: positive("stale_after", 200),
        forget_after: positive("forget_after", 60_000),
        join_timeout: table.duration("join_timeout").unwrap_or(Nanos::from_secs(5)),
        max_keys: table.count("max_keys", 1, 1_000_000_000).unwrap_or(1_000_000) as usize,
        client_timeout: table.duration("client_timeout").unwrap_or(Nanos::SECOND),
    };
    table.close();
    add_joiners(root, &mut nodes);
    read_clocks(root, &mut nodes);
    nodes
}

fn node(i: Endpoint, group: Option<usize>, initial: bool) -> NodeSpec {
    NodeSpec { name: format!("n{}", i + 1), group, initial, clock_ppm: 0, wall_offset: 0 }
}

fn read_groups(root: &Table<'_>) -> Vec<(String, usize)> {
    let mut groups: Vec<(String, usize)> = Vec::new();
    for table in root.tables("group") {
        table.require("name", "what links and events call it, like \"eu\"");
        let name = table.text("name").unwrap_or_default();
        let count = table.count("nodes", 1, NODES_MAX).unwrap_or(1);
        let like_node = name.strip_prefix('n').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if name == STORE || name == "*" || like_node {
            table.report("name", &format!("name \"{name}\" means something else; give the group another"));
        } else if groups.iter().any(|(n, _)| n == name) {
            table.report("name", &format!("name \"{name}\" is given twice; give each group its own"));
        }
        table.close();
        groups.push((name.to_owned(), count as usize));
    }
    if groups.iter().map(|(_, n)| n).sum::<usize>() > NODES_MAX as usize {
        root.report("group", &format!("the groups have more than {NODES_MAX} nodes in all"));
    }
    groups
}

/// Nodes beyond the count that some event lets join. Their events are read in full, with all others, later.
fn add_joiners(root: &Table<'_>, nodes: &mut Nodes) {
    for table in root.tables("event") {
        if table.text("kind") != Some("join") {
            continue;
        }
        let group = table.text("group").and_then(|name| nodes.groups.iter().position(|g| g == name));
        for name in table.texts("node").unwrap_or_default() {
            let number = name.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
            let Some(number) = number.filter(|n| *n <= NODES_MAX as usize) else { continue };
            while nodes.all.len() < number {
                nodes.all.push(node(nodes.all.len(), group, false));
            }
        }
    }
}

fn read_clocks(root: &Table<'_>, nodes: &mut Nodes) {
    for table in root.tables("node") {
        table.require("name", "which nodes, like \"n2\"");
        let named = nodes.select_nodes(&table, "name").unwrap_or_default();
        let ppm = table.signed("clock_ppm", -500_000, 1_000_000).unwrap_or(0);
        let offset = table.signed_duration("wall_offset").unwrap_or(0);
        table.close();
        for i in named {
            nodes.all[i].clock_ppm = ppm;
            nodes.all[i].wall_offset = offset;
        }
    }
}
