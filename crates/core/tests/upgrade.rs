//! A rolling upgrade, as far as one build can show it: frames as a later minor version may send them, by the rules in
//! `wire`, among frames of this one. No binary of another version is there to mix with: there has been no release yet.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy knows tests by their attribute, not what they call

mod common;

use common::{Cluster, FRAME_BYTES, MS, limits};
use spillgate_core::decision::LimitRef;
use spillgate_core::limit::{Accuracy, Algorithm};
use spillgate_core::node::{FrameError, Outbox};
use spillgate_core::view::ReplicaId;
use spillgate_core::wire::{
    DecodeError, Describe, EXTENSIONS_MAX, FLAGS_KNOWN, Frame, Header, Update, VERSION, decode_frame, encode_frame,
    encode_header,
};

/// The frame as a later minor version would send it: flags and extensions that this one does not know, the most of them.
fn later(bytes: &[u8]) -> Vec<u8> {
    let mut frame = decode_frame(bytes).unwrap();
    frame.header.flags |= !FLAGS_KNOWN;
    for tag in (0..=u8::MAX).rev().take(EXTENSIONS_MAX - frame.header.extensions.len()) {
        frame.header.extensions.insert(0, (tag, vec![tag; usize::from(tag % 90)]));
    }
    encode_frame(&frame)
}

fn level(cluster: &Cluster, i: usize) -> f64 {
    let view = cluster.node(i).explain(LimitRef::Named("api"), "k", cluster.present()).unwrap();
    view.map_or(f64::NAN, |v| v.level)
}

/// What three nodes answer to the same requests, and what each has left, while those among `upgraded` speak the later
/// version.
fn answers(upgraded: &[usize], accuracy: Accuracy) -> Vec<(bool, String)> {
    let mut cluster = Cluster::new(3, limits(Algorithm::TokenBucket, "100/s", Some(50), accuracy), 3 * MS, 0.1, 21);
    cluster.disguise = Some(later);
    cluster.disguised = upgraded.to_vec();
    cluster.settle();
    (0..900)
        .map(|n| {
            cluster.run(cluster.now + 3 * MS);
            let allowed = cluster.check(n % 3, "k", 1).allowed;
            (allowed, format!("{:?}", [0, 1, 2].map(|i| level(&cluster, i))))
        })
        .collect()
}

#[test]
fn a_later_minor_version_is_heard_as_if_it_were_this_one() {
    for accuracy in [Accuracy::Strict, Accuracy::default()] {
        let present = answers(&[], accuracy);
        assert!(present.iter().any(|a| a.0) && present.iter().any(|a| !a.0), "more is asked for than there is");
        for upgraded in [&[0][..], &[0, 2], &[0, 1, 2]] {
            let mixed = answers(upgraded, accuracy);
            let other = (0..mixed.len()).find(|i| mixed[*i] != present[*i]);
            assert_eq!(other, None, "{accuracy:?}: with {upgraded:?} upgraded this answer is another");
        }
    }
}

/// Node after node leaves and comes back as one that speaks the later version: one limit throughout.
#[test]
fn a_rolling_upgrade_gives_nobody_a_fresh_quota() {
    let limits = limits(Algorithm::TokenBucket, "1/366d", Some(300), Accuracy::Strict);
    let mut cluster = Cluster::new(3, limits, MS, 0.0, 22);
    cluster.disguise = Some(later);
    cluster.settle();
    let mut spent = 0;
    let spend = |cluster: &mut Cluster, i: usize, tokens: u64| {
        let mut left = tokens;
        for _ in 0..2000 {
            left -= u64::from(left > 0 && cluster.check(i, "k", 1).allowed);
            cluster.run(cluster.now + 10 * MS);
        }
        assert_eq!(left, 0, "node {i} grants only {} of {tokens}", tokens - left);
        tokens
    };
    for i in 0..3 {
        let others = [(i + 1) % 3, (i + 2) % 3];
        spent += spend(&mut cluster, others[0], 20);
        let leaving = cluster.node(i).replica().clone();
        for other in others {
            cluster.node(other).peer_left(&leaving, cluster.present());
        }
        cluster.crash(i);
        spent += spend(&mut cluster, others[1], 20);
        cluster.start(i);
        cluster.disguised.push(i);
        cluster.bring(others[0], i);
        cluster.settle();
        spent += spend(&mut cluster, i, 20);
        for node in 0..3 {
            assert_eq!(level(&cluster, node).round(), 300.0 - spent as f64, "node {node}, {i} upgraded");
        }
    }
    // all that is left, and no more
    for _ in 0..3000 {
        for i in 0..3 {
            spent += u64::from(cluster.check(i, "k", 1).allowed);
        }
        cluster.run(cluster.now + 10 * MS);
    }
    assert!((295..=300).contains(&spent), "{spent} of 300");
}

