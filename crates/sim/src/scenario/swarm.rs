//! `[swarm]`: a file that draws a scenario for every seed. It must not know what is drawn.

use super::reader::Table;
use super::{Scenario, expect, read_strategies};
use crate::strategy;
use crate::swarm::Swarm;

/// A larger cluster would take most of the time and find nothing that a small one does not.
const NODES_MAX: u64 = 20;

pub(super) fn read_swarm(name: &str, root: &Table<'_>) -> Option<Scenario> {
    let question = root.text("question").unwrap_or_default().to_owned();
    let seed = root.count("seed", 0, i64::MAX as u64).unwrap_or(1);
    let seeds = root.count("seeds", 1, 1_000_000).unwrap_or(1000);
    let default = || ["strict", "bounded"].into_iter().filter_map(strategy::find).collect();
    let strategies = read_strategies(root, "strategies").unwrap_or_else(default);
    let table = root.table("swarm");
    let swarm = Swarm {
        nodes: table.counts("nodes", 1, NODES_MAX).unwrap_or((2, 6)),
        faults: table.counts("faults", 0, 50).unwrap_or((0, 5)),
        rate_max: table.count("rate_max", 10, 1_000_000).unwrap_or(2000),
        strategies: strategies.iter().map(|s| s.name).collect(),
    };
    table.close();
    let expects = expect::read_expects(root, &strategies, &[]);
    root.close();
    match swarm.scenario(name, seed) {
        Ok(drawn) => Some(Scenario { question, seed, seeds, expects, swarm: Some(swarm), ..drawn }),
        Err(problems) => {
            root.report("swarm", &problems.to_string());
            None
        }
    }
}
