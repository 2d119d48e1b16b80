//! The mesh: dials, listens, proves and is proved to, keeps the connections and carries bytes over them. It knows
//! neither what a frame means nor who is alive; membership tells it whom to dial and whom to hear.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use quinn::{Connection, ConnectionError, Endpoint, Incoming, VarInt};
use rustls::pki_types::CertificateDer;
use spillgate_core::view::ReplicaId;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::error::ClusterError;
use super::hello::{HELLO_BYTES_MAX, Hello, is_reachable};
use super::link::{self, Tag};
use super::refusal::{HANDSHAKE, Refusal};
use super::registry::{Added, Link, Registry};
use super::roster::Roster;
use super::seldom::Seldom;
use super::tls::{Names, SERVER_NAME};
use super::{Ended, Inbox};

/// Handshakes taken up at once; from the second half on, a stranger's address must prove itself first.
const HANDSHAKES_MAX: usize = 64;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After success, and after meeting oneself: nobody needs to be dialed again that soon.
const BACKOFF_DIALED: Duration = Duration::from_secs(1);
const BACKOFF_SELF: Duration = Duration::from_secs(60);
/// Addresses remembered for their backoff.
const DIALS_MAX: usize = 4096;
/// How long a connection that the other end may still be sending on is left open.
const LINGER: Duration = Duration::from_secs(3);
/// Membership messages too large for a datagram, under way at once.
const MEMBERSHIP_STREAMS_MAX: usize = 64;
/// No membership message is larger: it is made to fit a UDP datagram.
pub(super) const MEMBERSHIP_BYTES_MAX: usize = 65_536;

/// Begins the reason of a refusal for a node id that is in use; the address of the process that has it follows.
const IN_USE: &str = "your node id is in use at ";

/// Why an end closed a connection, told to the other end.
pub(super) mod code {
    use quinn::VarInt;

    pub(crate) const LEFT: VarInt = VarInt::from_u32(0);
    pub(crate) const REDUNDANT: VarInt = VarInt::from_u32(1);
    pub(crate) const SELF: VarInt = VarInt::from_u32(2);
    pub(crate) const DUPLICATE: VarInt = VarInt::from_u32(3);
    pub(crate) const SUPERSEDED: VarInt = VarInt::from_u32(4);
    pub(crate) const REFUSED: VarInt = VarInt::from_u32(5);
}

/// What the mesh tells membership.
pub(super) enum LinkEvent {
    /// A connection to the replica exists.
    Linked(ReplicaId, SocketAddr),
    /// Its last connection is lost; ask the registry, there may be a new one already.
    Unlinked(ReplicaId),
    /// It said that it leaves.
    Goodbye(ReplicaId),
}

/// A membership message and the address its sender can be answered at.
pub(super) type MembershipMessage = (SocketAddr, Vec<u8>);

pub(super) struct Mesh {
    pub(super) hello: Hello,
    pub(super) endpoint: Endpoint,
    pub(super) registry: Registry,
    pub(super) inbox: OnceLock<Arc<dyn Inbox>>,
    pub(super) message_bytes_max: usize,
    pub(super) membership: mpsc::Sender<MembershipMessage>,
    pub(super) events: mpsc::Sender<LinkEvent>,
    roster: Arc<Mutex<Roster>>,
    names: Names,
    dials: Mutex<HashMap<SocketAddr, Dial>>,
    handshakes: Arc<Semaphore>,
    membership_streams: Arc<Semaphore>,
    strangers: Seldom,
    duplicates: Seldom,
    /// Peers sent this node away for another process with its id, and none has come up since.
    pub(super) refused: AtomicBool,
    /// Told when another process with this node's id has shown itself, and stays.
    pub(super) ended: Arc<watch::Sender<Option<Ended>>>,
}

