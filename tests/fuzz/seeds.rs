//! Inputs that the program itself encodes: what the mutations of binary formats begin with.

use spillgate_core::decision::LimitRef;
use spillgate_core::gossip::Pace;
use spillgate_core::limit::Limits;
use spillgate_core::node::{Node, NodeConfig};
use spillgate_core::time::Nanos;
use spillgate_core::view::ReplicaId;
use spillgate_core::wire::slice::{SavedKey, Slice, encode_slice};
use spillgate_core::wire::{
    Ack, Alone, Describe, Frame, Header, Message, Refunds, StateCount, StateItem, Update, Used, encode_frame,
    encode_message,
};

/// By target.
pub fn all() -> [(&'static str, Vec<Vec<u8>>); 3] {
    [("frame", frames()), ("message", messages()), ("slice", slices())]
}

/// The key "k" of a limit, hashed as the targets' nodes hash it.
fn key(limit: &str) -> [u8; 16] {
    let pace = Pace { interval: Nanos::SECOND, stale_after: Nanos::SECOND, forget_after: Nanos::SECOND };
    let replica = ReplicaId { node: "a".into(), incarnation: 7 };
    let config = NodeConfig { replica, hash_key: [7; 16], max_keys: 1, shards_max: 1, clustered: false, pace };
    Node::new(config, Limits::default()).key_id(LimitRef::Named(limit), "k").to_bytes()
}

fn describe(limit: &str, algorithm: u8) -> Describe {
    Describe {
        limit: limit.to_owned(),
        inline: false,
        algorithm,
        tokens: 100,
        period: 60_000_000_000,
        capacity: 100,
        accuracy: 1,
        overshoot_ppm: 50_000,
    }
}

const LIMITS: [(&str, u8); 5] = [("api", 0), ("leaky", 1), ("fixed", 2), ("sliding", 3), ("elsewhere", 0)];
const MINUTE: u64 = 1_700_000_000 / 60;

fn window(algorithm: u8) -> Option<u64> {
    (algorithm >= 2).then_some(MINUTE)
}

fn update(limit: &str, algorithm: u8) -> Update {
    Update {
        key: key(limit),
        granted: 1020,
        fresh: 20,
        refunds: (algorithm == 0).then_some(Refunds { refunded: 7, fresh: 2 }),
        window: window(algorithm),
        demand: 12.5,
        previous: None,
        alone: (algorithm == 1).then_some(Alone { released: 3, unclaimed: true }),
        describe: Some(describe(limit, algorithm)),
    }
}

fn frames() -> Vec<Vec<u8>> {
    let header = Header {
        incarnation: 7,
        seq: 1,
        ack: Some(Ack { of: 7, high: 1, bits: 0, delay_us: 100 }),
        stable: 1,
        flags: 0b1111,
        needs: 5,
        unknown: vec![key("api")],
        extensions: vec![(1, 1_700_000_000_000_000u64.to_be_bytes().to_vec()), (200, vec![1, 2, 3])],
    };
    let plain = Header { ack: None, unknown: vec![], extensions: vec![], flags: 0, ..header.clone() };
    let updates: Vec<Update> = LIMITS.map(|(limit, algorithm)| update(limit, algorithm)).to_vec();
    let mut frames = vec![
        encode_frame(&Frame { header: plain.clone(), updates: vec![] }),
        encode_frame(&Frame { header, updates: updates.clone() }),
    ];
    frames.extend(updates.into_iter().map(|u| encode_frame(&Frame { header: plain.clone(), updates: vec![u] })));
    frames
}

fn used(algorithm: u8) -> Used {
    if algorithm < 2 { Used::Bucket(12_000_000_000) } else { Used::Window(MINUTE, 20, 5) }
}

/// The ends of the ranges, by the place in [`LIMITS`]: mutations seldom set eight bytes at once.
const EDGES: [(usize, Used); 5] = [
    (0, Used::Bucket(u64::MAX)),
    (1, Used::Bucket(1)),
    (2, Used::Window(u64::MAX, 1 << 62, 0)),
    (3, Used::Window(0, 1, 1 << 62)),
    (4, Used::Bucket(0)),
];

fn replicas() -> Vec<(String, u64)> {
    vec![("b".to_owned(), 7), ("a".to_owned(), 7), ("c".to_owned(), 3)]
}

fn messages() -> Vec<Vec<u8>> {
    let count = |replica, unheard| StateCount { replica, granted: 1020, refunded: 7, unheard };
    let item = |(limit, algorithm): (&str, u8)| StateItem {
        key: key(limit),
        describe: describe(limit, algorithm),
        used: used(algorithm),
        counts: vec![count(0, 0), count(1, 0), count(2, 20), count(9, 0)],
    };
    let items: Vec<StateItem> = LIMITS.map(item).to_vec();
    let chunk = |last, items| {
        encode_message(&Message::StateChunk { last, replicas: replicas(), members: 2, joining: !last, items })
    };
    let mut messages = vec![encode_message(&Message::StateRequest), chunk(true, vec![]), chunk(true, items.clone())];
    messages.push(chunk(true, EDGES.map(|(i, used)| StateItem { used, ..items[i].clone() }).to_vec()));
    messages.extend(items.into_iter().map(|item| chunk(false, vec![item])));
    messages
}

fn slices() -> Vec<Vec<u8>> {
    let saved = |rule: u16, (limit, algorithm): (&str, u8)| SavedKey {
        key: key(limit),
        rule,
        used: used(algorithm),
        counts: vec![(0, 1020, 7), (1, 50, 1), (2, 9, 1)],
        unheard: 3,
    };
    let slice = |keys| Slice {
        wall: 1_699_999_999_000_000_000,
        replicas: replicas(),
        rules: LIMITS.map(|(limit, algorithm)| describe(limit, algorithm)).to_vec(),
        keys,
    };
    let keys: Vec<SavedKey> = (0..).zip(LIMITS).map(|(rule, limit)| saved(rule, limit)).collect();
    let mut slices = vec![encode_slice(&slice(vec![])), encode_slice(&slice(keys.clone()))];
    slices.push(encode_slice(&slice(EDGES.map(|(i, used)| SavedKey { used, ..keys[i].clone() }).to_vec())));
    slices.extend(keys.into_iter().map(|key| encode_slice(&slice(vec![key]))));
    slices
}
