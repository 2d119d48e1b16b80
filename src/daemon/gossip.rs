//! Between the driver and the cluster: frames out, frames in, and the clock of the rounds. It must not know limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use spillgate_core::gossip::Pace;
use spillgate_core::node::Outbox;
use spillgate_core::view::ReplicaId;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::told_to_stop;
use crate::cluster::{Cluster, Inbox};
use crate::driver::Driver;

/// What a frame may be long while no peer is there to tell.
const FRAME_BYTES_ALONE: usize = 1150;
/// Messages and arrivals that wait for the joining task; more are dropped, and the peer asked again.
const ARRIVALS_MAX: usize = 256;
/// How often a frame that is refused is told of.
const REFUSED_TOLD_EVERY: u64 = 1000;

/// Bytes and refusals, counted.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Carries the core's frames to the cluster.
#[derive(Clone)]
pub(super) struct Post {
    cluster: Option<Cluster>,
    traffic: Arc<Traffic>,
}

impl Post {
    pub(super) const fn new(cluster: Option<Cluster>, traffic: Arc<Traffic>) -> Self {
        Self { cluster, traffic }
    }

    fn frame_bytes_max(&self) -> usize {
        self.cluster.as_ref().map_or(FRAME_BYTES_ALONE, Cluster::frame_bytes_max)
    }
}

impl Outbox for Post {
    fn frame(&mut self, to: &ReplicaId, bytes: Vec<u8>) {
        if let Some(cluster) = &self.cluster {
            self.traffic.sent.fetch_add(bytes.len() as u64, Relaxed);
            cluster.send_frame(to, bytes);
        }
    }
}

/// Goes round until stopped: a tick in each interval, and at once when a request waits for confirmation.
///
/// A round that comes later than `stale_after` means that this process stood still: `arrivals` is told, since the peers
/// then know better. So it is when the wall clock has jumped.
pub(super) async fn run(
    driver: Driver,
    mut post: Post,
    pace: Pace,
    arrivals: Option<mpsc::Sender<Arrival>>,
    mut stopped: watch::Receiver<bool>,
) {
    let interval = pace.interval;
    let mut last = driver.now().at;
    let mut ticks = tokio::time::interval(interval.into());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let now = driver.now().at;
                let stood_still = now.since(last);
                let jumped = driver.clock_jumped();
                if (jumped || stood_still > pace.stale_after.plus(interval))
                    && let Some(arrivals) = &arrivals
                {
                    let stood_still_ms = stood_still.as_millis_ceil();
                    tracing::warn!(stood_still_ms, clock_jumped = jumped, "asking peers where they are");
                    driver.doubt();
                    // full: the joining task has more than enough to do, and the levels stay in doubt
                    let _ = arrivals.try_send(Arrival::Doubt);
                }
                last = now;
                driver.tick(post.frame_bytes_max(), &mut post);
            }
            () = driver.pressed() => driver.press(post.frame_bytes_max(), &mut post),
            () = told_to_stop(&mut stopped) => return,
        }
    }
}

/// Waits until all that this node charged is known to its peers, at most `most`.
pub(super) async fn settle(driver: &Driver, most: Duration) {
    // what was charged before this is told with the next tick, at the latest
    let told = driver.node().ticks() + 1;
    let settled = async {
        while driver.node().outlook().heard < told {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(most, settled).await.is_err() {
        tracing::warn!("some peers have not confirmed this node's last charges");
    }
}

/// Who came, and what was told on a stream.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A peer is up.
    Peer(ReplicaId),
    /// A reliable message.
    Message(ReplicaId, Vec<u8>),
    /// This node stood still: its levels are in doubt.
    Doubt,
}

/// What the cluster hands up, brought to the driver.
pub(super) struct Inbound {
    driver: Driver,
    post: Post,
    arrivals: mpsc::Sender<Arrival>,
}

impl Inbound {
    /// Another way to the joining task.
    pub(super) fn sender(&self) -> mpsc::Sender<Arrival> {
        self.arrivals.clone()
    }

    pub(super) fn new(driver: Driver, post: Post) -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
        (Self { driver, post, arrivals }, receiver)
    }

    fn pass_on(&self, arrival: Arrival) {
        if let Err(error) = self.arrivals.try_send(arrival) {
            tracing::debug!(%error, "a message was dropped");
        }
    }
}

impl Inbox for Inbound {
    fn peer_up(&self, peer: &ReplicaId, address: SocketAddr) {
        tracing::info!(%peer, %address, "peer is up");
        self.driver.peer_up(peer);
        self.pass_on(Arrival::Peer(peer.clone()));
    }

    fn peer_dead(&self, peer: &ReplicaId) {
        tracing::warn!(%peer, "peer is dead or unreachable");
        self.driver.peer_dead(peer);
    }

    fn peer_left(&self, peer: &ReplicaId) {
        tracing::info!(%peer, "peer has left");
        self.driver.peer_left(peer);
    }

    fn peer_lost(&self, peer: &ReplicaId) {
        tracing::info!(%peer, "peer is gone: another run of its node takes its place");
        self.driver.peer_lost(peer);
    }

    fn frame(&self, peer: &ReplicaId, bytes: &[u8]) {
        self.post.traffic.received.fetch_add(bytes.len() as u64, Relaxed);
        if let Err(error) = self.driver.frame(peer, bytes, &mut self.post.clone()) {
            // told of seldom: a peer of another version would fill the log
            if self.post.traffic.refused.fetch_add(1, Relaxed).is_multiple_of(REFUSED_TOLD_EVERY) {
                tracing::warn!(%peer, %error, "a frame was dropped");
            }
        }
    }

    fn message(&self, peer: &ReplicaId, bytes: Vec<u8>) {
        self.pass_on(Arrival::Message(peer.clone(), bytes));
    }
}
