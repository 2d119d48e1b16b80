//! What goes on beside requests: connecting, a heartbeat that says who is there and whether Redis is well, and looking
//! who should decide.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use spillgate_core::time::Nanos;
use spillgate_core::view::PeerState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::link::Link;
use super::switch::{Decider, PRESENCE_BELIEVED, goes_on_without_store, is_cut_off};
use super::{Central, RedisError, When, script};

/// Between two beats of a Redis that is well.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Between two beats of one that is not known to be.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// Between two attempts to connect.
const CONNECT_EVERY: Duration = Duration::from_millis(500);
/// So many beats in a row fail before all is begun anew: the client may have lost its way.
const BEATS_LOST_MAX: u32 = 20;
/// How often it is looked who should decide.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Says at Redis that this node decides by itself, or asks Redis.
const BY_ITSELF: &str = "self";
const BY_REDIS: &str = "redis";

/// What the others have said at Redis, and when.
type Presences = HashMap<String, (String, Nanos)>;

impl Central {
    /// Keeps the connection and looks who should decide, until stopped.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let (heard, hearing) = watch::channel(Presences::new());
        tokio::select! {
            () = self.beat(heard) => {}
            () = self.look(hearing) => {}
            // an error means that nobody can tell any more
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    }

    async fn beat(&self, heard: watch::Sender<Presences>) {
        let shared = &self.0;
        let mut lost = 0;
        loop {
            let Some(link) = self.link() else {
                match Link::open(&shared.target).await {
                    Ok(link) => {
                        tracing::info!(address = shared.address, cluster = link.is_cluster(), "connected to Redis");
                        *shared.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
                        lost = 0;
                    }
                    Err(error) => {
                        shared.health.failed(&error);
                        sleep(CONNECT_EVERY).await;
                    }
                }
                continue;
            };
            match self.beat_once(&link).await {
                Ok(presences) => {
                    lost = 0;
                    shared.health.beat_well();
                    heard.send_replace(presences);
                }
                Err(error) => {
                    lost += 1;
                    shared.health.failed(&error);
                    if lost >= BEATS_LOST_MAX {
                        *shared.link.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    }
                }
            }
            sleep(if shared.health.is_up() { BEAT_EVERY } else { PROBE_EVERY }).await;
        }
    }

    async fn beat_once(&self, link: &Link) -> Result<Presences, RedisError> {
        let shared = &self.0;
        let node = shared.driver.node().replica().node.to_string();
        let word = if shared.decides.load(Relaxed) && !self.is_coming_back() { BY_REDIS } else { BY_ITSELF };
        let call = script::presence_call(&shared.cluster, &node, word);
        let timeout = shared.target.timeout;
        let reply = tokio::time::timeout(timeout, link.run(&shared.scripts.presence, &call)).await;
        let reply = reply.map_err(|_| RedisError::Timeout(timeout))??;
        let now = shared.driver.now().at;
        let told = script::presences(reply)?.into_iter();
        Ok(told.map(|(node, word, age)| (node, (word, now.since(Nanos(age.saturating_mul(1000)))))).collect())
    }

    /// Whether the cluster is back, so that this node soon decides by itself again: said in good time.
    fn is_coming_back(&self) -> bool {
        self.0.when != When::Always && !self.is_cut_off()
    }

    fn is_cut_off(&self) -> bool {
        let When::CutOff { min_peers, expected } = self.0.when else { return false };
        let peers = self.0.driver.peers();
        let alive = peers.iter().filter(|p| p.state == PeerState::Alive).count();
        is_cut_off(alive, expected || !peers.is_empty(), min_peers)
    }

    async fn look(&self, hearing: watch::Receiver<Presences>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.0.when != When::Always {
                self.look_once(&hearing.borrow());
            }
        }
    }

    fn look_once(&self, presences: &Presences) {
        let shared = &self.0;
        let now = shared.driver.now().at;
        let peers = shared.driver.peers();
        let alone = !peers.iter().any(|p| p.state == PeerState::Alive);
        let said = |node: &str| {
            let (word, _) = presences.get(node).filter(|(_, at)| now.since(*at) < PRESENCE_BELIEVED)?;
            Some(if word == BY_REDIS { Decider::Store } else { Decider::Nodes })
        };
        let shares = peers.iter().any(|p| goes_on_without_store(p.state, said(&p.replica.node)));
        // what Redis says to be used is all that is used only where nobody spends without it
        shared.alone.store(alone && !shares, Relaxed);
        shared.shares.store(shares, Relaxed);
        let cut_off = self.is_cut_off();
        let switched = shared.switch.lock().unwrap_or_else(PoisonError::into_inner).look(now, cut_off);
        match switched {
            Some(Decider::Store) => {
                shared.episode.fetch_add(1, Relaxed);
                shared.decides.store(true, Relaxed);
                shared.switches[0].fetch_add(1, Relaxed);
                let up = shared.health.is_up();
                tracing::warn!(address = shared.address, up, "cut off from the cluster: Redis decides from now on");
            }
            Some(Decider::Nodes) => {
                shared.decides.store(false, Relaxed);
                shared.switches[1].fetch_add(1, Relaxed);
                tracing::info!("the cluster is back: the nodes decide by themselves again");
            }
            None => {}
        }
    }
}
