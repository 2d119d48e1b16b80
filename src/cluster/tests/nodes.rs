//! Nodes to test with, and what their inboxes heard.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use spillgate_core::view::ReplicaId;
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, ClusterConfig, ClusterError, ClusterSecret, Credentials, Inbox};

pub(super) const OLD: &str = "the-old-secret-of-the-cluster";
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn replica(node: &str, incarnation: u64) -> ReplicaId {
    ReplicaId { node: node.into(), incarnation }
}

/// Waits for the condition, and fails by its name if it never comes.
#[track_caller]
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} and it never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Up(ReplicaId, SocketAddr),
    Dead(ReplicaId),
    Left(ReplicaId),
    Lost(ReplicaId),
    Frame(ReplicaId, Vec<u8>),
    Message(ReplicaId, Vec<u8>),
}

impl Event {
    fn replica(&self) -> &ReplicaId {
        match self {
            Self::Up(id, _) | Self::Frame(id, _) | Self::Message(id, _) => id,
            Self::Dead(id) | Self::Left(id) | Self::Lost(id) => id,
        }
    }
}

/// Writes down what it hears, and what it should not have heard.
#[derive(Default)]
pub(super) struct Recorder {
    events: Mutex<Vec<Event>>,
    /// Where a peer is in its life: up or not, gone for good or not.
    lives: Mutex<HashMap<ReplicaId, (bool, bool)>>,
    violations: Mutex<Vec<String>>,
    /// Sends "hello" to whoever comes up.
    greeter: OnceLock<(Cluster, tokio::runtime::Handle)>,
}

impl Recorder {
    pub(super) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub(super) fn has(&self, event: &Event) -> bool {
        self.events.lock().unwrap().contains(event)
    }

    pub(super) fn events_of(&self, node: &str) -> Vec<Event> {
        self.events().into_iter().filter(|e| &*e.replica().node == node).filter(|e| !e.is_heard()).collect()
    }

    pub(super) fn ups(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, Event::Up(..))).count()
    }

    fn record(&self, event: Event) {
        let mut lives = self.lives.lock().unwrap();
        let (up, gone) = lives.entry(event.replica().clone()).or_default();
        let allowed = match &event {
            Event::Up(..) => !*up && !*gone,
            Event::Dead(_) | Event::Frame(..) | Event::Message(..) => *up,
            Event::Left(_) | Event::Lost(_) => !*gone,
        };
        if !allowed {
            self.violations.lock().unwrap().push(format!("{event:?} while up = {up}, gone = {gone}"));
        }
        match &event {
            Event::Up(..) => *up = true,
            Event::Dead(_) => *up = false,
            Event::Left(_) | Event::Lost(_) => (*up, *gone) = (false, true),
            _ => {}
        }
        self.events.lock().unwrap().push(event);
    }
}

impl Event {
    fn is_heard(&self) -> bool {
        matches!(self, Self::Frame(..) | Self::Message(..))
    }
}

impl Inbox for Recorder {
    fn peer_up(&self, peer: &ReplicaId, address: SocketAddr) {
        self.record(Event::Up(peer.clone(), address));
        if let Some((cluster, runtime)) = self.greeter.get() {
            // the inbox may ask for the members
            assert!(cluster.members().iter().any(|member| member.replica == *peer));
            let (cluster, peer) = (cluster.clone(), peer.clone());
            runtime.spawn(async move { cluster.send_message(&peer, b"hello".to_vec()).await });
        }
    }

    fn peer_dead(&self, peer: &ReplicaId) {
        self.record(Event::Dead(peer.clone()));
    }

    fn peer_left(&self, peer: &ReplicaId) {
        self.record(Event::Left(peer.clone()));
    }

    fn peer_lost(&self, peer: &ReplicaId) {
        self.record(Event::Lost(peer.clone()));
    }

    fn frame(&self, peer: &ReplicaId, bytes: &[u8]) {
        self.record(Event::Frame(peer.clone(), bytes.to_vec()));
    }

    fn message(&self, peer: &ReplicaId, bytes: Vec<u8>) {
        self.record(Event::Message(peer.clone(), bytes));
    }
}

/// A node to be.
pub(super) struct Setup {
    pub(super) name: String,
    pub(super) node: String,
    pub(super) incarnation: u64,
    pub(super) listen: SocketAddr,
    pub(super) secret: String,
    pub(super) credentials: Option<Credentials>,
    pub(super) message_bytes_max: usize,
    pub(super) greets: bool,
    pub(super) seeds: Vec<String>,
}

impl Setup {
    pub(super) const MESSAGE_BYTES_MAX: usize = 8 << 20;

