//! The scenario: what a run is given, from TOML, checked. It must not know how a run goes.
//!
//! A small one is complete:
//!
//! ```toml
//! duration = "10s"
//!
//! [[limit]]
//! rate = "1000/s"
//!
//! [[workload]]
//! load = 1.5          # times the limit's rate
//! ```

mod events;
mod expect;
mod keys;
mod limits;
mod links;
mod nodes;
mod published;
mod reader;
mod requests;
mod swarm;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillgate_core::limit::Rule;
use spillgate_core::time::Nanos;

pub use events::{Happening, LinkChange, LinkState, TimedEvent};
pub use expect::Expect;
pub use keys::{KeyIndex, Keys};
pub use limits::{LimitIndex, ScenarioLimit, limits_with};
pub use links::{LinkRule, Membership, Network, Profile, Spread as Latency};
pub use nodes::{Endpoint, NodeSpec, Nodes, STORE};
pub use published::{Figure, Published};
pub use reader::{Problem, Problems};
pub use requests::{Arrivals, Cost, KeyChoice, NodeChoice, Phases, Retry, Shape, TraceRow, Workload};

use crate::strategy::{self, Registered};
use crate::swarm::Swarm;
use crate::trace::TraceHash;
use reader::{Document, Table};

/// The longest that anything in a scenario lasts.
const LASTS_MAX: Nanos = Nanos::from_secs(7 * 86_400);
/// How long a run goes on after its last requests, so that what is held is answered.
const PROBING: Nanos = Nanos::from_secs(1);
/// Keys that are looked at closely.
const WATCHED_MAX: usize = 4;

/// One experiment: a cluster, its limits, a network, a workload, and what goes wrong when.
///
/// All times in it count from the start of the workload, which the cluster meets warm: [`Scenario::warmup`] comes
/// before.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: the file's, without the ending.
    pub name: String,
    /// Its text in short, without comments and claims: equal where the same is run.
    pub fingerprint: u64,
    /// Which question it asks, in a sentence; may be empty.
    pub question: String,
    /// The seed of a run for which none is named.
    pub seed: u64,
    /// How many seeds are run when none is named: `seed`, `seed + 1`, ...
    pub seeds: u64,
    /// How long requests come.
    pub duration: Nanos,
    /// How long the nodes have to find one another before.
    pub warmup: Nanos,
    /// How long the run goes on without requests after.
    pub settle: Nanos,
    /// Between samples of what nodes know and state.
    pub sample_every: Nanos,
    /// The cluster.
    pub nodes: Nodes,
    /// The limits; at least one.
    pub limits: Vec<ScenarioLimit>,
    /// Every key that requests name.
    pub keys: Keys,
    /// Where requests come from; at least one.
    pub workloads: Vec<Workload>,
    /// How messages travel.
    pub network: Network,
    /// When nodes hear of one another's coming and going.
    pub membership: Membership,
    /// What happens meanwhile, in order of time.
    pub events: Vec<TimedEvent>,
    /// Which strategies are run side by side.
    pub strategies: Vec<&'static Registered>,
    /// What is claimed of the outcome.
    pub expects: Vec<Expect>,
    /// What others reported of the same set-up.
    pub published: Option<Published>,
    /// Each seed has a scenario of its own, drawn from this; the rest is as drawn for [`Scenario::seed`].
    pub swarm: Option<Swarm>,
}

/// Why there is no scenario to run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file could not be read at all.
    #[error("{}: cannot read the scenario: {error}", path.display())]
    Unreadable {
        /// As it was named.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It was read, and makes no sense.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl Scenario {
    /// Whether nodes have no room for all keys, so that some must go.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.keys.len() > self.nodes.max_keys
    }

    /// Reads the scenario in the file at `path`. Files that it names stand beside it.
    ///
    /// # Errors
    /// [`ScenarioError`] with everything that is wrong, each at its line with what is allowed.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ScenarioError::Unreadable { path: path.to_path_buf(), error })?;
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let read = |name: &Path| {
            let beside = path.parent().unwrap_or(Path::new("")).join(name);
            std::fs::read_to_string(&beside).map_err(|e| format!("{}: {e}", beside.display()))
        };
        Self::parse(&name, &text, &read).map_err(|all| Problems { file: Some(path.to_path_buf()), all }.into())
    }

    /// Reads a scenario from `text`; `read` brings the files that it names, or says why not.
    ///
    /// # Errors
    /// Everything that is wrong, by line.
    pub fn parse(name: &str, text: &str, read: &ReadFile<'_>) -> Result<Self, Vec<Problem>> {
        let document = Document::new(text);
        let scenario = document.parse().and_then(|values| read_scenario(name, &document.root(&values), read));
        let scenario = scenario.map(|scenario| Self { fingerprint: fingerprint(text), ..scenario });
        let problems = document.into_problems();
        match scenario {
            Some(scenario) if problems.is_empty() => Ok(scenario),
            _ => Err(problems),
        }
    }

    /// The scenario that is run under `seed` where each seed has its own; `None`: it is this one.
    ///
    /// # Errors
    /// Never, unless the drawing has a fault: what it draws is checked as any file is.
    pub fn drawn(&self, seed: u64) -> Option<Result<Self, Problems>> {
        let drawn = self.swarm.as_ref()?.scenario(&self.name, seed);
        Some(drawn.map(|scenario| Self { expects: self.expects.clone(), ..scenario }))
    }

    /// When the workload begins, on the run's clock.
    #[must_use]
    pub const fn start(&self) -> Nanos {
        self.warmup
    }

    /// When requests end and all has had time to settle, on the run's clock: then every node is asked once more.
    #[must_use]
    pub const fn probe_at(&self) -> Nanos {
        self.warmup.plus(self.duration).plus(self.settle)
    }

    /// When the run ends, on the run's clock.
    #[must_use]
    pub const fn end(&self) -> Nanos {
        self.probe_at().plus(PROBING)
    }

    /// Limits and keys that are looked at closely: the first of each workload, at most four.
    #[must_use]
    pub fn watched(&self) -> Vec<(LimitIndex, KeyIndex)> {
        let mut watched = Vec::new();
        for workload in &self.workloads {
            let key = match &workload.shape {
                Shape::Trace(rows) => rows.first().map_or(0, |row| row.key),
                _ => workload.keys.first,
            };
            if watched.len() < WATCHED_MAX && !watched.contains(&(workload.limit, key)) {
                watched.push((workload.limit, key));
            }
        }
        watched
    }

    /// The rule that a key meets, under the accuracy `bounded`.
    #[must_use]
    pub fn rule(&self, limit: LimitIndex, key: KeyIndex) -> &Arc<Rule> {
        let limit = &self.limits[limit];
        if limit.has_overrides() { limit.rule(self.keys.text(key)) } else { limit.own_rule() }
    }

    /// The limit of that name.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<LimitIndex> {
        self.limits.iter().position(|l| l.name() == name)
    }
}

