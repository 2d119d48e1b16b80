//! What honest nodes could say: frames and messages of any content, for property tests.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use spillgate_core::wire::{
    Ack, Alone, Describe, EXTENSIONS_MAX, Frame, Header, Message, Refunds, StateCount, StateItem, UNKNOWN_MAX,
    UPDATES_MAX, Update, Used,
};

/// Largest count that an honest replica may tell.
pub const COUNT_MAX: u64 = 1 << 62;

pub fn describe() -> impl Strategy<Value = Describe> {
    (("[a-z]{1,12}", any::<bool>(), 0..4u8), (1..1_000_000u64, 1..u64::MAX, 1..1_000_000u64), (0..3u8, 0..1_000_000u32))
        .prop_map(|((limit, inline, algorithm), (tokens, period, capacity), (accuracy, overshoot_ppm))| Describe {
            limit,
            inline,
            algorithm,
            tokens,
            period,
            capacity,
            accuracy,
            overshoot_ppm,
        })
}

pub fn update() -> impl Strategy<Value = Update> {
    let count = || prop_oneof![1..1000u64, 1..=COUNT_MAX];
    let alone = any::<(u64, bool)>().prop_map(|(released, unclaimed)| Alone { released, unclaimed });
    let refunds = (count(), any::<u64>()).prop_map(|(refunded, f)| Refunds { refunded, fresh: f % (refunded + 1) });
    (
        any::<[u8; 16]>(),
        (count(), any::<u64>()),
        option::of(refunds),
        option::of(any::<u64>()),
        prop_oneof![Just(0f32), 0f32..1e9, Just(f32::MAX)],
        (option::of(any::<u64>()), option::of(alone)),
        option::weighted(0.1, describe()),
    )
        .prop_map(|(key, (granted, f), refunds, window, demand, (previous, alone), describe)| Update {
            key,
            granted,
            fresh: f % (granted + 1),
            refunds,
            window,
            previous,
            demand,
            alone,
            describe,
        })
}

pub fn header() -> impl Strategy<Value = Header> {
    let ack = any::<(u64, u64, u64, u64)>().prop_map(|(of, high, bits, delay_us)| Ack { of, high, bits, delay_us });
    (
        any::<(u64, u64, u64, u64)>(),
        option::of(ack),
        any::<u8>(),
        vec(any::<[u8; 16]>(), 0..=UNKNOWN_MAX),
        vec((any::<u8>(), vec(any::<u8>(), 0..20)), 0..=EXTENSIONS_MAX),
    )
        .prop_map(|((incarnation, seq, stable, needs), ack, flags, unknown, extensions)| Header {
            incarnation,
            seq,
            ack,
            stable,
            flags,
            needs,
            unknown,
            extensions,
        })
}

pub fn frame() -> impl Strategy<Value = Frame> {
    let updates = prop_oneof![4 => vec(update(), 0..20), 1 => vec(update(), 0..=UPDATES_MAX)];
    (header(), updates).prop_map(|(header, updates)| Frame { header, updates })
}

pub fn state_item() -> impl Strategy<Value = StateItem> {
    let count = (any::<u16>(), 1..=COUNT_MAX, 0..=COUNT_MAX, any::<u64>());
    let counts = vec(
        count.prop_map(|(replica, granted, refunded, n)| StateCount {
            replica,
            granted,
            refunded,
            unheard: n % granted,
        }),
        0..5,
    );
    let used = prop_oneof![
        any::<u64>().prop_map(Used::Bucket),
        (any::<u64>(), 0..=COUNT_MAX, 0..=COUNT_MAX)
            .prop_map(|(number, used, previous)| Used::Window(number, used, previous)),
    ];
    (any::<[u8; 16]>(), describe(), used, counts).prop_map(|(key, describe, used, counts)| StateItem {
        key,
        describe,
        used,
        counts,
    })
}

pub fn message() -> impl Strategy<Value = Message> {
    let replicas = vec(("[a-z]{0,9}", any::<u64>()), 0..5);
    let chunk = (any::<bool>(), replicas, any::<u16>(), any::<bool>(), vec(state_item(), 0..30)).prop_map(
        |(last, replicas, members, joining, items)| Message::StateChunk { last, replicas, members, joining, items },
    );
    prop_oneof![1 => Just(Message::StateRequest), 9 => chunk]
}
