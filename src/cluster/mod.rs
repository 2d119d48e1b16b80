//! The cluster's face: one UDP port that carries membership, frames and messages between the nodes, all inside QUIC
//! with mutual TLS. It never knows what a frame or a message means.
//!
//! ```text
//! Cluster ── membership (chitchat) ── roster: who is up, dead, gone ──> Inbox: peer_up, peer_dead, peer_left, peer_lost
//!    │            │ dial, admit, bar
//!    └──────── mesh (quic, registry, link) ─────────────────────────── > Inbox: frame, message
//!                 │ endpoint, tls, secret                    seeds ── dial
//! ```

mod congestion;
mod endpoint;
mod error;
mod hello;
mod link;
mod membership;
mod quic;
mod refusal;
mod registry;
mod roster;
mod secret;
mod seeds;
mod seldom;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spillgate_core::view::ReplicaId;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use error::ClusterError;
pub use secret::ClusterSecret;

use hello::{Hello, is_node_id};
use membership::Membership;
use quic::{LinkEvent, MembershipMessage, Mesh, code};
use roster::Roster;
use tls::Tls;

/// The rounds of membership: no faster than this, whatever the gossip of counters does, and no slower.
const MEMBERSHIP_INTERVAL_MIN: Duration = Duration::from_millis(100);
const MEMBERSHIP_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Membership messages and events that wait to be taken up.
const QUEUE: usize = 1024;
/// Room in a datagram that any path has, for when there is no peer to ask.
const FRAME_BYTES: usize = 1150;
/// How long leaving waits for the connections to close.
const CLOSING: Duration = Duration::from_secs(3);

/// What the mesh hands up. Called from the mesh's tasks; must not block long, and may call the [`Cluster`].
///
/// Of one peer, nothing is heard before [`peer_up`](Inbox::peer_up), nor between [`peer_dead`](Inbox::peer_dead) and
/// the next `peer_up`, nor after [`peer_left`](Inbox::peer_left) or [`peer_lost`](Inbox::peer_lost). Frames and messages
/// may come from several tasks at once.
pub trait Inbox: Send + Sync + 'static {
    /// A peer is up: membership calls it alive and a connection authenticated as it exists. `address` is the one it
    /// advertises.
    fn peer_up(&self, peer: &ReplicaId, address: SocketAddr);
    /// Membership calls the peer dead (crashed or unreachable); it may come back, as the same replica.
    fn peer_dead(&self, peer: &ReplicaId);
    /// The peer said goodbye: it never comes back.
    fn peer_left(&self, peer: &ReplicaId);
    /// Another incarnation of its node took the peer's place, and it said no goodbye: it never comes back.
    fn peer_lost(&self, peer: &ReplicaId);
    /// One unreliable frame from it.
    fn frame(&self, peer: &ReplicaId, bytes: &[u8]);
    /// One reliable message from it, whole. Messages are not ordered among themselves.
    fn message(&self, peer: &ReplicaId, bytes: Vec<u8>);
}

/// How this node takes part in the cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The cluster's name, 1 to 255 bytes. Nodes with another name stay apart, even with the same secret.
    pub name: String,
    /// This node's id, unique in the cluster: 1 to 255 letters, digits, '.', '_' or '-'.
    pub node: String,
    /// Larger in each run of this node. A run that is not larger is refused by peers that remember the former one.
    pub incarnation: u64,
    /// The UDP address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where peers reach this node; by default `listen`, or this machine's outgoing address if that is unspecified.
    pub advertise: Option<SocketAddr>,
    /// Ways into the cluster, `host:port` each; names are resolved again and again. This node's own may be among them.
    pub seeds: Vec<String>,
    /// What proves that a node belongs to the cluster.
    pub credentials: Credentials,
    /// Between rounds of gossip. Membership keeps the same pace within 100 ms and 1 s; at 100 ms a crash is noticed in
    /// about a second.
    pub gossip_interval: Duration,
    /// The largest message sent or accepted, bytes.
    pub message_bytes_max: usize,
}

/// What proves that a node belongs to the cluster.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// One shared secret, or two while it is rotated.
    Secret(ClusterSecret),
    /// PEM files. The certificate, signed by the authority, is for server and client use and carries the DNS name
    /// `spillgate` and the node's id, as a DNS name or as the URI `spillgate:<id>`.
    Files {
        /// Certificates of the authorities that are trusted.
        ca: PathBuf,
        /// This node's certificate and what stands between it and the authority.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// How a member stands with this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Membership calls it alive or it is connected, but not both yet.
    Connecting,
    /// It is up.
    Alive,
    /// It crashed or cannot be reached.
    Dead,
    /// It said goodbye.
    Left,
}

