//! A node among peers that lie or garble: what is refused changes nothing, and what is taken harms no key but the one it
//! names.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy knows tests by their attribute, not what they call

mod common;

use std::sync::Arc;

use common::honest::{COUNT_MAX, frame, message};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use spillgate_core::decision::{Check, LimitRef};
use spillgate_core::entry::describe_rule;
use spillgate_core::gossip::Pace;
use spillgate_core::limit::{Accuracy, Algorithm, Limit, Limits, Origin, Rule, RuleSpec};
use spillgate_core::node::{Attempt, FrameError, Node, NodeConfig, Outbox, Told};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::ReplicaId;
use spillgate_core::wire::{
    Ack, DecodeError, Describe, Frame, Header, MESSAGE_BYTES_MAX, Message, Refunds, StateCount, StateItem, Update,
    Used, VERSION, decode_message, encode_frame, encode_message,
};

struct Nothing;

impl Outbox for Nothing {
    fn frame(&mut self, _: &ReplicaId, _: Vec<u8>) {}
}

fn replica(node: &str) -> ReplicaId {
    ReplicaId { node: node.into(), incarnation: 7 }
}

fn present(ms: u64) -> Now {
    Now { at: Nanos::from_millis(ms), wall: 1_700_000_000_000_000_000 + ms * 1_000_000 }
}

/// Node a with peers b and c, a bucket of 100 an hour and a window of 100 an hour, and 30 tokens of each used by itself
/// and 10 by b.
struct Subject {
    node: Node,
    bucket: [u8; 16],
    window: [u8; 16],
}

const HONEST: [&str; 2] = ["bucket", "window"];

impl Subject {
    fn new() -> Self {
        let pace = Pace {
            interval: Nanos::from_millis(10),
            stale_after: Nanos::from_millis(200),
            forget_after: Nanos::from_secs(60),
        };
        let config = NodeConfig {
            replica: replica("a"),
            hash_key: [7; 16],
            max_keys: 1000,
            shards_max: 2,
            clustered: true,
            pace,
        };
        let rate = "100/h".parse().unwrap();
        let gossip = |algorithm| RuleSpec { accuracy: Accuracy::Gossip, ..RuleSpec::new(algorithm, rate) };
        let bucket = RuleSpec { burst: Some(100), ..gossip(Algorithm::TokenBucket) };
        let limits = [("bucket", bucket), ("window", gossip(Algorithm::FixedWindow))];
        let limits = limits.map(|(name, spec)| Limit::new(name, spec, &[]).unwrap());
        let node = Node::new(config, Limits::new(limits).unwrap());
        let now = present(0);
        // counted in without a handshake: what is under test is what frames do
        node.begin_alone(now);
        node.peer_up(&replica("b"), now);
        node.peer_up(&replica("c"), now);
        let id = |limit| node.key_id(LimitRef::Named(limit), "k").to_bytes();
        let (bucket, window) = (id("bucket"), id("window"));
        let subject = Self { node, bucket, window };
        for limit in HONEST {
            let check = Check { limit: LimitRef::Named(limit), key: "k", cost: 30, priority: "normal" };
            assert!(subject.node.check(&check, now, Attempt::First).unwrap().allowed);
        }
        let updates = vec![subject.honest(bucket, 10), subject.honest(window, 10)];
        subject.hear("b", 1, updates, 1).unwrap();
        assert_eq!(subject.levels(1), [60, 60]);
        subject
    }

    /// The number of the hour that `present` stands in.
    fn hour() -> u64 {
        present(0).wall / 3_600_000_000_000
    }

    /// What a peer that has granted `granted` says of one of the two keys.
    fn honest(&self, key: [u8; 16], granted: u64) -> Update {
        let name = if key == self.bucket { "bucket" } else { "window" };
        let rule = Arc::clone(self.node.limits().find(name).unwrap().rule());
        let window = (key == self.window).then(Self::hour);
        let describe = Some(describe_rule(&rule));
        // counts start at an arbitrary number above 0
        Update {
            key,
            granted: 1000 + granted,
            fresh: granted,
            refunds: None,
            window,
            demand: 1.0,
            previous: None,
            alone: None,
            describe,
        }
    }

