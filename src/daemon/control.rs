//! What the API asks of the daemon besides checks. It must not know HTTP.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::LoadConfig;
use super::gossip::Traffic;
use crate::api::{Control, DeciderView, Identity, MemberView, Readiness, RespCounts, StoreView};
use crate::cluster::{Cluster, MemberState};
use crate::config::Config;
use crate::driver::Driver;
use crate::metrics::{Metrics, Sample};
use crate::redis::{Central, Mode};
use crate::snapshot::Store;
use spillgate_core::view::PeerState;

const VERSION: &str = env!("CARGO_PKG_VERSION");

const JOINING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// Keeps the daemon's state for those who ask.
pub(super) struct Steward {
    pub(super) traffic: Arc<Traffic>,
    pub(super) resp: Arc<RespCounts>,
    driver: Driver,
    metrics: Arc<Metrics>,
    cluster: Option<Cluster>,
    store: Option<Arc<Store>>,
    cluster_name: Option<String>,
    central: Option<Central>,
    /// When the central store is to decide, by its name in the configuration.
    store_when: &'static str,
    readiness: AtomicU8,
    file: Option<PathBuf>,
    load: LoadConfig,
    /// The configuration in force, but for what only a restart takes over.
    running: Mutex<Config>,
}

/// The daemon's parts that are asked and told.
pub(super) struct Parts {
    pub(super) driver: Driver,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cluster: Option<Cluster>,
    pub(super) central: Option<Central>,
    pub(super) store: Option<Arc<Store>>,
}

impl Steward {
    pub(super) fn new(parts: Parts, config: &Config, file: Option<PathBuf>, load: LoadConfig) -> Self {
        let Parts { driver, metrics, cluster, central, store } = parts;
        Self {
            traffic: Arc::default(),
            resp: Arc::default(),
            driver,
            metrics,
            cluster,
            store,
            cluster_name: config.cluster.as_ref().map(|c| c.name.clone()),
            central,
            store_when: config.redis.as_ref().map_or("", |r| r.mode.as_str()),
            readiness: AtomicU8::new(JOINING),
            file,
            load,
            running: Mutex::new(config.clone()),
        }
    }

    /// The configuration file, where there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Joined, or tired of waiting; a node on its way out stays there.
    pub(super) fn become_ready(&self) {
        let _ = self.readiness.compare_exchange(JOINING, READY, Relaxed, Relaxed);
    }

    /// Whether peers send this node away: then it is as one that has not joined yet.
    pub(super) fn set_refused(&self, refused: bool) {
        let (from, to) = if refused { (READY, JOINING) } else { (JOINING, READY) };
        let _ = self.readiness.compare_exchange(from, to, Relaxed, Relaxed);
    }

    pub(super) fn begin_draining(&self) {
        self.readiness.store(DRAINING, Relaxed);
    }
}

impl Control for Steward {
    fn readiness(&self) -> Readiness {
        match self.readiness.load(Relaxed) {
            JOINING => Readiness::Joining,
            READY => Readiness::Ready,
            _ => Readiness::Draining,
        }
    }

    fn reload(&self) -> Result<String, String> {
        let new = (self.load)().map_err(|e| e.to_string())?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let report = report(&running, &new);
        if running.limits != new.limits {
            self.driver.set_limits(new.limits.clone());
            running.limits = new.limits;
        }
        Ok(report)
    }

    fn drain(&self) {
        tracing::info!("draining: checks are refused from now on");
        self.begin_draining();
    }

    fn metrics(&self) -> String {
        self.metrics.render(&Sample {
            tallies: self.driver.node().tallies(self.driver.now().at),
            peers: self.driver.peers(),
            evictions: self.driver.node().evictions(),
            bytes: (self.traffic.sent.load(Relaxed), self.traffic.received.load(Relaxed)),
            frames_refused: self.traffic.refused.load(Relaxed),
            mode: self.central.as_ref().map_or(Mode::Local, |c| c.view().mode),
            store: self.central.as_ref().map(Central::view),
            snapshots: self.store.as_ref().map(|s| s.written()),
            resp: (self.resp.open(), self.resp.commands().collect(), self.resp.errors()),
            version: VERSION,
        })
    }

    fn decider(&self) -> DeciderView {
        let Some(view) = self.central.as_ref().map(Central::view) else {
            return DeciderView { mode: Mode::Local.as_str(), store: None };
        };
        let store = StoreView {
            when: self.store_when,
            address: view.address,
            is_up: view.is_up,
            is_cluster: view.is_cluster,
            shares: view.shares,
            switched_over: view.switches.0,
            switched_back: view.switches.1,
            last_error: view.last_error,
        };
        DeciderView { mode: view.mode.as_str(), store: Some(store) }
    }

    fn identity(&self) -> Identity {
        let replica = self.driver.node().replica();
        Identity {
            cluster: self.cluster_name.clone(),
            node: replica.node.to_string(),
            incarnation: replica.incarnation,
            address: self.cluster.as_ref().map(|c| c.advertised_addr().to_string()),
            version: VERSION,
            uptime: self.driver.now().at,
        }
    }

    fn members(&self) -> Vec<MemberView> {
        let members = self.cluster.as_ref().map(Cluster::members).unwrap_or_default();
        let mut views: Vec<MemberView> = self
            .driver
            .peers()
            .into_iter()
            .map(|p| MemberView {
                address: members.iter().find(|m| m.replica == p.replica).map(|m| m.address.to_string()),
                node: p.replica.node.to_string(),
                incarnation: p.replica.incarnation,
                state: p.state,
                round_trip: p.round_trip,
                news_age: p.news_age,
                clock_offset: p.clock_offset,
                frames_sent: p.frames_sent,
                frames_received: p.frames_received,
                frames_lost: p.frames_lost,
            })
            .collect();
        // known to membership, but no link to it yet
        for member in members.into_iter().filter(|m| m.state == MemberState::Connecting) {
            if !views.iter().any(|v| *v.node == *member.replica.node) {
                views.push(MemberView {
                    node: member.replica.node.to_string(),
                    incarnation: member.replica.incarnation,
                    address: Some(member.address.to_string()),
                    state: PeerState::Joining,
                    round_trip: None,
                    news_age: None,
                    clock_offset: None,
                    frames_sent: 0,
                    frames_received: 0,
                    frames_lost: 0,
                });
            }
        }
        views.sort_by(|a, b| a.node.cmp(&b.node));
        views
    }
}

/// What a reload changes, and what it leaves to a restart.
fn report(old: &Config, new: &Config) -> String {
    let named = |config: &Config| -> Vec<String> { config.limits.iter().map(|(n, _)| n.to_owned()).collect() };
    let (before, after) = (named(old), named(new));
    let mut parts = Vec::new();
    let list = |verb: &str, names: Vec<&String>| {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("{verb} {}", names.join(", ")))
    };
    parts.extend(list("added", after.iter().filter(|n| !before.contains(n)).collect()));
    parts.extend(list("removed", before.iter().filter(|n| !after.contains(n)).collect()));
    let changed = after.iter().filter(|n| {
        let (old, new) = (old.limits.find(n), new.limits.find(n));
        old.is_some() && old != new
    });
    parts.extend(list("changed", changed.collect()));
    let mut text = if parts.is_empty() { "no limit changed".to_owned() } else { parts.join("; ") };
    let sections = |c: &Config| (c.node.clone(), c.http.clone(), c.resp.clone(), c.cluster.clone(), c.redis.clone());
    if sections(old) != sections(new) {
        text.push_str("; [node], [http], [resp], [cluster] or [redis] changed too: that takes a restart");
    }
    text
}
