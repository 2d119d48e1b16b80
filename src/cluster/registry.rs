//! Which connections exist to whom, which of them to send on, and whether a peer may be heard. It opens and reads
//! nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use quinn::{Connection, VarInt};
use spillgate_core::view::ReplicaId;
use tokio::sync::watch;

/// Two are normal for a moment, when both sides dial at once; more mean that one side does not notice its losses.
const LINKS_MAX: usize = 4;
/// Replicas with a connection: ten times what a full mesh is good for.
const PEERS_MAX: usize = 1024;

/// Whether frames and messages of a replica reach the inbox. The value is held (read) while the inbox takes a frame and
/// held (write) while it is told that the peer is up or gone, so nothing is heard outside.
pub(super) type Gate = watch::Sender<bool>;

/// A connection whose other end has proved who it is.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) peer: ReplicaId,
    /// Where the peer says it can be reached; not always where the connection comes from.
    pub(super) address: SocketAddr,
    pub(super) connection: Connection,
    /// This side dialed.
    pub(super) dialed: bool,
}

impl Link {
    pub(super) fn is(&self, other: &Self) -> bool {
        self.connection.stable_id() == other.connection.stable_id()
    }
}

pub(super) struct Registry {
    me: ReplicaId,
    peers: RwLock<Peers>,
}

#[derive(Default)]
struct Peers {
    by_replica: HashMap<ReplicaId, Peer>,
    by_address: HashMap<SocketAddr, ReplicaId>,
}

struct Peer {
    gate: Arc<Gate>,
    /// The last is the one to send on.
    links: Vec<Link>,
}

/// What became of a connection that was to be added.
pub(super) enum Added {
    /// It is in use, perhaps beside others.
    Linked(watch::Receiver<bool>),
    /// There are too many peers, or too many connections to this one.
    Full,
}

impl Registry {
    pub(super) fn new(me: ReplicaId) -> Self {
        Self { me, peers: RwLock::default() }
    }

    pub(super) fn add(&self, link: Link) -> Added {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.by_replica.len() >= PEERS_MAX && !peers.by_replica.contains_key(&link.peer) {
            return Added::Full;
        }
        if let Some(other) = peers.by_address.get(&link.address).filter(|other| other.node != link.peer.node) {
            tracing::warn!(address = %link.address, peer = %link.peer, %other,
                "two nodes advertise the same address; set cluster.advertise of each to its own");
        }
        peers.by_address.insert(link.address, link.peer.clone());
        let peer = peers.by_replica.entry(link.peer.clone()).or_insert_with(Peer::new);
        if peer.links.len() >= LINKS_MAX {
            return Added::Full;
        }
        let heard = peer.gate.subscribe();
        peer.links.push(link);
        // both ends choose alike: what the lesser replica dialed, and of several the newest
        let me = &self.me;
        peer.links.sort_by_key(|link| link.dialed == (*me < link.peer));
        Added::Linked(heard)
    }

    /// Takes the connection out; true if it was the replica's last.
    pub(super) fn remove(&self, link: &Link) -> bool {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let Some(peer) = peers.by_replica.get_mut(&link.peer) else { return false };
        peer.links.retain(|other| !other.is(link));
        if !peer.links.is_empty() {
            return false;
        }
        peers.drop_if_unused(&link.peer);
        if peers.by_address.get(&link.address) == Some(&link.peer) {
            peers.by_address.remove(&link.address);
        }
        true
    }

    /// Opens the replica's gate; `tell` runs before anything of it is heard.
    pub(super) fn admit(&self, replica: &ReplicaId, tell: impl FnOnce()) {
        let gate = {
            let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
            peers.by_replica.entry(replica.clone()).or_insert_with(Peer::new).gate.clone()
        };
        gate.send_modify(|open| {
            tell();
            *open = true;
        });
    }

    /// Closes the replica's gate; nothing of it is heard once `tell` runs.
    pub(super) fn bar(&self, replica: &ReplicaId, tell: impl FnOnce()) {
        let gate = self.read(|peers| peers.by_replica.get(replica).map(|peer| peer.gate.clone()));
        match gate {
            Some(gate) => gate.send_modify(|open| {
                *open = false;
                tell();
            }),
            None => tell(),
        }
        self.peers.write().unwrap_or_else(PoisonError::into_inner).drop_if_unused(replica);
    }

    /// The connection to send on.
    pub(super) fn link(&self, replica: &ReplicaId) -> Option<Link> {
        self.read(|peers| peers.by_replica.get(replica)?.best().cloned())
    }

    /// The connection to whoever advertises the address.
    pub(super) fn link_at(&self, address: SocketAddr) -> Option<Link> {
        self.read(|peers| peers.by_replica.get(peers.by_address.get(&address)?)?.best().cloned())
    }

    /// The connection to send on, of each peer.
    pub(super) fn links(&self) -> Vec<Link> {
        self.read(|peers| peers.by_replica.values().filter_map(|peer| peer.best().cloned()).collect())
    }

    /// Whether a replica is connected that may not be heard: it is about to come up, or to be sent away.
    pub(super) fn has_unheard(&self) -> bool {
        self.read(|peers| peers.by_replica.values().any(|peer| peer.best().is_some() && !*peer.gate.borrow()))
    }

    /// The least of what `measure` finds over the connections to send on.
    pub(super) fn min_of(&self, measure: impl Fn(&Link) -> Option<usize>) -> Option<usize> {
        self.read(|peers| peers.by_replica.values().filter_map(|peer| measure(peer.best()?)).min())
    }

    /// Closes every connection of the replica.
    pub(super) fn close(&self, replica: &ReplicaId, code: VarInt, reason: &[u8]) {
        self.read(|peers| {
            for link in peers.by_replica.get(replica).iter().flat_map(|peer| &peer.links) {
                link.connection.close(code, reason);
            }
        });
    }

    /// The connections to the replica that this side dialed and that are not the one to send on.
    pub(super) fn spares(&self, replica: &ReplicaId) -> Vec<Link> {
        self.read(|peers| {
            let Some(peer) = peers.by_replica.get(replica) else { return Vec::new() };
            let Some(best) = peer.best() else { return Vec::new() };
            peer.links.iter().filter(|link| link.dialed && !link.is(best)).cloned().collect()
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Peers) -> T) -> T {
        read(&self.peers.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Peers {
    fn drop_if_unused(&mut self, replica: &ReplicaId) {
        if self.by_replica.get(replica).is_some_and(|peer| peer.links.is_empty() && !*peer.gate.borrow()) {
            self.by_replica.remove(replica);
        }
    }
}

impl Peer {
    fn new() -> Self {
        Self { gate: Arc::new(watch::Sender::new(false)), links: Vec::new() }
    }

    fn best(&self) -> Option<&Link> {
        self.links.iter().rev().find(|link| link.connection.close_reason().is_none())
    }
}