impl MemberState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Connecting, Self::Alive, Self::Dead, Self::Left];

    /// The name in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Alive => "alive",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

/// Another node of the cluster, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The newest known run of the node.
    pub replica: ReplicaId,
    /// Where it says it can be reached.
    pub address: SocketAddr,
    /// How it stands.
    pub state: MemberState,
}

/// This node's part in the cluster. Clones share it; when the last is dropped without [`leave`](Cluster::leave), the
/// port is closed and peers find this node dead.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    mesh: Arc<Mesh>,
    roster: Arc<Mutex<Roster>>,
    local: SocketAddr,
    seeds: Vec<String>,
    /// Seeds whose first dial has not ended.
    untried: Arc<AtomicUsize>,
    membership_interval: Duration,
    runtime: Handle,
    waiting: Mutex<Option<Waiting>>,
    tasks: Mutex<JoinSet<()>>,
    stopped: Arc<watch::Sender<Option<Ended>>>,
}

/// Why this node's part ended although nobody asked it to.
#[derive(Clone, Debug)]
enum Ended {
    /// Membership broke down.
    Membership(String),
    /// Another process has this node's id, is reached there, and stays.
    Duplicate(SocketAddr),
}

/// What the tasks take over when they start.
struct Waiting {
    membership: mpsc::Receiver<MembershipMessage>,
    events: mpsc::Receiver<LinkEvent>,
}

impl Cluster {
    /// Binds the UDP socket; nothing is sent or answered before [`start`](Cluster::start). Must be called inside a
    /// tokio runtime, and the tasks run there.
    ///
    /// # Errors
    /// The port is taken (the error names it), a name is not allowed, or the credentials cannot be used.
    pub async fn bind(config: ClusterConfig) -> Result<Self, ClusterError> {
        let socket = endpoint::bind(config.listen)?;
        let bind_error = |source| ClusterError::Bind { address: config.listen, source };
        let local = socket.local_addr().map_err(bind_error)?;
        if !is_node_id(&config.node) {
            return Err(ClusterError::NodeId { node: config.node });
        }
        if !(1..=255).contains(&config.name.len()) {
            return Err(ClusterError::Name { name: config.name });
        }
        let tls = Tls::new(&config.credentials, &config.name, &config.node)?;
        let towards = config.seeds.iter().find_map(|seed| seed.parse().ok());
        let hello = Hello {
            cluster: config.name,
            node: config.node.into(),
            incarnation: config.incarnation,
            address: endpoint::advertised(config.advertise, local, towards),
            peers: 0,
        };
        let endpoint = endpoint::open(socket, &tls).map_err(bind_error)?;
        let (membership_in, membership) = mpsc::channel(QUEUE);
        let (events_in, events) = mpsc::channel(QUEUE);
        let roster = Arc::new(Mutex::new(Roster::new(hello.replica())));
        let mesh =
            Mesh::new(endpoint, hello, tls.names, config.message_bytes_max, membership_in, events_in, roster.clone());
        let stopped = mesh.ended.clone();
        Ok(Self {
            shared: Arc::new(Shared {
                mesh: Arc::new(mesh),
                roster,
                local,
                untried: Arc::new(AtomicUsize::new(config.seeds.len())),
                seeds: config.seeds,
                membership_interval: config.gossip_interval.clamp(MEMBERSHIP_INTERVAL_MIN, MEMBERSHIP_INTERVAL_MAX),
                runtime: Handle::current(),
                waiting: Mutex::new(Some(Waiting { membership, events })),
                tasks: Mutex::default(),
                stopped,
            }),
        })
    }

