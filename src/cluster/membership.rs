//! Membership and failure detection by chitchat, carried over the mesh, and what follows of it: whom to dial, whom to
//! hear, what to tell the layer above. It knows no limits, no keys and no frames.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chitchat::transport::{Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable, FailureDetectorConfig, NodeState,
    Serializable, spawn_chitchat,
};
use spillgate_core::view::ReplicaId;
use tokio::sync::mpsc;

use super::Inbox;
use super::error::ClusterError;
use super::quic::{LinkEvent, MembershipMessage, Mesh, code};
use super::roster::{Change, Roster};

/// A silence of so many mean intervals between heartbeats is death. With [`SAMPLES`] and a round every 100 ms a crash
/// was noticed after 1.0 to 1.6 s in clusters of 2 to 12 nodes.
const PHI: f64 = 16.0;
/// Few, so that chitchat's prior (five intervals of a round) keeps the mean from shrinking: in a larger cluster
/// heartbeats come along more paths, several a round.
const SAMPLES: usize = 10;
/// Chitchat stops speaking of a dead node after half of this, and forgets it after all of it.
const DEAD_GRACE: Duration = Duration::from_secs(300);
/// Between looks at who is alive and not connected.
const MISSING: Duration = Duration::from_millis(250);
const FORGET: Duration = Duration::from_secs(10);

/// Runs membership until it is aborted; returns only if chitchat gives up.
pub(super) struct Membership {
    pub(super) mesh: Arc<Mesh>,
    pub(super) roster: Arc<Mutex<Roster>>,
    pub(super) inbox: Arc<dyn Inbox>,
    /// Between rounds of membership.
    pub(super) interval: Duration,
}

impl Membership {
    pub(super) async fn run(
        self,
        inbound: mpsc::Receiver<MembershipMessage>,
        mut events: mpsc::Receiver<LinkEvent>,
    ) -> ClusterError {
        let transport = MeshTransport { mesh: self.mesh.clone(), inbound: Mutex::new(Some(inbound)) };
        let chitchat = match spawn_chitchat(self.config(), Vec::new(), &transport).await {
            Ok(chitchat) => chitchat,
            Err(error) => return ClusterError::MembershipStopped { reason: error.to_string() },
        };
        let mut live = chitchat.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let ended = chitchat.termination_watcher();
        tokio::pin!(ended);
        let mut missing = tokio::time::interval(MISSING);
        let mut forget = tokio::time::interval(FORGET);
        loop {
            tokio::select! {
                result = &mut ended => {
                    let reason = result.err().map_or_else(|| "it ended".into(), |error| error.to_string());
                    return ClusterError::MembershipStopped { reason };
                }
                Some(event) = events.recv() => self.on_link(event, &chitchat),
                Ok(()) = live.changed() => {
                    let alive = replicas(live.borrow_and_update().keys());
                    self.on_alive(alive);
                }
                _ = missing.tick() => self.dial_missing(),
                _ = forget.tick() => {
                    for replica in self.roster().forget(Instant::now()) {
                        tracing::debug!(%replica, "forgotten");
                    }
                }
            }
        }
    }

    fn config(&self) -> ChitchatConfig {
        let hello = &self.mesh.hello;
        ChitchatConfig {
            chitchat_id: ChitchatId::new(hello.node.clone(), hello.incarnation, hello.address),
            cluster_id: hello.cluster.clone(),
            gossip_interval: self.interval,
            listen_addr: hello.address,
            // the seeds are resolved and dialed by `seeds`, and met when the connection is there
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig::new(
                PHI,
                SAMPLES,
                self.interval * 20,
                self.interval,
                DEAD_GRACE,
            ),
            marked_for_deletion_grace_period: DEAD_GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None::<Box<dyn Fn(&NodeState) -> bool + Send>>,
        }
    }

    fn on_link(&self, event: LinkEvent, chitchat: &ChitchatHandle) {
        let now = Instant::now();
        let changes = match event {
            LinkEvent::Linked(replica, address) => {
                let changes = self.roster().linked(&replica, address, now);
                // who just came is told who is here, and the reverse, at once; chitchat's own end is noticed elsewhere
                let _ = chitchat.gossip(address);
                changes
            }
            LinkEvent::Unlinked(replica) => {
                if self.mesh.registry.link(&replica).is_none() {
                    self.roster().unlinked(&replica, now);
                }
                Vec::new()
            }
            LinkEvent::Goodbye(replica) => self.roster().goodbye(&replica, now),
        };
        self.carry_out(changes);
    }

