//! More than there is room for: checks beyond what a node can answer, a peer that is slow, a member that lies. Whoever is
//! not to blame is served, and every grant is counted once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use spillgate::cluster::{Cluster, ClusterConfig, ClusterSecret, Credentials, Inbox};
use spillgate_core::decision::LimitRef;
use spillgate_core::gossip::Pace;
use spillgate_core::limit::Limits;
use spillgate_core::node::{Node, NodeConfig};
use spillgate_core::time::Nanos;
use spillgate_core::view::ReplicaId;
use spillgate_core::wire::{
    Describe, Frame, Header, Message, StateCount, StateItem, Update, Used, encode_frame, encode_message,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::daemon::{Daemon, Setup, start_cluster, until};
use crate::http1::{Http1, check_bytes, request};
use crate::metrics::sample;
use crate::nodes::{all_see, exhaust, meet_behind, member, spend};
use crate::relay::{Path, Relay};

const HUNDRED: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\naccuracy = \"strict\"\n";
const PLENTY: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 1000000\naccuracy = \"gossip\"\n";

/// How many checks a node answers at once; further ones get 503.
const CHECKS_MAX: usize = spillgate::api::CHECKS_MAX;

#[tokio::test]
async fn more_checks_than_are_answered_at_once_get_503_and_no_grant_is_lost() {
    spillgate::api::raise_file_limit().unwrap();
    let limit = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 1000\n";
    let daemon = Daemon::start(&Arc::new(TempDir::new().unwrap()), Setup::single(limit)).await;
    assert_eq!(daemon.check("k", 1000).await["allowed"], true);
    let body = json!({"limit": "api", "key": "k", "wait_ms": 50_000}).to_string();
    let waiting = request("POST", "/v1/check", &[("content-type", "application/json")], body.as_bytes());
    let (refused, mut asking) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    let more = 200;
    for _ in 0..CHECKS_MAX + more {
        let (address, waiting, refused) = (daemon.http, waiting.clone(), refused.clone());
        asking.spawn(async move {
            let mut connection = Http1::tcp(address).await;
            connection.send(waiting).await;
            let answer = connection.answer().await;
            if answer.status == 503 {
                answer.assert_problem(503, "overloaded", &["try again"]);
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused.fetch_add(1, Relaxed);
                return 0;
            }
            u64::from(answer.json()["allowed"] == true)
        });
    }
    until("those beyond are refused", async || refused.load(Relaxed) >= more as u64).await;
    assert_eq!(refused.load(Relaxed), more as u64, "and none besides");
    // what is no check goes on
    assert!(daemon.ready().await);
    assert_eq!(daemon.get("/v1/keys/api/k").await["level"].as_f64().map(f64::round), Some(0.0));
    let reset = daemon.post("/v1/reset", json!({"limit": "api", "key": "k"})).await.unwrap();
    assert_eq!(reset["remaining"], 1000);
    until("a thousand of those that waited are granted", async || daemon.level("k").await.round() == 0.0).await;
    // an end for the others: each waits for a token of its own
    let reset = async || daemon.post("/v1/reset", json!({"limit": "api", "key": "k"})).await.unwrap();
    let mut granted = 0;
    while let Some(answer) = asking.join_next().await {
        granted += answer.unwrap();
        if granted % 1000 == 0 && granted > 0 {
            reset().await;
        }
    }
    assert_eq!(granted, CHECKS_MAX as u64);
    assert_eq!(
        sample(&daemon, "spillgate_checks_total{limit=\"api\",outcome=\"allowed\"}").await,
        1.0 + granted as f64
    );
}

/// Three nodes and their clients share what this machine has: nobody is left out, and the counts are exact.
#[tokio::test]
async fn under_more_load_than_the_machine_has_every_client_is_served_and_every_grant_counted() {
    let mut daemons = start_cluster(3, PLENTY).await;
    let end = Instant::now() + Duration::from_secs(3);
    let mut clients = JoinSet::new();
    for i in 0..90 {
        let address = daemons[i % 3].http;
        clients.spawn(async move {
            let mut connection = Http1::tcp(address).await;
            let mut granted = 0u64;
            while Instant::now() < end {
                connection.send(check_bytes("k")).await;
                let answer = connection.answer().await;
                assert_eq!(answer.status, 200);
                granted += u64::from(answer.json()["allowed"] == true);
            }
            granted
        });
    }
    let granted = clients.join_all().await;
    let (sum, least) = (granted.iter().sum::<u64>(), *granted.iter().min().unwrap());
    let mean = sum / 90;
    println!("{sum} granted in 3 s over 90 connections, {least} to {} each", granted.iter().max().unwrap());
    assert!(least * 5 >= mean, "one client was granted {least} where the mean is {mean}");
    all_see(&daemons, "k", 1_000_000.0 - sum as f64).await;
    assert!(daemons.iter_mut().all(Daemon::runs));
}

#[tokio::test]
async fn one_slow_peer_slows_neither_the_others_nor_the_api() {
    let mut relay = Relay::new(3);
    let daemons = meet_behind(&mut relay, &["a", "b", "c"], PLENTY).await;
    let slow = Path { jitter: Duration::from_millis(200), loss: 0.3, ..Path::delayed(400) };
    for other in ["a", "b"] {
        relay.set(other, "c", slow);
        relay.set("c", other, slow);
    }
    let mut spread = Vec::new();
    let mut longest = Duration::ZERO;
    for round in 1..=40u32 {
        let start = Instant::now();
        assert_eq!(daemons[0].check("k", 1).await["allowed"], true);
        longest = longest.max(start.elapsed());
        all_see(&daemons[1..2], "k", 1_000_000.0 - f64::from(round)).await;
        spread.push(start.elapsed());
    }
    spread.sort_unstable();
    // whoever waited for c would wait longer than one way to it; between a and b it is a few ticks
    assert!(spread[20] < slow.delay, "the median of a charge reaching b is {:?}", spread[20]);
    assert!(longest < slow.delay, "a check took {longest:?}");
    // and c comes to the same in the end
    all_see(&daemons[2..], "k", 1_000_000.0 - 40.0).await;
}

/// A member of the cluster, with its secret, that says what it likes.
struct Liar {
    cluster: Cluster,
    id: ReplicaId,
    up: mpsc::UnboundedReceiver<ReplicaId>,
}

struct Ups(mpsc::UnboundedSender<ReplicaId>);

impl Inbox for Ups {
    fn peer_up(&self, peer: &ReplicaId, _: SocketAddr) {
        let _ = self.0.send(peer.clone());
    }

    fn peer_dead(&self, _: &ReplicaId) {}

    fn peer_left(&self, _: &ReplicaId) {}

    fn peer_lost(&self, _: &ReplicaId) {}

    fn frame(&self, _: &ReplicaId, _: &[u8]) {}

    fn message(&self, _: &ReplicaId, _: Vec<u8>) {}
}

impl Liar {
    /// It is up with every one of `daemons` when this returns.
    async fn join(daemons: &[Daemon]) -> Self {
        let secret = ClusterSecret::from_file(&daemons[0].directory.path().join("secret")).unwrap();
        let id = ReplicaId { node: "liar".into(), incarnation: 7 };
        let config = ClusterConfig {
            name: "test".to_owned(),
            node: "liar".to_owned(),
            incarnation: id.incarnation,
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            seeds: daemons.iter().map(|d| d.cluster.unwrap().to_string()).collect(),
            credentials: Credentials::Secret(secret),
            gossip_interval: Duration::from_millis(10),
            message_bytes_max: 1 << 20,
        };
        let cluster = Cluster::bind(config).await.unwrap();
        let (ups, up) = mpsc::unbounded_channel();
        cluster.start(Arc::new(Ups(ups)));
        let mut liar = Self { cluster, id, up };
        for _ in daemons {
            liar.up.recv().await.unwrap();
        }
        liar
    }

    fn peers(&self) -> Vec<ReplicaId> {
        self.cluster.members().into_iter().map(|m| m.replica).collect()
    }

    /// One frame with these updates to every peer; numbers begin at 1.
    fn tell(&self, seq: u64, updates: Vec<Update>) {
        let incarnation = self.id.incarnation;
        let header = Header {
            incarnation,
            seq,
            ack: None,
            stable: 0,
            flags: 4 | 8,
            needs: 0,
            unknown: vec![],
            extensions: vec![],
        };
        let bytes = encode_frame(&Frame { header, updates });
        for peer in self.peers() {
            self.cluster.send_frame(&peer, bytes.clone());
        }
    }

    fn tell_bytes(&self, bytes: &[u8]) {
        for peer in self.peers() {
            self.cluster.send_frame(&peer, bytes.to_vec());
        }
    }
}

/// The hash of a key, as the cluster's nodes make it.
fn key_id(directory: &std::path::Path, key: &str) -> [u8; 16] {
    let secret = ClusterSecret::from_file(&directory.join("secret")).unwrap();
    let pace = Pace { interval: Nanos::SECOND, stale_after: Nanos::SECOND, forget_after: Nanos::SECOND };
    let replica = ReplicaId { node: "x".into(), incarnation: 1 };
    let hash_key = secret.derive("key-hash")[..16].try_into().unwrap();
    let config = NodeConfig { replica, hash_key, max_keys: 1, shards_max: 1, clustered: false, pace };
    Node::new(config, Limits::default()).key_id(LimitRef::Named("api"), key).to_bytes()
}

fn describe() -> Describe {
    Describe {
        limit: "api".to_owned(),
        inline: false,
        algorithm: 0,
        tokens: 1,
        period: 3_600_000_000_000,
        capacity: 100,
        accuracy: 0,
        overshoot_ppm: 0,
    }
}

async fn start_small(n: usize) -> Vec<Daemon> {
    let directory = Arc::new(TempDir::new().unwrap());
    let mut daemons: Vec<Daemon> = Vec::new();
    for name in ["a", "b", "c"].into_iter().take(n) {
        let seeds = daemons.iter().map(|d| d.cluster.unwrap().to_string()).collect();
        let node = "max_keys = 2000".to_owned();
        // the liar confirms nothing: it counts as silent, and is soon forgotten when it has gone
        let cluster = "forget_after = \"2s\"".to_owned();
        let setup = Setup { seeds, node, cluster, ..member(&directory, name, HUNDRED) };
        daemons.push(Daemon::start(&directory, setup).await);
    }
    crate::daemon::meet(&daemons).await;
    daemons
}

#[tokio::test]
async fn a_member_that_lies_harms_no_key_but_those_it_speaks_of_and_speaks_for_nobody_else() {
    let mut daemons = start_small(2).await;
    for daemon in &daemons {
        spend(daemon, "k", 20).await;
    }
    all_see(&daemons, "k", 60.0).await;
    let liar = Liar::join(&daemons).await;
    let directory = daemons[0].directory.path();
    let absurd = |granted| Update {
        key: key_id(directory, "victim"),
        granted,
        fresh: granted,
        refunds: None,
        window: None,
        demand: f32::MAX,
        previous: None,
        alone: None,
        describe: Some(describe()),
    };
    // others' counters: as a table that nobody asked for
    let count = |replica| StateCount { replica, granted: 1 << 61, refunded: 0, unheard: 0 };
    let others: Vec<(String, u64)> =
        liar.peers().iter().map(|peer| (peer.node.to_string(), peer.incarnation)).collect();
    let item = StateItem {
        key: key_id(directory, "k"),
        describe: describe(),
        used: Used::Bucket(u64::MAX),
        counts: vec![count(0), count(1)],
    };
    let table = encode_message(&Message::StateChunk {
        last: true,
        replicas: others,
        members: 1,
        joining: false,
        items: vec![item],
    });
    for peer in liar.peers() {
        liar.cluster.send_message(&peer, table.clone()).await.unwrap();
    }
    for daemon in &daemons {
        until("the table is refused", async || daemon.logged("a table that nobody asked for") == 1).await;
        until("the lie has arrived", async || {
            liar.tell(1, vec![absurd(u64::MAX >> 3), absurd(1 << 62)]);
            daemon.level("victim").await < 0.0
        })
        .await;
        assert_eq!(daemon.level("k").await.round(), 60.0);
    }
    // a lie stays with its key, and a reset mends it
    let reset = daemons[0].post("/v1/reset", json!({"limit": "api", "key": "victim"})).await.unwrap();
    assert_eq!(reset["remaining"], 100);
    drop(liar);
    for (daemon, other) in [(&daemons[0], "b"), (&daemons[1], "a")] {
        let alone = async || daemon.peers("silent").await.is_empty() && daemon.peers("alive").await == [other];
        until("the liar is forgotten", alone).await;
    }
    let rest = exhaust(&daemons, "k").await;
    assert!((56..=60).contains(&rest), "{rest}");
    assert!(daemons.iter_mut().all(Daemon::runs));
}

#[tokio::test]
async fn a_member_that_floods_with_keys_takes_no_memory_and_no_key_that_counts() {
    let mut daemons = start_small(1).await;
    assert_eq!(daemons[0].check("k", 90).await["allowed"], true);
    let liar = Liar::join(&daemons).await;
    let before = daemons[0].resident_bytes();
    let update = |n: u128| Update {
        key: (n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_le_bytes(),
        granted: 2,
        fresh: 1,
        refunds: None,
        window: None,
        demand: 0.0,
        previous: None,
        alone: None,
        describe: Some(describe()),
    };
    let frames = 4000u64;
    for frame in 0..frames {
        liar.tell(1 + frame, (0..12).map(|i| update(u128::from(frame) * 12 + i + 1)).collect());
        if frame % 20 == 0 {
            // a datagram that is not read in time is dropped: a flood is no use if it does not arrive
            sleep(Duration::from_millis(2)).await;
        }
    }
    let evicted = async || sample(&daemons[0], "spillgate_evictions_total").await;
    until("most of it has arrived", async || evicted().await > 20_000.0).await;
    let asked = Instant::now();
    assert!(daemons[0].level("k").await <= 11.0, "a key that was used went for one that was not");
    assert!(asked.elapsed() < Duration::from_secs(2));
    let keys = sample(&daemons[0], "spillgate_keys{limit=\"api\"}").await;
    assert!(keys <= 2000.0, "{keys}");
    let grown = daemons[0].resident_bytes().saturating_sub(before);
    // some hundred bytes a key, 2000 keys, and what the transport holds
    assert!(grown < 32 << 20, "{grown} bytes");
    assert!(daemons.iter_mut().all(Daemon::runs));
}

/// A rolling upgrade to a version that speaks otherwise: what is not understood is refused and counted, the unknown parts
/// of what is understood are passed over, and those of one version go on.
#[tokio::test]
async fn frames_and_messages_of_a_later_version_are_refused_and_harm_nobody() {
    let mut daemons = start_small(2).await;
    spend(&daemons[0], "k", 20).await;
    all_see(&daemons, "k", 80.0).await;
    let later = Liar::join(&daemons).await;
    let incarnation = later.id.incarnation;
    let header = |seq| Header {
        incarnation,
        seq,
        ack: None,
        stable: 0,
        flags: 0xf0,
        needs: 0,
        unknown: vec![],
        extensions: vec![(99, vec![1, 2, 3]), (250, vec![])],
    };
    // of this version, with extensions and flags of a later one
    let known = encode_frame(&Frame { header: header(1), updates: vec![] });
    let heard = async |daemon: &Daemon| {
        let cluster = daemon.get("/v1/cluster").await;
        let members = cluster["members"].as_array().unwrap().clone();
        members.iter().find(|m| m["node"] == "liar").is_some_and(|m| m["frames_received"] == 1)
    };
    for daemon in &daemons {
        // a datagram may be lost, or come before the other end calls this one up; none counts twice
        until("it is heard", async || {
            later.tell_bytes(&known);
            heard(daemon).await
        })
        .await;
        assert_eq!(sample(daemon, "spillgate_gossip_refused_frames_total").await, 0.0);
    }
    let mut newer = encode_frame(&Frame { header: header(2), updates: vec![] });
    newer[0] = 2;
    for peer in later.peers() {
        // a kind of message that this version does not know, and one of a later version
        for message in [&[1u8, 77, 1, 2, 3][..], &[2, 0]] {
            later.cluster.send_message(&peer, message.to_vec()).await.unwrap();
        }
    }
    for daemon in &daemons {
        until("they are refused", async || {
            later.tell_bytes(&newer);
            sample(daemon, "spillgate_gossip_refused_frames_total").await >= 25.0
        })
        .await;
        until("both messages are", async || daemon.logged("a message was dropped") == 2).await;
        assert_eq!(
            daemon.logged("version 2 is not 1"),
            2,
            "a frame once in a thousand, and the message: {}",
            daemon.log()
        );
        assert!(heard(daemon).await, "no frame was taken for one");
    }
    spend(&daemons[1], "other", 1).await;
    all_see(&daemons, "other", 99.0).await;
    all_see(&daemons, "k", 80.0).await;
    assert!(daemons.iter_mut().all(Daemon::runs));
}