/// Brings a file's text, or says why not.
pub type ReadFile<'f> = dyn Fn(&Path) -> Result<String, String> + 'f;

fn read_scenario(name: &str, root: &Table<'_>, read: &ReadFile<'_>) -> Option<Scenario> {
    if root.has("swarm") {
        return swarm::read_swarm(name, root);
    }
    root.require("duration", "how long requests come, like \"30s\"");
    let question = root.text("question").unwrap_or_default().to_owned();
    let seed = root.count("seed", 0, i64::MAX as u64).unwrap_or(1);
    let seeds = root.count("seeds", 1, 1_000_000).unwrap_or(1);
    let duration = lasting(root, "duration").unwrap_or(Nanos::SECOND);
    let warmup = lasting(root, "warmup").unwrap_or(Nanos::from_secs(2));
    let settle = lasting(root, "settle").unwrap_or(Nanos::from_secs(2));
    let sample_every = lasting(root, "sample_every").unwrap_or(Nanos::from_millis(100)).max(Nanos::from_millis(1));
    let nodes = nodes::read_nodes(root);
    let limits = limits::read_limits(root);
    let mut keys = Keys::default();
    let workloads = requests::read_workloads(root, &nodes, &limits, &mut keys, duration, read);
    let network = links::read_network(root, &nodes);
    let membership = links::read_membership(root);
    let events = events::read_events(root, &nodes, &network);
    let strategies = read_strategies(root, "strategies").unwrap_or_else(|| strategy::ALL.iter().collect());
    let expects = expect::read_expects(root, &strategies, &limits);
    let published = published::read_published(root, duration, &strategies);
    root.close();
    Some(Scenario {
        name: name.to_owned(),
        fingerprint: 0,
        question,
        seed,
        seeds,
        duration,
        warmup,
        settle,
        sample_every,
        nodes,
        limits,
        keys,
        workloads,
        network,
        membership,
        events,
        strategies,
        expects,
        published,
        swarm: None,
    })
}

/// What [`Scenario::fingerprint`] says.
fn fingerprint(text: &str) -> u64 {
    let mut claims = false;
    let mut hash = TraceHash::default();
    for line in text.lines().map(str::trim) {
        claims = if line.starts_with('[') { line.starts_with("[[expect]]") } else { claims };
        if !claims && !line.starts_with('#') {
            line.bytes().for_each(|byte| hash.word(u64::from(byte)));
        }
    }
    hash.value()
}

/// A duration of at most a week.
fn lasting(table: &Table<'_>, key: &'static str) -> Option<Nanos> {
    let lasts = table.duration(key)?;
    if lasts > LASTS_MAX {
        table.report(key, &format!("{key} {lasts} must be at most {LASTS_MAX}"));
    }
    Some(lasts.min(LASTS_MAX))
}

/// Names of strategies, one or a list.
fn read_strategies(table: &Table<'_>, key: &'static str) -> Option<Vec<&'static Registered>> {
    let mut found = Vec::new();
    for name in table.texts(key)? {
        match strategy::find(name) {
            Some(one) => found.push(one),
            None => {
                let known: Vec<&str> = strategy::ALL.iter().map(|s| s.name).collect();
                let hint = reader::suggestion(name, known.iter().copied());
                let text = format!("{key} \"{}\" must be of \"{}\"{hint}", reader::shorten(name), known.join("\", \""));
                table.report(key, &text);
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests;