    pub(super) fn new(node: &str) -> Self {
        Self {
            name: "test".into(),
            node: node.into(),
            incarnation: 1,
            listen: ([127, 0, 0, 1], 0).into(),
            secret: OLD.into(),
            credentials: None,
            message_bytes_max: Self::MESSAGE_BYTES_MAX,
            greets: false,
            seeds: Vec::new(),
        }
    }

    pub(super) fn seed(self, node: &Node) -> Self {
        let address = node.cluster().local_addr();
        self.seed_at(address.to_string())
    }

    pub(super) fn seed_at(mut self, seed: String) -> Self {
        self.seeds.push(seed);
        self
    }

    pub(super) fn config(self) -> ClusterConfig {
        let secret = || Credentials::Secret(ClusterSecret::from_text(&self.secret, "test").unwrap());
        ClusterConfig {
            credentials: self.credentials.unwrap_or_else(secret),
            name: self.name,
            node: self.node,
            incarnation: self.incarnation,
            listen: self.listen,
            advertise: None,
            seeds: self.seeds,
            gossip_interval: Duration::from_millis(10),
            message_bytes_max: self.message_bytes_max,
        }
    }

    /// The port may be held for a moment by the run that ended just now.
    pub(super) fn bind(self) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (greets, config) = (self.greets, self.config());
        let mut cluster = None;
        until("the port can be bound", || {
            cluster = runtime.block_on(Cluster::bind(config.clone())).ok();
            cluster.is_some()
        });
        let inbox = Arc::new(Recorder::default());
        let cluster = cluster.unwrap();
        if greets {
            inbox.greeter.set((cluster.clone(), runtime.handle().clone())).ok().unwrap();
        }
        let id = replica(&config.node, config.incarnation);
        Node { id, inbox, cluster: Some(cluster), runtime: Some(runtime) }
    }

    pub(super) fn start(self) -> Node {
        let node = self.bind();
        node.begin();
        node
    }
}

pub(super) struct Node {
    id: ReplicaId,
    pub(super) inbox: Arc<Recorder>,
    cluster: Option<Cluster>,
    runtime: Option<Runtime>,
}

impl Node {
    pub(super) fn begin(&self) {
        self.cluster().start(self.inbox.clone());
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.id.clone()
    }

    pub(super) fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("the node has not ended")
    }

    pub(super) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the node has not ended")
    }

    #[track_caller]
    pub(super) fn sees(&self, event: &Event) {
        let heard = || self.inbox.events().iter().map(Event::kind).collect::<Vec<_>>();
        let what = format!("{} at {}", event.kind(), self.id);
        let start = Instant::now();
        while !self.inbox.has(event) {
            assert!(start.elapsed() < DEADLINE, "{what} never came, but {:?}", heard());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Each has the other up.
    #[track_caller]
    pub(super) fn meets(&self, other: &Self) {
        self.sees(&Event::Up(other.id(), other.cluster().advertised_addr()));
        other.sees(&Event::Up(self.id(), self.cluster().advertised_addr()));
    }

    pub(super) fn send(&self, to: &Self, bytes: Vec<u8>) -> Result<(), ClusterError> {
        self.runtime().block_on(self.cluster().send_message(&to.id, bytes))
    }

    /// Why its part ended although nobody asked it to.
    #[track_caller]
    pub(super) fn ended(&self) -> ClusterError {
        let ended = async { tokio::time::timeout(DEADLINE, self.cluster().stopped()).await };
        self.runtime().block_on(ended).unwrap_or_else(|_| panic!("{} goes on after {DEADLINE:?}", self.id))
    }

    pub(super) fn leave(&mut self) {
        self.runtime().block_on(self.cluster().leave());
        self.crash();
    }

    /// Without a word: nothing of the runtime runs any more, so not even a connection's end is sent.
    pub(super) fn crash(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        self.cluster = None;
    }

    pub(super) fn drop_cluster(&mut self) {
        self.cluster = None;
    }
}

impl Event {
    /// Without the bytes.
    fn kind(&self) -> String {
        match self {
            Self::Frame(id, bytes) => format!("a frame of {} bytes of {id}", bytes.len()),
            Self::Message(id, bytes) => format!("a message of {} bytes of {id}", bytes.len()),
            other => format!("{other:?}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.crash();
        let violations = self.inbox.violations.lock().unwrap();
        if !std::thread::panicking() {
            assert!(violations.is_empty(), "{} heard what it should not have: {violations:?}", self.id);
        }
    }
}

/// A certification authority on disk.
pub(super) struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    pub(super) fn issue(&self, node: &str) -> Credentials {
        let mut params = CertificateParams::new(vec!["spillgate".to_owned(), node.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let path = |kind: &str| -> PathBuf { self.directory.path().join(format!("{node}.{kind}.pem")) };
        std::fs::write(path("cert"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        Credentials::Files { ca: self.directory.path().join("ca.pem"), cert: path("cert"), key: path("key") }
    }
}