#[derive(Default)]
struct Dial {
    under_way: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Mesh {
    pub(super) fn new(
        endpoint: Endpoint,
        hello: Hello,
        names: Names,
        message_bytes_max: usize,
        membership: mpsc::Sender<MembershipMessage>,
        events: mpsc::Sender<LinkEvent>,
        roster: Arc<Mutex<Roster>>,
    ) -> Self {
        Self {
            roster,
            registry: Registry::new(hello.replica()),
            hello,
            endpoint,
            names,
            message_bytes_max,
            membership,
            events,
            inbox: OnceLock::new(),
            dials: Mutex::default(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            membership_streams: Arc::new(Semaphore::new(MEMBERSHIP_STREAMS_MAX)),
            strangers: Seldom::default(),
            duplicates: Seldom::default(),
            refused: AtomicBool::new(false),
            ended: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Takes up connections until the endpoint closes.
    pub(super) async fn accept(self: Arc<Self>) {
        while let Some(incoming) = self.endpoint.accept().await {
            let Ok(slot) = self.handshakes.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            if !incoming.remote_address_validated() && self.handshakes.available_permits() < HANDSHAKES_MAX / 2 {
                // an address that has not been validated can always be asked to come again
                let _ = incoming.retry();
                continue;
            }
            let mesh = self.clone();
            tokio::spawn(async move {
                let address = incoming.remote_address();
                let greeted = within(HANDSHAKE, mesh.welcome(incoming)).await;
                drop(slot);
                match greeted {
                    Ok(link) => {
                        if let Some(heard) = mesh.join(&link).await {
                            link::serve(mesh, link, heard).await;
                        }
                    }
                    Err(refusal) => mesh.report(address, &refusal, false),
                }
            });
        }
    }

    /// Dials the address in a task of its own, unless that is under way, too soon, or not needed: somebody, or
    /// `wanted`, is connected there.
    pub(super) fn dial(self: &Arc<Self>, address: SocketAddr, wanted: Option<&ReplicaId>) {
        if address == self.hello.address {
            return;
        }
        if self.registry.link_at(address).is_some_and(|link| wanted.is_none_or(|wanted| link.peer == *wanted)) {
            return;
        }
        if !self.begin_dial(address, Instant::now()) {
            return;
        }
        let mesh = self.clone();
        tokio::spawn(async move {
            let greeted = within(HANDSHAKE, mesh.call(address)).await;
            match greeted {
                Ok(link) => {
                    let heard = mesh.join(&link).await;
                    // not before the connection is known: no moment in between looks as if nothing were there
                    mesh.end_dial(address, None, Instant::now());
                    if let Some(heard) = heard {
                        link::serve(mesh, link, heard).await;
                    }
                }
                Err(refusal) => {
                    mesh.end_dial(address, Some(&refusal), Instant::now());
                    mesh.report(address, &refusal, true);
                }
            }
        });
    }

    /// Whether a dial to the address has begun and neither failed nor become a connection.
    pub(super) fn is_dialing(&self, address: SocketAddr) -> bool {
        let dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        dials.get(&address).is_some_and(|dial| dial.under_way)
    }

    fn begin_dial(&self, address: SocketAddr, now: Instant) -> bool {
        let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        if dials.len() >= DIALS_MAX {
            dials.retain(|_, dial| dial.under_way || dial.not_before.is_some_and(|at| at > now));
            if dials.len() >= DIALS_MAX {
                return false;
            }
        }
        let dial = dials.entry(address).or_default();
        if dial.under_way || dial.not_before.is_some_and(|at| at > now) {
            return false;
        }
        dial.under_way = true;
        true
    }

    fn end_dial(&self, address: SocketAddr, refusal: Option<&Refusal>, now: Instant) {
        let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        let dial = dials.entry(address).or_default();
        let backoff = match refusal {
            None => {
                dial.failures = 0;
                BACKOFF_DIALED
            }
            Some(Refusal::Myself) => BACKOFF_SELF,
            Some(_) => {
                dial.failures = (dial.failures + 1).min(16);
                let doubled = BACKOFF_MIN.saturating_mul(1 << dial.failures.min(6)).min(BACKOFF_MAX);
                doubled.mul_f64(rand::random_range(0.5..1.0))
            }
        };
        (dial.under_way, dial.not_before) = (false, Some(now + backoff));
    }

    #[cfg(test)]
    pub(super) fn backoff(&self, address: SocketAddr) -> Duration {
        let dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
        let not_before = dials.get(&address).and_then(|dial| dial.not_before);
        not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    async fn welcome(&self, incoming: Incoming) -> Result<Link, Refusal> {
        let connection = incoming.accept()?.await?;
        self.greet(connection, false).await
    }

    async fn call(&self, address: SocketAddr) -> Result<Link, Refusal> {
        let connection = self.endpoint.connect(address, SERVER_NAME)?.await?;
        self.greet(connection, true).await
    }

    /// Both ends say who they are. A dialer learns only by the other's hello that its own certificate was accepted.
    async fn greet(&self, connection: Connection, dialed: bool) -> Result<Link, Refusal> {
        let broken = |error: &dyn std::fmt::Display| match connection.close_reason() {
            Some(reason) => reason.into(),
            None => Refusal::Stream(error.to_string()),
        };
        let mut out = connection.open_uni().await?;
        let own = Hello { peers: self.peers_up(), ..self.hello.clone() };
        out.write_all(&own.encode()).await.map_err(|error| broken(&error))?;
        out.finish().map_err(|error| broken(&error))?;
        let mut stream = connection.accept_uni().await?;
        let bytes = stream.read_to_end(HELLO_BYTES_MAX).await.map_err(|error| broken(&error))?;
        let judged =
            Hello::decode(&bytes).map_err(Refusal::Hello).and_then(|hello| self.judge(&connection, hello, own.peers));
        match judged {
            Ok(hello) => Ok(Link { peer: hello.replica(), address: hello.address, connection, dialed }),
            Err(refusal) => {
                match refusal {
                    Refusal::Myself => connection.close(code::SELF, b"hello refused"),
                    Refusal::Twin => {
                        // the end of a connection cuts off what is still on its way: the twin has to judge itself, too
                        let _ = out.stopped().await;
                        connection.close(code::DUPLICATE, format!("{IN_USE}{}", self.hello.address).as_bytes());
                    }
                    _ => connection.close(code::REFUSED, b"hello refused"),
                }
                Err(refusal)
            }
        }
    }

    fn peers_up(&self) -> usize {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner).peers_up()
    }

    /// `peers` is what the other end was told of this node's peers.
    fn judge(&self, connection: &Connection, hello: Hello, peers: usize) -> Result<Hello, Refusal> {
        if hello.cluster != self.hello.cluster {
            return Err(Refusal::Hello("it is of another cluster".into()));
        }
        let identity =
            connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'_>>>().ok());
        let Some(leaf) = identity.as_ref().and_then(|chain| chain.first()) else {
            return Err(Refusal::Hello("it showed no certificate".into()));
        };
        if !self.names.covers(leaf, &hello.node) {
            return Err(Refusal::Hello(format!("its certificate is not of the node {} it says it is", hello.node)));
        }
        let other =
            self.roster.lock().unwrap_or_else(PoisonError::into_inner).conflict(&hello.replica(), hello.address);
        if let Some((address, newer)) = other {
            // before a word of membership: half a conversation now and then would keep each alive in the other's eyes
            let code = if newer { code::SUPERSEDED } else { code::DUPLICATE };
            connection.close(code, format!("{IN_USE}{address}").as_bytes());
            return Err(Refusal::Hello(format!("its node id is in use by the process at {address}")));
        }
        if hello.node != self.hello.node {
            return Ok(hello);
        }
        if hello.incarnation == self.hello.incarnation {
            return Err(Refusal::Myself);
        }
        self.meet_twin(&hello, peers);
        Err(Refusal::Twin)
    }

    /// Another process has proved to have this node's id. The one that has fewer peers gives way, since those of the other
    /// go by its counts; of two that have as many, the one that came later.
    fn meet_twin(&self, twin: &Hello, peers: usize) {
        self.report_duplicate(twin.address);
        let (mine, theirs) = ((peers, twin.incarnation), (twin.peers, self.hello.incarnation));
        if mine < theirs {
            self.ended.send_replace(Some(Ended::Duplicate(twin.address)));
        }
    }

    /// Adds the connection and tells membership.
    pub(super) async fn join(self: &Arc<Self>, link: &Link) -> Option<tokio::sync::watch::Receiver<bool>> {
        let Added::Linked(heard) = self.registry.add(link.clone()) else {
            self.report(link.connection.remote_address(), &Refusal::Full, link.dialed);
            link.connection.close(code::REFUSED, b"too many connections");
            return None;
        };
        tracing::debug!(peer = %link.peer, address = %link.address, dialed = link.dialed, "connected");
        let _ = self.events.send(LinkEvent::Linked(link.peer.clone(), link.address)).await;
        for spare in self.registry.spares(&link.peer) {
            self.clone().close_spare(spare);
        }
        Some(heard)
    }

    /// Of two connections to a peer the same one survives at both ends; the other is closed by who dialed it, once
    /// what may still be under way on it has arrived.
    fn close_spare(self: Arc<Self>, link: Link) {
        tokio::spawn(async move {
            let ended = timeout(LINGER, link.connection.closed()).await.is_ok();
            let still_spare = || self.registry.spares(&link.peer).iter().any(|spare| spare.is(&link));
            if !ended && still_spare() {
                link.connection.close(code::REDUNDANT, b"another connection is kept");
            }
        });
    }

    /// Takes the connection out and tells membership.
    pub(super) async fn part(self: &Arc<Self>, link: &Link, reason: &ConnectionError) {
        tracing::debug!(peer = %link.peer, address = %link.address, %reason, "connection ended");
        self.report_if_duplicate(link.connection.remote_address(), reason);
        if self.registry.remove(link) {
            let _ = self.events.send(LinkEvent::Unlinked(link.peer.clone())).await;
        }
    }

    /// Sends a datagram; never waits. Without a connection, or when it does not fit, it is dropped.
    pub(super) fn send_frame(&self, to: &ReplicaId, mut bytes: Vec<u8>) {
        let Some(link) = self.registry.link(to) else { return };
        bytes.push(Tag::Frame as u8);
        if let Err(error) = link.connection.send_datagram(bytes.into()) {
            tracing::trace!(peer = %to, %error, "frame dropped");
        }
    }

    /// Sends a membership message; never waits. To an address without a connection it is dropped, and the address
    /// dialed: the next one will find it.
    pub(super) fn send_membership(self: &Arc<Self>, to: SocketAddr, mut bytes: Vec<u8>) {
        let Some(link) = self.registry.link_at(to) else {
            self.dial(to, None);
            return;
        };
        if link.connection.max_datagram_size().is_some_and(|room| bytes.len() < room) {
            bytes.push(Tag::Membership as u8);
            // lost with the connection, at worst
            let _ = link.connection.send_datagram(bytes.into());
            return;
        }
        let Ok(slot) = self.membership_streams.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let sent = timeout(Duration::from_secs(1), link::send(&link, Tag::Membership, &bytes)).await;
            if !matches!(sent, Ok(Ok(()))) {
                tracing::debug!(peer = %link.peer, bytes = bytes.len(), "membership message dropped");
            }
            drop(slot);
        });
    }

    /// # Errors
    /// The message is too large, there is no connection, or it broke or was refused before all of it arrived.
    pub(super) async fn send_message(&self, to: &ReplicaId, bytes: &[u8]) -> Result<(), ClusterError> {
        if bytes.len() > self.message_bytes_max {
            return Err(ClusterError::MessageTooLarge { bytes: bytes.len(), bytes_max: self.message_bytes_max });
        }
        let link = self.registry.link(to).ok_or_else(|| ClusterError::NotConnected { peer: to.clone() })?;
        link::send(&link, Tag::Message, bytes)
            .await
            .map_err(|reason| ClusterError::NotDelivered { peer: to.clone(), reason })
    }

    /// Tells every peer that this node leaves, and waits until they know or a second has passed.
    pub(super) async fn say_goodbye(&self) {
        let mut goodbyes = tokio::task::JoinSet::new();
        for link in self.registry.links() {
            goodbyes.spawn(async move { timeout(Duration::from_secs(1), link::send(&link, Tag::Goodbye, &[])).await });
        }
        goodbyes.join_all().await;
    }

    pub(super) fn close(&self, code: VarInt, reason: &[u8]) {
        self.endpoint.close(code, reason);
    }

    /// Failures of strangers are told seldom, the rest is for debugging: who is not there will be dialed again.
    fn report(self: &Arc<Self>, address: SocketAddr, refusal: &Refusal, dialed: bool) {
        if let Refusal::Connection(error) = refusal {
            self.report_if_duplicate(address, error);
        }
        if refusal.is_of_a_stranger() && self.strangers.may(canonical(address), Instant::now()) {
            tracing::warn!(%address, reason = %refusal, dialed,
                "a peer was refused, or refused this node: have both the same secret, cluster name and version?");
        } else {
            tracing::debug!(%address, reason = %refusal, dialed, "no connection");
        }
    }

    fn report_if_duplicate(self: &Arc<Self>, address: SocketAddr, error: &ConnectionError) {
        let ConnectionError::ApplicationClosed(close) = error else { return };
        if [code::SUPERSEDED, code::DUPLICATE].contains(&close.error_code) {
            self.refused.store(true, Relaxed);
            self.report_duplicate(address);
            // hearsay: only the other process can prove that it is there
            let at = std::str::from_utf8(&close.reason).ok().and_then(|reason| reason.strip_prefix(IN_USE));
            if let Some(at) = at.and_then(|at| at.parse().ok()).filter(|at| is_reachable(*at)) {
                self.dial(at, None);
            }
        }
    }

    pub(super) fn report_duplicate(&self, address: SocketAddr) {
        if self.duplicates.may(canonical(address), Instant::now()) {
            tracing::error!(node = %self.hello.node, incarnation = self.hello.incarnation, told_by = %address,
                "another process uses this node's id: give each node its own");
        }
    }
}

async fn within<T>(limit: Duration, what: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(limit, what).await.unwrap_or(Err(Refusal::Late))
}

fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}
