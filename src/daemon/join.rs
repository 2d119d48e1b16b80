//! Joining: asks peers for their tables, answers those who ask, and says when the node is ready. It must not know how
//! tables are put together.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use spillgate_core::node::{Node, Told};
use spillgate_core::view::ReplicaId;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::control::Steward;
use super::gossip::Arrival;
use crate::cluster::Cluster;
use crate::driver::Driver;

/// How many peers are asked for their tables: the lowest level of them counts, and each costs a transfer.
const ASKED_MAX: usize = 3;
/// How many transfers to joiners go on at once.
const TRANSFERS_MAX: usize = 2;
/// A node without seeds waits only so long for others to find it.
const ALONE_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether peers send this node away.
const LOOK_LATER: Duration = Duration::from_millis(200);
/// How often it is looked whether the peers count this node in.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The task of joining, which then goes on to serve other joiners.
pub(super) struct Join {
    pub(super) driver: Driver,
    pub(super) cluster: Cluster,
    pub(super) steward: Arc<Steward>,
    /// After this the node is ready whoever answered.
    pub(super) timeout: Duration,
    /// Whether it has no seeds to find others by.
    pub(super) alone: bool,
}

/// How far joining has come.
#[derive(Default)]
struct Progress {
    asked: HashSet<ReplicaId>,
    loaded: HashSet<ReplicaId>,
    keys: usize,
    /// Whether this is not the first time: the node stood still meanwhile.
    doubting: bool,
}

impl Progress {
    /// Whether peers that come back should be asked once more: nobody has told yet where they are.
    fn doubts(&self) -> bool {
        self.doubting && self.loaded.is_empty()
    }
}

impl Join {
    pub(super) async fn run(self, mut arrivals: mpsc::Receiver<Arrival>) {
        let start = Instant::now();
        let transfers = Arc::new(Semaphore::new(TRANSFERS_MAX));
        let mut progress = Progress::default();
        let (mut joining, mut refused) = (true, false);
        loop {
            let next_look = Instant::now() + if joining { LOOK_EVERY } else { LOOK_LATER };
            tokio::select! {
                arrival = arrivals.recv() => match arrival {
                    Some(Arrival::Peer(peer)) if joining || progress.doubts() => self.ask(peer, &mut progress),
                    Some(Arrival::Peer(_)) => {}
                    Some(Arrival::Message(peer, bytes)) => self.take(peer, &bytes, &transfers, &mut progress),
                    Some(Arrival::Doubt) if joining => {}
                    Some(Arrival::Doubt) => {
                        progress = Progress { doubting: true, ..Progress::default() };
                        for peer in self.driver.peers() {
                            self.ask(peer.replica, &mut progress);
                        }
                    }
                    None => return,
                },
                () = sleep_until(next_look) => {}
            }
            if !joining {
                self.see_whether_refused(&mut refused);
                continue;
            }
            // Of several that start at once each would find the others as empty as itself, and they would begin anew
            // though one that knows better is still on its way: so all that may come are waited for. In this order,
            // since whoever came up meanwhile stands in the queue.
            let met = !self.cluster.is_meeting() && arrivals.is_empty();
            if met && !progress.asked.is_empty() && progress.loaded.len() == progress.asked.len() {
                self.driver.release();
            }
            let admitted = self.driver.node().outlook().admitted;
            if admitted {
                let (peers, keys) = (progress.loaded.len(), progress.keys);
                tracing::info!(peers, keys, after_ms = start.elapsed().as_millis(), "joined the cluster and ready");
            } else if start.elapsed() >= self.patience(&progress) && !self.cluster.is_refused() {
                let patience = self.patience(&progress);
                if progress.asked.is_empty() {
                    tracing::warn!(waited = ?patience, "no other node answered: this one begins with the whole limit");
                } else {
                    let (asked, loaded) = (progress.asked.len(), progress.loaded.len());
                    tracing::warn!(waited = ?patience, asked, loaded, admitted, "not joined in time, ready all the same");
                }
                self.driver.begin_alone();
            } else {
                continue;
            }
            joining = false;
            self.steward.become_ready();
        }
    }

    /// A node whose id another process has must not count alone beside it: it grants nothing while peers send it away.
    fn see_whether_refused(&self, refused: &mut bool) {
        let now = self.cluster.is_refused();
        if now != *refused {
            *refused = now;
            self.steward.set_refused(now);
            if now { self.driver.hold() } else { self.driver.release() }
        }
    }

    /// How long others are waited for: those who are there have the table, and are worth more time than nobody.
    fn patience(&self, progress: &Progress) -> Duration {
        let found = !progress.asked.is_empty() || self.cluster.is_meeting();
        if self.alone && !found { self.timeout.min(ALONE_MAX) } else { self.timeout }
    }

    fn ask(&self, peer: ReplicaId, progress: &mut Progress) {
        let anew = progress.asked.len() < ASKED_MAX && progress.asked.insert(peer.clone());
        // a connection may have ended while this node stood still: then the question was lost
        if !anew && !progress.doubts() {
            return;
        }
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            if let Err(error) = cluster.send_message(&peer, Node::state_request()).await {
                tracing::warn!(%peer, %error, "could not ask for its table");
            }
        });
    }

    fn take(&self, peer: ReplicaId, bytes: &[u8], transfers: &Arc<Semaphore>, progress: &mut Progress) {
        let asked = progress.asked.contains(&peer) && !progress.loaded.contains(&peer);
        match self.driver.message(bytes, asked) {
            Ok(Told::WantsState) => {
                let (driver, cluster) = (self.driver.clone(), self.cluster.clone());
                let transfers = transfers.clone();
                tokio::spawn(async move {
                    // never closed
                    let Ok(_permit) = transfers.acquire_owned().await else { return };
                    bring(&driver, &cluster, &peer).await;
                });
            }
            Ok(Told::State { last, keys }) => {
                progress.keys += keys;
                if last {
                    progress.loaded.insert(peer);
                }
            }
            Ok(Told::Unasked) => tracing::warn!(%peer, "it sent a table that nobody asked for"),
            Err(error) => tracing::warn!(%peer, %error, "a message was dropped"),
        }
    }
}

/// Brings a joiner the table, one part after the other, so that no more than one is in memory.
async fn bring(driver: &Driver, cluster: &Cluster, peer: &ReplicaId) {
    for chunk in driver.node().state_chunks(driver.now()) {
        if let Err(error) = cluster.send_message(peer, chunk).await {
            tracing::warn!(%peer, %error, "could not bring it the table");
            return;
        }
    }
    tracing::debug!(%peer, "brought it the table");
}
