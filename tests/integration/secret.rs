//! Strangers: who does not hold the secret gets nothing and learns nothing, and what travels is QUIC alone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::{Daemon, Setup, meet, until, write_secret};
use crate::nodes::{all_see, behind, meet_behind, spend, start_behind};
use crate::relay::{Datagram, Relay};

const LIMIT: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\n";
/// QUIC version 1, RFC 9000.
const VERSION: [u8; 4] = [0, 0, 0, 1];
/// What the daemons' connection ids are long.
const ID_BYTES: usize = 8;

/// The parts of a long header (RFC 9000, 17.2) that travel in the clear.
struct LongHeader<'a> {
    initial: bool,
    source: &'a [u8],
}

/// `None`: not a long header of QUIC version 1.
fn long_header(bytes: &[u8]) -> Option<LongHeader<'_>> {
    let (first, rest) = bytes.split_first()?;
    // the form bit and the fixed bit
    if first >> 6 != 0b11 {
        return None;
    }
    let rest = rest.strip_prefix(&VERSION)?;
    let (length, rest) = rest.split_first()?;
    let (_destination, rest) = rest.split_at_checked(usize::from(*length))?;
    let (length, rest) = rest.split_first()?;
    let (source, _) = rest.split_at_checked(usize::from(*length))?;
    Some(LongHeader { initial: first >> 4 & 0b11 == 0, source })
}

/// Distinct first flights that `from` sent: each is one try to connect.
fn tries(recorded: &[Datagram], from: &str) -> usize {
    let sent = recorded.iter().filter(|d| d.from == from);
    let initials = sent.filter_map(|d| long_header(&d.bytes)).filter(|header| header.initial);
    initials.map(|header| header.source.to_vec()).collect::<HashSet<_>>().len()
}

#[tokio::test]
async fn a_node_with_another_secret_gets_nothing_and_learns_nothing() {
    let mut relay = Relay::new(1);
    let members = meet_behind(&mut relay, &["first-member", "second-member"], LIMIT).await;
    spend(&members[0], "k", 30).await;
    let directory = Arc::new(TempDir::new().unwrap());
    let mut setup = behind(&mut relay, &directory, &["stranger"], LIMIT).await.remove(0);
    setup.secret = Some(write_secret(directory.path(), "another"));
    setup.seeds = members.iter().map(|member| relay.address(&member.name).to_string()).collect();
    setup.cluster = "join_timeout = \"1s\"".to_owned();
    relay.record();
    let stranger = start_behind(&relay, &directory, vec![setup]).await.remove(0);
    until("it has tried both again and again", async || tries(&relay.recorded(), "stranger") >= 6).await;
    until("it has given up waiting", async || stranger.ready().await).await;

    let cluster = stranger.get("/v1/cluster").await;
    assert_eq!(cluster["members"].as_array().unwrap().len(), 1, "{cluster}");
    assert_eq!(stranger.level("k").await, 100.0);
    assert!(!stranger.log().contains("member#"), "{}", stranger.log());
    assert_eq!(stranger.logged("a peer was refused"), 1, "{}", stranger.log());
    for member in &members {
        let cluster = member.get("/v1/cluster").await;
        assert_eq!(cluster["members"].as_array().unwrap().len(), 2, "{cluster}");
        assert_eq!(member.logged("a peer was refused"), 1, "{}", member.log());
        assert!(!member.log().contains("stranger"), "{}", member.log());
    }
    // and they go on
    spend(&members[1], "k", 30).await;
    all_see(&members, "k", 40.0).await;
    assert_eq!(stranger.level("k").await, 100.0);
}

#[tokio::test]
async fn a_node_of_another_cluster_stays_apart_though_it_has_the_secret() {
    let mut relay = Relay::new(1);
    let directory = Arc::new(TempDir::new().unwrap());
    let mut setups = behind(&mut relay, &directory, &["a", "b", "c"], LIMIT).await;
    setups[2].cluster_name = "another".to_owned();
    setups[2].cluster = "join_timeout = \"1s\"".to_owned();
    let mut daemons = start_behind(&relay, &directory, setups).await;
    let other = daemons.pop().unwrap();
    meet(&daemons).await;
    until("it has given up waiting", async || other.ready().await).await;
    spend(&daemons[0], "k", 30).await;
    all_see(&daemons, "k", 70.0).await;
    assert_eq!(other.level("k").await, 100.0);
    let cluster = other.get("/v1/cluster").await;
    assert_eq!(cluster["members"].as_array().unwrap().len(), 1, "{cluster}");
}