    fn hear(&self, from: &str, seq: u64, updates: Vec<Update>, ms: u64) -> Result<(), FrameError> {
        let header = Header {
            incarnation: 7,
            seq,
            ack: None,
            stable: 0,
            flags: 0,
            needs: 0,
            unknown: Vec::new(),
            extensions: Vec::new(),
        };
        let bytes = encode_frame(&Frame { header, updates });
        self.node.handle_frame(&replica(from), &bytes, present(ms), &mut Nothing).map(|_| ())
    }

    /// Whole tokens left of the two keys.
    fn levels(&self, ms: u64) -> [i64; 2] {
        HONEST.map(|limit| {
            let explained = self.node.explain(LimitRef::Named(limit), "k", present(ms)).unwrap();
            explained.expect("the key is known").level.floor() as i64
        })
    }

    /// Everything, as text.
    fn state(&self) -> String {
        format!("{:?}", self.node)
    }

    /// b's counter of the two keys, as this node knows it.
    fn counted_of_b(&self) -> [u64; 2] {
        HONEST.map(|limit| {
            let explained = self.node.explain(LimitRef::Named(limit), "k", present(1)).unwrap().unwrap();
            explained.replicas.iter().find(|r| *r.replica.node == *"b").map_or(0, |r| r.granted)
        })
    }
}

