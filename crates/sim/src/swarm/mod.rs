//! `[swarm]`: a scenario for every seed. Cluster, network, limits, workload and faults are drawn; all faults end, and
//! after them the nodes are to agree. It must not know how a run goes, nor what is found.
//!
//! What is drawn is the text of an ordinary scenario, so that whatever a seed finds can be looked at, cut down and kept.

mod agreement;
mod draw;

use std::path::PathBuf;

use crate::scenario::{Problem, Problems, Scenario};

pub use agreement::{AGREE_WITHIN_TICKS, Agreement};
pub(crate) use draw::QUIET_AFTER;

/// What is drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Swarm {
    /// The fewest and the most nodes.
    pub nodes: (u64, u64),
    /// The fewest and the most faults.
    pub faults: (u64, u64),
    /// The most requests a second that all workloads together make, at their base.
    pub rate_max: u64,
    /// Strategies to run, as the file names them.
    pub strategies: Vec<&'static str>,
}

impl Swarm {
    /// The scenario of a seed, as its file would read.
    #[must_use]
    pub fn text(&self, seed: u64) -> String {
        draw::draw(self, seed)
    }

    /// The scenario of a seed.
    ///
    /// # Errors
    /// Never, unless the drawing has a fault: what it draws is checked as any file is.
    pub fn scenario(&self, name: &str, seed: u64) -> Result<Scenario, Problems> {
        let nothing = |path: &std::path::Path| Err(format!("{}: a swarm reads no files", path.display()));
        let drawn = Scenario::parse(name, &self.text(seed), &nothing);
        drawn.map_err(|all: Vec<Problem>| Problems { file: Some(PathBuf::from(format!("{name} of seed {seed}"))), all })
    }
}