#[tokio::test]
async fn all_that_travels_is_quic_and_tells_nothing() {
    let (node_1, node_2) = ("node-of-secrets-1", "node-of-secrets-2");
    let limits = LIMIT.replace("api", "limit-of-secrets") + LIMIT;
    let mut relay = Relay::new(1);
    relay.record();
    let directory = Arc::new(TempDir::new().unwrap());
    let mut setups = behind(&mut relay, &directory, &[node_1, node_2], &limits).await;
    setups.iter_mut().for_each(|setup| setup.cluster_name = "cluster-of-secrets".to_owned());
    let mut daemons = start_behind(&relay, &directory, setups).await;
    meet(&daemons).await;
    // news
    spend(&daemons[0], "key-of-secrets", 30).await;
    let check = serde_json::json!({"limit": "limit-of-secrets", "key": "key-of-secrets"});
    assert_eq!(daemons[1].post("/v1/check", check).await.unwrap()["allowed"], true);
    all_see(&daemons, "key-of-secrets", 70.0).await;
    // a goodbye, and a table for one that comes back
    daemons[1].stop().await;
    let again = daemons.pop().unwrap().restart().await;
    daemons.push(again);
    meet(&daemons).await;
    all_see(&daemons, "key-of-secrets", 70.0).await;

    let recorded = relay.recorded();
    let mut long = 0;
    for Datagram { from, to, bytes } in &recorded {
        // a long header with the version, or a short one: the form bit, the fixed bit, and room for id, number and tag
        let short = bytes[0] >> 6 == 0b01 && bytes.len() > ID_BYTES + 16;
        let is_long = long_header(bytes).is_some();
        assert!(is_long || short, "{from} sent {to} what is not QUIC: {bytes:02x?}");
        long += usize::from(is_long);
    }
    assert!(long > 4 && recorded.len() > long + 50, "{long} of {} have long headers", recorded.len());
    let secret = std::fs::read_to_string(directory.path().join("secret")).unwrap();
    let names = [node_1, node_2, "cluster-of-secrets", "limit-of-secrets", "key-of-secrets", secret.trim()];
    for Datagram { from, to, bytes } in &recorded {
        let told = names.iter().find(|name| bytes.windows(name.len()).any(|part| part == name.as_bytes()));
        assert_eq!(told, None, "{from} told {to} in the clear");
    }
}

#[tokio::test]
async fn junk_on_the_port_changes_nothing() {
    let mut relay = Relay::new(1);
    let daemons = meet_behind(&mut relay, &["a", "b"], LIMIT).await;
    let port = daemons[0].cluster.unwrap();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut junk: u32 = 1;
    for length in 0..1400 {
        let mut bytes: Vec<u8> = (0..length)
            .map(|_| {
                junk = junk.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (junk >> 24) as u8
            })
            .collect();
        // every third looks like the beginning of a connection
        if length % 3 == 0 && length > 5 {
            bytes[0] |= 0xc0;
            bytes[1..5].copy_from_slice(&VERSION);
        }
        stranger.send_to(&bytes, port).await.unwrap();
    }
    spend(&daemons[0], "k", 30).await;
    all_see(&daemons, "k", 70.0).await;
    assert!(!daemons.iter().any(|daemon| daemon.log().contains("panicked")));
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_said_before_anything_starts() {
    let directory = Arc::new(TempDir::new().unwrap());
    let missing = directory.path().join("nowhere").join("secret");
    let setup = Setup { secret: Some(missing.clone()), ..Setup::single(LIMIT) };
    let started = tokio::time::timeout(Duration::from_secs(20), Daemon::try_start(&directory, setup)).await;
    let error = started.unwrap().err().expect("it does not start");
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
}