/// Changes some bits, and maybe the length.
fn damage(mut bytes: Vec<u8>, flips: &[(usize, u8)], cut: Option<usize>) -> Vec<u8> {
    for (place, bit) in flips {
        let place = place % bytes.len();
        bytes[place] ^= 1 << (bit % 8);
    }
    if let Some(cut) = cut {
        bytes.truncate(cut % (bytes.len() + 1));
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_leave_the_node_alone(bodies in vec(vec(any::<u8>(), 0..200), 1..20)) {
        let subject = Subject::new();
        for body in bodies {
            let bytes = [&[VERSION][..], &body].concat();
            let before = subject.state();
            if subject.node.handle_frame(&replica("c"), &bytes, present(2), &mut Nothing).is_err() {
                prop_assert_eq!(subject.state(), before);
            }
            let before = subject.state();
            if subject.node.handle_message(&bytes, true, present(2)).is_err() {
                prop_assert_eq!(subject.state(), before);
            }
        }
        prop_assert_eq!(subject.levels(2), [60, 60]);
    }

    /// Whatever c says of other keys, in whole or damaged frames: what is refused changes nothing, and the two keys
    /// that it does not name keep their counts.
    #[test]
    fn damaged_frames_are_refused_whole_or_touch_what_they_name(
        frames in vec((frame(), vec((any::<usize>(), any::<u8>()), 0..4), option::weighted(0.3, any::<usize>())), 1..10),
    ) {
        let subject = Subject::new();
        for (seq, (mut frame, flips, cut)) in (1..).zip(frames) {
            (frame.header.incarnation, frame.header.seq) = (7, seq);
            let bytes = damage(encode_frame(&frame), &flips, cut);
            let before = subject.state();
            let heard = subject.node.handle_frame(&replica("c"), &bytes, present(2), &mut Nothing);
            if heard.is_err() {
                prop_assert_eq!(subject.state(), before);
            }
            subject.node.tick(present(2), 1150, &mut Nothing);
        }
        prop_assert_eq!(subject.levels(2), [60, 60]);
        prop_assert!(subject.node.len() <= 1000);
        subject.hear("b", 2, vec![subject.honest(subject.bucket, 15), subject.honest(subject.window, 15)], 2).unwrap();
        prop_assert_eq!(subject.levels(2), [55, 55]);
    }

    #[test]
    fn damaged_messages_are_refused_whole_or_touch_what_they_name(
        messages in vec((message(), vec((any::<usize>(), any::<u8>()), 0..4), option::weighted(0.3, any::<usize>())), 1..6),
    ) {
        let subject = Subject::new();
        for (message, flips, cut) in messages {
            let bytes = damage(encode_message(&message), &flips, cut);
            let before = subject.state();
            if subject.node.handle_message(&bytes, true, present(2)).is_err() {
                prop_assert_eq!(subject.state(), before);
            }
            subject.node.tick(present(2), 1150, &mut Nothing);
        }
        prop_assert_eq!(subject.levels(2), [60, 60]);
        subject.hear("b", 2, vec![subject.honest(subject.bucket, 15), subject.honest(subject.window, 15)], 2).unwrap();
        prop_assert_eq!(subject.levels(2), [55, 55]);
    }
}

#[test]
fn values_that_no_honest_peer_sends_are_refused_and_change_nothing() {
    let subject = Subject::new();
    let fine = || subject.honest(subject.bucket, 20);
    let hostile = [
        ("granted", Update { granted: 0, fresh: 0, ..fine() }),
        ("granted", Update { granted: u64::MAX, ..fine() }),
        ("granted", Update { granted: COUNT_MAX + 1, ..fine() }),
        ("granted", Update { fresh: 1021, ..fine() }),
        ("refunded", Update { refunds: Some(Refunds { refunded: u64::MAX, fresh: 0 }), ..fine() }),
        ("refunded", Update { refunds: Some(Refunds { refunded: 1, fresh: 2 }), ..fine() }),
        ("demand", Update { demand: f32::NAN, ..fine() }),
        ("demand", Update { demand: f32::INFINITY, ..fine() }),
        ("demand", Update { demand: -1.0, ..fine() }),
    ];
    for (what, update) in hostile {
        let before = subject.state();
        // beside an honest one: a frame is taken whole or not at all
        let updates = vec![subject.honest(subject.window, 20), update.clone()];
        let refused = subject.hear("b", 2, updates, 2).unwrap_err();
        assert_eq!(refused, FrameError::Decode(DecodeError::Value(what)), "{update:?}");
        assert_eq!(subject.state(), before, "{update:?}");
    }
}

#[test]
fn state_that_no_honest_peer_reports_is_refused_and_changes_nothing() {
    let subject = Subject::new();
    let rule = Arc::clone(subject.node.limits().find("bucket").unwrap().rule());
    let item = |counts, used| StateItem { key: subject.bucket, describe: describe_rule(&rule), used, counts };
    let counted = |granted, refunded, unheard| {
        item(vec![StateCount { replica: 0, granted, refunded, unheard }], Used::Bucket(10))
    };
    let hostile = [
        ("granted", counted(u64::MAX, 0, 0)),
        ("granted", counted(COUNT_MAX + 1, 0, 0)),
        ("granted", counted(1010, 0, 1011)),
        ("refunded", counted(1010, u64::MAX, 0)),
        ("used", item(vec![], Used::Window(Subject::hour(), u64::MAX, 0))),
        ("used", item(vec![], Used::Window(Subject::hour(), 0, u64::MAX))),
    ];
    for (what, item) in hostile {
        let before = subject.state();
        // c speaks of what it heard of b
        let message = Message::StateChunk {
            last: true,
            replicas: vec![("b".to_owned(), 7)],
            members: 1,
            joining: false,
            items: vec![item.clone()],
        };
        let refused = subject.node.handle_message(&encode_message(&message), true, present(2)).unwrap_err();
        assert_eq!(refused, DecodeError::Value(what), "{item:?}");
        assert_eq!(subject.state(), before, "{item:?}");
    }
    assert_eq!(subject.counted_of_b(), [1010, 1010]);
}

#[test]
fn a_peer_speaks_for_its_own_run_alone() {
    let subject = Subject::new();
    let before = subject.state();
    for incarnation in [0, 6, 8, u64::MAX] {
        let header = Header {
            incarnation,
            seq: 2,
            ack: None,
            stable: 0,
            flags: 0,
            needs: 0,
            unknown: vec![],
            extensions: vec![],
        };
        let bytes = encode_frame(&Frame { header, updates: vec![subject.honest(subject.bucket, 90)] });
        let refused = subject.node.handle_frame(&replica("b"), &bytes, present(2), &mut Nothing).unwrap_err();
        assert_eq!(refused, FrameError::Incarnation(incarnation, replica("b")));
    }
    // nor for the node itself
    let bytes = encode_frame(&Frame {
        header: Header {
            incarnation: 7,
            seq: 9,
            ack: None,
            stable: 0,
            flags: 0,
            needs: 0,
            unknown: vec![],
            extensions: vec![],
        },
        updates: vec![subject.honest(subject.bucket, 90)],
    });
    let refused = subject.node.handle_frame(&replica("a"), &bytes, present(2), &mut Nothing).unwrap_err();
    assert_eq!(refused, FrameError::Stranger(replica("a")));
    assert_eq!(subject.state(), before);
}

/// A window that no clock has reached yet must not be followed: the quota would be new.
#[test]
fn a_window_of_the_far_future_renews_no_quota() {
    for window in [0, Subject::hour() - 1, Subject::hour() + 2, u64::MAX - 1, u64::MAX] {
        let subject = Subject::new();
        let update = Update { window: Some(window), ..subject.honest(subject.window, 20) };
        subject.hear("c", 1, vec![update], 2).unwrap();
        let [bucket, left] = subject.levels(2);
        assert!(bucket == 60 && (40..=60).contains(&left), "window {window}: {left} left");
        subject.hear("b", 2, vec![subject.honest(subject.window, 15)], 3).unwrap();
        assert_eq!(subject.levels(3)[1], left - 5, "window {window}");
    }
}

#[test]
fn rules_that_no_node_could_have_are_not_taken_over() {
    let subject = Subject::new();
    // of a limit that is not configured here, where the node's own settings would stand in
    let good = Describe { limit: "elsewhere".to_owned(), ..subject.honest(subject.bucket, 0).describe.unwrap() };
    let absurd = [
        Describe { limit: String::new(), ..good.clone() },
        Describe { limit: "x".repeat(1000), ..good.clone() },
        Describe { limit: "a b\n".to_owned(), ..good.clone() },
        Describe { algorithm: 4, ..good.clone() },
        Describe { accuracy: 3, ..good.clone() },
        Describe { accuracy: 1, overshoot_ppm: 0, ..good.clone() },
        Describe { accuracy: 1, overshoot_ppm: u32::MAX, ..good.clone() },
        Describe { tokens: 0, ..good.clone() },
        Describe { tokens: u64::MAX, ..good.clone() },
        Describe { period: 0, ..good.clone() },
        Describe { period: u64::MAX, ..good.clone() },
        Describe { capacity: 0, ..good.clone() },
        Describe { capacity: u64::MAX, ..good.clone() },
        // a window holds what its rate says
        Describe { algorithm: 2, capacity: 101, ..good.clone() },
    ];
    for (seq, describe) in (1..).zip(absurd) {
        let key = [9; 16];
        let update = Update { key, describe: Some(describe.clone()), ..subject.honest(subject.bucket, 20) };
        subject.hear("c", seq, vec![update], 2).unwrap();
        assert_eq!(subject.node.len(), 2, "{describe:?}");
        let item = StateItem { key, describe: describe.clone(), used: Used::Bucket(5), counts: vec![] };
        let message =
            Message::StateChunk { last: true, replicas: vec![], members: 0, joining: false, items: vec![item] };
        let told = subject.node.handle_message(&encode_message(&message), true, present(2)).unwrap();
        assert_eq!((told, subject.node.len()), (Told::State { last: true, keys: 1 }, 2), "{describe:?}");
    }
    assert_eq!(subject.levels(2), [60, 60]);
}

/// A peer may describe a configured limit otherwise than it is; a key that a caller has named keeps the node's own rule.
#[test]
fn a_peers_rule_does_not_replace_a_configured_one() {
    let subject = Subject::new();
    let mut update = subject.honest(subject.bucket, 0);
    if let Some(describe) = &mut update.describe {
        (describe.tokens, describe.capacity) = (1_000_000, 1_000_000);
    }
    subject.hear("c", 1, vec![update], 2).unwrap();
    let explained = subject.node.explain(LimitRef::Named("bucket"), "k", present(2)).unwrap().unwrap();
    assert_eq!((explained.capacity, subject.levels(2)), (100, [60, 60]));
}

/// The most that validation lets through: the liar's own keys are in debt, and no others; a reset mends them.
#[test]
fn the_largest_lie_stays_with_the_key_it_is_about() {
    let subject = Subject::new();
    let lie = |granted| Update { granted, fresh: granted, demand: f32::MAX, ..subject.honest(subject.bucket, 0) };
    subject.hear("c", 1, vec![lie(COUNT_MAX - 1)], 2).unwrap();
    subject.hear("c", 2, vec![lie(COUNT_MAX)], 2).unwrap();
    assert_eq!(subject.levels(2)[1], 60);
    let refunded = subject.node.reset(LimitRef::Named("bucket"), "k", present(2)).unwrap();
    assert_eq!(refunded.remaining, 100);
    let check = Check { limit: LimitRef::Named("bucket"), key: "k", cost: 1, priority: "normal" };
    assert!(subject.node.check(&check, present(2), Attempt::First).unwrap().allowed);
}

/// Numbers at the end of their range in a header: the link that they came over may go deaf, the node does not.
#[test]
fn a_header_at_the_end_of_its_range_harms_only_its_own_link() {
    let subject = Subject::new();
    let ack = Some(Ack { of: 7, high: u64::MAX, bits: u64::MAX, delay_us: u64::MAX });
    for seq in [1, u64::MAX] {
        let extensions = vec![(1, vec![0xff; 8]), (1, vec![]), (200, vec![0; 1000])];
        let header = Header {
            incarnation: 7,
            seq,
            ack,
            stable: u64::MAX,
            flags: 0xff,
            needs: u64::MAX,
            unknown: vec![[1; 16]; 16],
            extensions,
        };
        let bytes = encode_frame(&Frame { header, updates: vec![] });
        subject.node.handle_frame(&replica("c"), &bytes, present(2), &mut Nothing).unwrap();
        subject.node.tick(present(2), 1150, &mut Nothing);
    }
    for ms in (10..1000).step_by(10) {
        subject.node.tick(present(ms), 1150, &mut Nothing);
    }
    let check = Check { limit: LimitRef::Named("bucket"), key: "k", cost: 1, priority: "normal" };
    assert!(subject.node.check(&check, present(1000), Attempt::First).unwrap().allowed);
    subject.hear("b", 2, vec![subject.honest(subject.bucket, 15)], 1000).unwrap();
    assert_eq!(subject.levels(1000)[0], 54);
}

/// A whole table with the longest names and keys of all four algorithms arrives, chunk by chunk.
#[test]
fn every_chunk_of_a_table_is_read() {
    let subject = Subject::new();
    let name = "n".repeat(128);
    for (i, algorithm) in (0..800).zip(Algorithm::ALL.into_iter().cycle()) {
        let spec = RuleSpec::new(algorithm, "100/h".parse().unwrap());
        let rule = Arc::new(Rule::new(&name, Origin::Inline, spec).unwrap());
        let (limit, key) = (LimitRef::Inline(&rule), format!("{i}"));
        let check = Check { limit, key: &key, cost: 1, priority: "normal" };
        subject.node.check(&check, present(1), Attempt::First).unwrap();
    }
    let chunks: Vec<Vec<u8>> = subject.node.state_chunks(present(2)).collect();
    let mut keys = 0;
    for (i, chunk) in chunks.iter().enumerate() {
        assert!(chunk.len() <= MESSAGE_BYTES_MAX);
        let Message::StateChunk { last, items, .. } = decode_message(chunk).unwrap() else { panic!("no chunk") };
        assert_eq!(last, i + 1 == chunks.len());
        keys += items.len();
    }
    assert_eq!(keys, subject.node.len());
}
