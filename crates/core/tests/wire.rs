//! The codec: frames and messages round-trip, and no bytes panic or allocate what they claim.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy knows tests by their attribute, not what they call

mod common;

use common::heap::{self, Counting};
use common::honest::{frame, message};
use proptest::collection::vec;
use proptest::prelude::*;
use spillgate_core::wire::{
    DecodeError, FRAME_BYTES_MAX, Frame, Header, MESSAGE_BYTES_MAX, UPDATES_MAX, Update, VERSION, decode_frame,
    decode_message, encode_frame, encode_message,
};

#[global_allocator]
static HEAP: Counting = Counting;

/// What decoding may ask the heap for, whatever the bytes claim: the largest frame is 250 updates of about 160 bytes in
/// memory, beside texts that are no longer than the frame, in vectors of which the elements were read one by one.
const FRAME_HEAP_MAX: usize = 2 * (UPDATES_MAX * size_of::<Update>() + FRAME_BYTES_MAX);
/// The same of a message, whose limit counts the size in memory.
const MESSAGE_HEAP_MAX: usize = 3 * MESSAGE_BYTES_MAX;

proptest! {
    #[test]
    fn frames_round_trip(frame in frame()) {
        let bytes = encode_frame(&frame);
        match decode_frame(&bytes) {
            Ok(read) => prop_assert_eq!(read, frame),
            Err(e) => prop_assert_eq!((e, bytes.len() > FRAME_BYTES_MAX), (DecodeError::Length(bytes.len(), FRAME_BYTES_MAX), true)),
        }
    }

    #[test]
    fn messages_round_trip(message in message()) {
        prop_assert_eq!(decode_message(&encode_message(&message)).unwrap(), message);
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_cost_little(version in prop_oneof![9 => Just(VERSION), 1 => any::<u8>()], body in vec(any::<u8>(), 0..2000)) {
        let bytes = [&[version][..], &body].concat();
        let (asked, _) = heap::asked(|| drop(decode_frame(&bytes)));
        prop_assert!(asked <= FRAME_HEAP_MAX, "{} bytes for a frame", asked);
        let (asked, _) = heap::asked(|| drop(decode_message(&bytes)));
        prop_assert!(asked <= MESSAGE_HEAP_MAX, "{} bytes for a message", asked);
    }
}

/// A full frame is one that a jumbo datagram carries: the decoder's limit must have room for it in memory.
#[test]
fn the_fullest_frame_that_fits_is_read() {
    let update = |i: usize| Update {
        key: [u8::try_from(i).unwrap(); 16],
        granted: 1,
        fresh: 0,
        refunds: None,
        window: None,
        demand: 0.0,
        previous: None,
        alone: None,
        describe: None,
    };
    let header = Header {
        incarnation: 1,
        seq: 1,
        ack: None,
        stable: 0,
        flags: 0,
        needs: 0,
        unknown: vec![],
        extensions: vec![],
    };
    let frame = Frame { header: header.clone(), updates: (0..UPDATES_MAX).map(update).collect() };
    let bytes = encode_frame(&frame);
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    assert_eq!(decode_frame(&bytes).unwrap(), frame);
    let frame = Frame { header, updates: (0..=UPDATES_MAX).map(update).collect() };
    let refused = decode_frame(&encode_frame(&frame)).unwrap_err();
    assert_eq!(refused, DecodeError::TooMany("updates", UPDATES_MAX + 1, UPDATES_MAX));
}

/// A varint that claims more than any memory holds, wherever a length may stand.
#[test]
fn a_claimed_length_is_not_believed() {
    const HUGE: [[u8; 9]; 3] = [
        [253, 255, 255, 255, 255, 255, 255, 255, 255], // 2^64 - 1
        [253, 0, 0, 0, 0, 1, 0, 0, 0],                 // 2^32
        [253, 0, 0, 16, 0, 0, 0, 0, 0],                // 2^20: below the memory there is
    ];
    // incarnation, seq, no ack, stable, flags; then the keys that are unknown, the extensions, the updates
    let head = [VERSION, 1, 1, 0, 0, 0];
    let extension = [0, 1, 9];
    let update = [&[0, 0, 1][..], &[3; 16], &[5, 0, 0, 0, 0, 0, 0, 0, 1]].concat();
    for huge in HUGE {
        for before in [&[][..], &[0], &extension, &[0, 0], &update] {
            let bytes = [&head[..], before, &huge, &[0; 40]].concat();
            let (asked, largest) = heap::asked(|| assert!(decode_frame(&bytes).is_err()));
            assert!(asked <= FRAME_HEAP_MAX && largest <= FRAME_HEAP_MAX, "{asked} bytes, {largest} at once");
        }
        // a chunk, not the last; then the replicas, the items
        for before in [&[1, 0][..], &[1, 0, 0], &[1, 0, 1]] {
            let bytes = [&[VERSION][..], before, &huge, &[0; 40]].concat();
            let (asked, largest) = heap::asked(|| assert!(decode_message(&bytes).is_err()));
            assert!(asked <= MESSAGE_HEAP_MAX && largest <= MESSAGE_HEAP_MAX, "{asked} bytes, {largest} at once");
        }
    }
}