    fn on_alive(&self, alive: HashMap<ReplicaId, SocketAddr>) {
        let hello = &self.mesh.hello;
        let twin =
            alive.iter().find(|(replica, _)| replica.node == hello.node && replica.incarnation > hello.incarnation);
        if let Some((_, address)) = twin {
            self.mesh.report_duplicate(*address);
            // only itself can prove it
            self.mesh.dial(*address, None);
        }
        let changes = self.roster().alive(alive, Instant::now());
        self.carry_out(changes);
        self.dial_missing();
    }

    fn dial_missing(&self) {
        let missing = self.roster().missing();
        for (replica, address) in missing {
            self.mesh.dial(address, Some(&replica));
        }
    }

    /// The roster is not locked meanwhile: the inbox may ask for the members.
    fn carry_out(&self, changes: Vec<Change>) {
        let (registry, inbox) = (&self.mesh.registry, &self.inbox);
        for change in changes {
            match change {
                Change::Up(replica, address) => {
                    self.mesh.refused.store(false, Relaxed);
                    tracing::debug!(peer = %replica, %address, "up");
                    registry.admit(&replica, || inbox.peer_up(&replica, address));
                }
                Change::Dead(replica) => {
                    tracing::debug!(peer = %replica, "dead or unreachable");
                    registry.bar(&replica, || inbox.peer_dead(&replica));
                }
                Change::Left(replica) => {
                    tracing::debug!(peer = %replica, "left");
                    registry.bar(&replica, || inbox.peer_left(&replica));
                }
                Change::Lost(replica) => {
                    tracing::debug!(peer = %replica, "gone");
                    registry.bar(&replica, || inbox.peer_lost(&replica));
                }
                Change::Close(replica) => registry.close(&replica, code::LEFT, b"you have left"),
                Change::Supersede(replica) => {
                    registry.close(&replica, code::SUPERSEDED, b"a newer run of your node is known");
                }
            }
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn replicas<'a>(ids: impl Iterator<Item = &'a ChitchatId>) -> HashMap<ReplicaId, SocketAddr> {
    ids.map(|id| {
        let replica = ReplicaId { node: id.node_id.clone(), incarnation: id.generation_id };
        (replica, id.gossip_advertise_addr)
    })
    .collect()
}

/// Chitchat's socket: the mesh. (The trait's async functions are spelled out, as its macro would.)
struct MeshTransport {
    mesh: Arc<Mesh>,
    /// Handed to the one socket that is opened.
    inbound: Mutex<Option<mpsc::Receiver<MembershipMessage>>>,
}

struct MeshSocket {
    mesh: Arc<Mesh>,
    inbound: mpsc::Receiver<MembershipMessage>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

impl Transport for MeshTransport {
    fn open<'s, 'a>(&'s self, _listen: SocketAddr) -> Answer<'a, Box<dyn Socket>>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(async move {
            let inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner).take();
            let inbound = inbound.ok_or_else(|| anyhow::anyhow!("the mesh carries one membership only"))?;
            Ok(Box::new(MeshSocket { mesh: self.mesh.clone(), inbound }) as Box<dyn Socket>)
        })
    }
}

impl Socket for MeshSocket {
    /// Never waits: chitchat's one loop hangs on it.
    fn send<'s, 'a>(&'s mut self, to: SocketAddr, message: ChitchatMessage) -> Answer<'a, ()>
    where
        's: 'a,
        Self: 'a,
    {
        self.mesh.send_membership(to, message.serialize_to_vec());
        Box::pin(std::future::ready(Ok(())))
    }

    /// Loses nothing when dropped: it only waits on a channel.
    fn recv<'s, 'a>(&'s mut self) -> Answer<'a, (SocketAddr, ChitchatMessage)>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(async move {
            loop {
                let Some((from, bytes)) = self.inbound.recv().await else {
                    anyhow::bail!("the mesh has ended");
                };
                match ChitchatMessage::deserialize(&mut &bytes[..]) {
                    Ok(message) => return Ok((from, message)),
                    Err(error) => tracing::debug!(%from, %error, "membership message dropped"),
                }
            }
        })
    }
}