    /// Joins the cluster: from now on peers are dialed, heard and reported to `inbox`. Only the first call counts.
    pub fn start(&self, inbox: Arc<dyn Inbox>) {
        let Shared { mesh, roster, runtime, .. } = &*self.shared;
        let Some(Waiting { membership, events }) = lock(&self.shared.waiting).take() else {
            tracing::debug!("the cluster was started already");
            return;
        };
        // set once: only the first call comes so far
        let _ = mesh.inbox.set(inbox.clone());
        let mut tasks = lock(&self.shared.tasks);
        tasks.spawn_on(mesh.clone().accept(), runtime);
        for seed in &self.shared.seeds {
            let untried = self.shared.untried.clone();
            tasks.spawn_on(seeds::follow(seed.clone(), mesh.clone(), roster.clone(), untried), runtime);
        }
        let interval = self.shared.membership_interval;
        let member = Membership { mesh: mesh.clone(), roster: roster.clone(), inbox, interval };
        let stopped = self.shared.stopped.clone();
        let run = async move {
            let error = member.run(membership, events).await;
            tracing::error!(%error, "this node no longer notices who comes and goes");
            stopped.send_replace(Some(Ended::Membership(error.to_string())));
        };
        tasks.spawn_on(run, runtime);
    }

    /// The address listened on, with the real port when port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// The address that peers are told to use.
    #[must_use]
    pub fn advertised_addr(&self) -> SocketAddr {
        self.shared.mesh.hello.address
    }

    /// Sends an unreliable frame in one datagram; never waits. It is dropped when there is no connection to the peer
    /// or it is larger than [`frame_bytes_max`](Cluster::frame_bytes_max); the oldest unsent ones are dropped when the
    /// path is slower than the sender.
    pub fn send_frame(&self, to: &ReplicaId, bytes: Vec<u8>) {
        self.shared.mesh.send_frame(to, bytes);
    }

    /// The largest frame that fits a datagram to every connected peer; 1150 when there is none. It changes as paths
    /// are measured: ask each time.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        let room = self.shared.mesh.registry.min_of(|link| link.connection.max_datagram_size());
        // one byte tells frames from membership
        room.map_or(FRAME_BYTES, |room| room.saturating_sub(1))
    }

    /// Sends a message on a stream of its own and returns when the peer's end of the connection has all of it. The
    /// peer's inbox gets it unless the peer does not call this node up (within 5 s) or leaves.
    ///
    /// # Errors
    /// The message is over the limit, there is no connection, or it broke or was refused before the end.
    pub async fn send_message(&self, to: &ReplicaId, bytes: Vec<u8>) -> Result<(), ClusterError> {
        self.shared.mesh.send_message(to, &bytes).await
    }

    /// The other nodes known, the newest run of each, by node id. A node that is gone stays listed for ten minutes.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        lock(&self.shared.roster).members()
    }

    /// Whether somebody may be about to come up: a seed has not been tried, or a node is known of that is neither up nor
    /// gone. Where not, the inbox has been told of everybody.
    #[must_use]
    pub fn is_meeting(&self) -> bool {
        self.shared.untried.load(Relaxed) > 0
            || self.shared.mesh.registry.has_unheard()
            || self.members().iter().any(|member| member.state == MemberState::Connecting)
    }

    /// Whether peers send this node away, since they know another process by its id, and none has it up.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.shared.mesh.refused.load(Relaxed) && lock(&self.shared.roster).is_alone()
    }

    /// Returns when this node's part has ended although nobody asked it to: membership broke down, or another process has
    /// the node's id and stays. A node should not go on after that.
    pub async fn stopped(&self) -> ClusterError {
        let mut stopped = self.shared.stopped.subscribe();
        let ended = match stopped.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            // not while `self` holds the sender
            Err(_) => std::future::pending().await,
        };
        match ended {
            Some(Ended::Duplicate(address)) => {
                ClusterError::Duplicate { node: self.shared.mesh.hello.node.to_string(), address }
            }
            Some(Ended::Membership(reason)) => ClusterError::MembershipStopped { reason },
            None => ClusterError::MembershipStopped { reason: String::new() },
        }
    }

    /// Leaves: tells the peers, so that they count this node as gone at once, and closes the port. Messages whose
    /// `send_message` has returned are taken by peers before the goodbye; frames under way may not be. Takes at most
    /// four seconds.
    pub async fn leave(&self) {
        let mesh = &self.shared.mesh;
        mesh.endpoint.set_server_config(None);
        mesh.say_goodbye().await;
        let mut tasks = std::mem::take(&mut *lock(&self.shared.tasks));
        tasks.shutdown().await;
        mesh.close(code::LEFT, b"left");
        if timeout(CLOSING, mesh.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("connections were still closing when this node left");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // the tasks end with the set; what still runs for a connection ends with it
        self.mesh.close(code::LEFT, b"gone");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
