//! The central store: asks Redis to decide in the nodes' place, and never longer than it may. It must not know HTTP, QUIC
//! or arithmetic: what a bucket is stands in `scripts/`, what its state means in core.
//!
//! Every check under Redis is one script, run by its hash. Before it the node tells what it charged by itself (core's
//! `Brief`), after it takes Redis' word into its own counters, so that no charge is lost or doubled whoever decides next.
//! Where Redis is slow, down, full or holds nonsense, the check is the node's own again, and a reply that comes too late
//! is reckoned with all the same: what Redis counted and nobody was granted is given back.

mod ask;
mod beat;
mod error;
mod health;
mod job;
mod link;
mod script;
mod switch;

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use redis::{ConnectionInfo, TlsCertificates};
use spillgate_core::central::Brief;
use spillgate_core::decision::{Check, CheckError, LimitRef};
use spillgate_core::node::Attempt;

use crate::driver::{Driver, Referee, Ruled};

pub use error::RedisError;
pub use health::Outcome;
pub use link::Target;
pub use switch::{BACK_AFTER, CUT_OFF_AFTER};

use health::Health;
use job::Job;
use link::Link;
use script::Scripts;
use switch::{Decider, Switch};

/// When Redis decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Every check.
    Always,
    /// While the node is cut off.
    CutOff {
        /// With fewer live peers than this it is.
        min_peers: u64,
        /// Whether others are configured, though none may have been met yet.
        expected: bool,
    },
}

/// How the node decides now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By itself, with its peers.
    Local,
    /// Redis decides.
    Redis,
    /// Redis should, and can't be asked: by itself, on its share.
    Degraded,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Local, Self::Redis, Self::Degraded];

    /// The name in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
            Self::Degraded => "degraded",
        }
    }
}

/// What is to be told of Redis.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// How the node decides now.
    pub mode: Mode,
    /// Where Redis is, without any secret.
    pub address: String,
    /// Whether it answers.
    pub is_up: bool,
    /// Whether it is a Redis Cluster; `None` before it was reached.
    pub is_cluster: Option<bool>,
    /// Whether nodes that Redis hears of decide without it, so that this node's share holds too.
    pub shares: bool,
    /// How often deciding went over to Redis, and back to the nodes.
    pub switches: (u64, u64),
    /// What went wrong last, while it is down.
    pub last_error: Option<String>,
    /// What came of requests.
    pub outcomes: [(Outcome, u64); Outcome::ALL.len()],
}

/// How to get in.
///
/// # Errors
/// A file can't be read; the text names it.
pub fn target(
    nodes: Vec<ConnectionInfo>,
    password_file: Option<&Path>,
    ca_file: Option<&Path>,
    timeout: Duration,
) -> anyhow::Result<Target> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let nodes = match password_file {
        None => nodes,
        Some(path) => {
            let text = String::from_utf8(read(path)?).with_context(|| format!("{} is not text", path.display()))?;
            let with = |node: ConnectionInfo| {
                let settings = node.redis_settings().clone().set_password(text.trim());
                node.set_redis_settings(settings)
            };
            nodes.into_iter().map(with).collect()
        }
    };
    let tls = match ca_file {
        None => None,
        Some(path) => Some(TlsCertificates { client_tls: None, root_cert: Some(read(path)?) }),
    };
    Ok(Target { nodes, tls, timeout })
}

/// The central store as the driver asks it; clones share it.
#[derive(Clone)]
pub struct Central(Arc<Shared>);

struct Shared {
    driver: Driver,
    /// Keeps the keys of clusters that share one Redis apart.
    cluster: String,
    target: Target,
    address: String,
    when: When,
    scripts: Scripts,
    link: Mutex<Option<Link>>,
    health: Health,
    /// Who decides; read on every check through `decides`.
    switch: Mutex<Switch>,
    decides: AtomicBool,
    /// Nodes that Redis hears of decide without it: what it grants must be within this node's share too.
    shares: AtomicBool,
    /// No peer is heard of, and none goes on without Redis: Redis tells all that the others spend.
    alone: AtomicBool,
    /// Counts the times that this node began to ask.
    episode: AtomicU32,
    switches: [AtomicU64; 2],
    told_of_split: AtomicBool,
}

impl Central {
    /// Of a node that decides by `driver`; nothing is connected before [`Central::run`].
    #[must_use]
    pub fn new(driver: Driver, cluster: String, address: String, target: Target, when: When) -> Self {
        let decider = if when == When::Always { Decider::Store } else { Decider::Nodes };
        Self(Arc::new(Shared {
            driver,
            cluster,
            target,
            address,
            when,
            scripts: Scripts::new(),
            link: Mutex::new(None),
            health: Health::default(),
            switch: Mutex::new(Switch::new(decider)),
            decides: AtomicBool::new(decider == Decider::Store),
            shares: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            episode: AtomicU32::new(1),
            switches: [AtomicU64::new(0), AtomicU64::new(0)],
            told_of_split: AtomicBool::new(false),
        }))
    }

    /// What is to be told.
    #[must_use]
    pub fn view(&self) -> View {
        let shared = &self.0;
        let is_up = shared.health.is_up();
        View {
            mode: match (shared.decides.load(Relaxed), is_up) {
                (false, _) => Mode::Local,
                (true, true) => Mode::Redis,
                (true, false) => Mode::Degraded,
            },
            address: shared.address.clone(),
            is_up,
            is_cluster: self.link().map(|l| l.is_cluster()),
            shares: shared.shares.load(Relaxed),
            switches: (shared.switches[0].load(Relaxed), shared.switches[1].load(Relaxed)),
            last_error: shared.health.last_error(),
            outcomes: shared.health.counts(),
        }
    }

    fn link(&self) -> Option<Link> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn job(&self, checks: &[Check<'_>], briefs: Vec<Brief>, all: bool) -> Job {
        let call = script::call(&self.0.cluster, checks, &briefs);
        Job { central: self.clone(), call, costs: checks.iter().map(|c| c.cost).collect(), briefs, all }
    }

    fn brief(&self, check: &Check<'_>) -> Result<Option<Brief>, CheckError> {
        let driver = &self.0.driver;
        driver.node().brief(check, driver.now(), self.0.episode.load(Relaxed))
    }

    /// Tells Redis, beside all requests, what this node owes it on a key.
    fn settle(&self, limit: LimitRef<'_>, key: &str) {
        let check = Check { limit, key, cost: 0, priority: "normal" };
        let Ok(Some(brief)) = self.brief(&check) else { return };
        if let (Some(link), true) = (self.link(), self.0.health.is_up()) {
            self.job(&[check], vec![brief], false).tell(link);
        } else {
            self.0.driver.node().unsaid(&brief);
        }
    }
}

impl Referee for Central {
    fn presides(&self) -> bool {
        self.0.decides.load(Relaxed)
    }

    fn decide<'a>(
        &'a self,
        checks: &'a [Check<'a>],
        attempts: &'a [Attempt],
        all: bool,
    ) -> Pin<Box<dyn Future<Output = Ruled> + Send + 'a>> {
        if all { Box::pin(self.all(checks, attempts)) } else { Box::pin(self.each(checks, attempts)) }
    }

    fn given_back(&self, limit: LimitRef<'_>, key: &str) {
        self.settle(limit, key);
    }
}