struct Nowhere;

impl Outbox for Nowhere {
    fn frame(&mut self, _: &ReplicaId, _: Vec<u8>) {}
}

fn header(seq: u64) -> Header {
    let (unknown, extensions) = (Vec::new(), Vec::new());
    Header { incarnation: 9, seq, ack: None, stable: 0, flags: 0, needs: 0, unknown, extensions }
}

fn describe(limit: &str, algorithm: u8, accuracy: u8) -> Describe {
    let limit = limit.to_owned();
    Describe {
        limit,
        inline: false,
        algorithm,
        tokens: 1,
        period: 366 * 86_400 * 1_000_000_000,
        capacity: 300,
        accuracy,
        overshoot_ppm: 0,
    }
}

/// A key whose rule this version does not know is left alone; the others of the frame are heard.
#[test]
fn a_rule_of_a_later_version_spoils_no_other_key_of_its_frame() {
    let limits = limits(Algorithm::TokenBucket, "1/366d", Some(300), Accuracy::Strict);
    let mut cluster = Cluster::new(2, limits, MS, 0.0, 23);
    cluster.settle();
    let node = cluster.node(0);
    let from = ReplicaId { node: "later".into(), incarnation: 9 };
    node.peer_up(&from, cluster.present());
    let update = |key: [u8; 16], describe| Update {
        key,
        granted: 41,
        fresh: 40,
        refunds: None,
        window: None,
        demand: 0.0,
        previous: None,
        alone: None,
        describe: Some(describe),
    };
    let own = node.key_id(LimitRef::Named("api"), "k").to_bytes();
    let updates = vec![
        update([1; 16], describe("api", 9, 0)),
        update([2; 16], describe("new", 0, 9)),
        update(own, describe("api", 0, 0)),
    ];
    let bytes = encode_frame(&Frame { header: header(1), updates });
    let heard = node.handle_frame(&from, &bytes, cluster.present(), &mut Nowhere).unwrap();
    assert_eq!(heard.updates, 3);
    assert_eq!(level(&cluster, 0).round(), 260.0);
    assert_eq!(node.len(), 1, "the keys of unknown rules are in no table");
}

/// What is no minor version is refused whole, by its first byte, whatever follows.
#[test]
fn another_version_is_refused_and_changes_nothing() {
    let limits = limits(Algorithm::TokenBucket, "1/366d", Some(300), Accuracy::Strict);
    let mut cluster = Cluster::new(2, limits, MS, 0.0, 24);
    cluster.settle();
    let before = (cluster.node(0).len(), format!("{:?}", cluster.node(0).outlook()));
    let from = cluster.node(1).replica().clone();
    for version in [0, VERSION + 1, u8::MAX] {
        let mut bytes = Vec::new();
        encode_header(&Header { incarnation: from.incarnation, seq: 1 << 40, ..header(1) }, &mut bytes);
        bytes[0] = version;
        for rest in [&[][..], &[0], &[7; FRAME_BYTES / 2]] {
            let bytes = [&bytes[..], rest].concat();
            let refused = cluster.node(0).handle_frame(&from, &bytes, cluster.present(), &mut Nowhere);
            assert!(
                matches!(&refused, Err(FrameError::Decode(DecodeError::Version(v))) if *v == version),
                "{refused:?}"
            );
        }
    }
    assert_eq!((cluster.node(0).len(), format!("{:?}", cluster.node(0).outlook())), before);
}
