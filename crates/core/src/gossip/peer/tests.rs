use super::*;

fn peer() -> Peer {
    let mut peer = Peer::new(ReplicaId { node: "b".into(), incarnation: 7 }, Slot(1), Nanos::ZERO, 0, 0);
    peer.queue_everything([], 0);
    peer
}

const WORD: Word = Word { own: 3, stable: 0, members: 0 };

fn cargo(tick: u64, key: u64) -> Cargo {
    Cargo { tick, bytes: 40, keys: Arc::from([KeyId(u128::from(key))]) }
}

fn send(peer: &mut Peer, tick: u64) -> Header {
    peer.next_header(Nanos(tick), WORD, Some(cargo(tick, tick)))
}

fn ack(high: u64, bits: u64) -> Ack {
    Ack { of: 3, high, bits, delay_us: 0 }
}

#[test]
fn a_tick_is_confirmed_only_with_all_before_it() {
    let mut peer = peer();
    for tick in 1..=3 {
        send(&mut peer, tick);
    }
    assert_eq!(peer.confirmed(3), 0);
    peer.confirm(&ack(3, 0), true, 3, Nanos(10));
    assert_eq!(peer.confirmed(3), 0, "1 and 2 may still come");
    peer.confirm(&ack(3, 0b11), true, 3, Nanos(10));
    assert_eq!(peer.confirmed(3), 3);
}

#[test]
fn a_lost_frame_holds_its_tick_until_its_keys_were_told_again() {
    let mut peer = peer();
    for tick in 1..=4 {
        send(&mut peer, tick);
    }
    peer.confirm(&ack(4, 0b011), true, 3, Nanos(10));
    assert_eq!(peer.confirmed(4), 0);
    let (keys, tick) = peer.take_queued(10);
    assert_eq!((keys, tick), (vec![KeyId(1)], 1));
    peer.next_header(Nanos(5), WORD, Some(cargo(tick, 1)));
    assert_eq!(peer.confirmed(5), 0);
    peer.confirm(&ack(5, 0b111), true, 3, Nanos(10));
    assert_eq!(peer.confirmed(5), 5);
}

#[test]
fn a_round_trip_longer_than_assumed_is_learnt_though_its_frames_were_given_up() {
    let mut peer = peer();
    let (interval, trip) = (Nanos::from_millis(10), Nanos::from_millis(500));
    for tick in 1..=200u64 {
        let now = interval.times(tick);
        peer.next_header(now, WORD, Some(cargo(tick, tick)));
        if let Some(high) = tick.checked_sub(50).filter(|high| *high > 0) {
            peer.confirm(&ack(high, u64::MAX), true, 3, now);
        }
        peer.expire(now, interval);
    }
    let learnt = peer.round_trip();
    assert!(learnt > Nanos::from_millis(450) && learnt <= trip, "{learnt:?}");
}

#[test]
fn confirmations_of_another_run_or_of_frames_never_sent_are_ignored() {
    let mut peer = peer();
    send(&mut peer, 1);
    peer.confirm(&Ack { of: 2, ..ack(1, 0) }, true, 3, Nanos(10));
    peer.confirm(&ack(9, u64::MAX), true, 3, Nanos(10));
    assert_eq!(peer.confirmed(1), 0);
}

#[test]
fn a_late_confirmation_makes_nothing_known_that_was_heard_after_it() {
    let mut peer = peer();
    for tick in 1..=3 {
        send(&mut peer, tick);
    }
    peer.confirm(&ack(3, 0b11), false, 3, Nanos(10));
    assert_eq!(peer.confirmed(3), 0, "what the peer had told before is missing");
    peer.confirm(&ack(2, 0b1), true, 3, Nanos(10));
    assert_eq!(peer.confirmed(3), 2);
    peer.confirm(&ack(3, 0b11), true, 3, Nanos(10));
    assert_eq!(peer.confirmed(3), 3);
}

#[test]
fn what_a_later_frame_said_again_is_confirmed_only_with_that_frame() {
    let mut peer = peer();
    for tick in 1..=3 {
        peer.next_header(Nanos(tick), WORD, Some(cargo(tick, 1)));
    }
    peer.confirm(&ack(3, 0), false, 3, Nanos(10));
    assert_eq!(peer.confirmed(3), 0, "it was received, but what the peer had told before is missing");
    peer.confirm(&ack(3, 0), true, 3, Nanos(10));
    assert_eq!(peer.confirmed(3), 3);
}
