//! The relay itself, between plain sockets.

use super::*;
use tokio::time::timeout;

/// Far longer than loopback takes.
const LONG: Duration = Duration::from_secs(10);
/// So many datagrams are sent to see chances at work.
const MANY: u8 = 200;

/// Two plain sockets, a and b, with a relay between them.
async fn two(seed: u64) -> (Relay, UdpSocket, UdpSocket) {
    let mut relay = Relay::new(seed);
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    for (name, socket) in [("a", &a), ("b", &b)] {
        relay.open(name).await;
        relay.place(name, socket.local_addr().unwrap());
    }
    (relay, a, b)
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 64];
    let (length, from) = timeout(LONG, socket.recv_from(&mut buffer)).await.expect("it comes").unwrap();
    (buffer[..length].to_vec(), from)
}

/// Sends a numbered row from a to b and says which came, in the order of coming.
async fn row(relay: &Relay, a: &UdpSocket, b: &UdpSocket) -> Vec<u8> {
    let mut came = Vec::new();
    for n in 0..MANY {
        let before = relay.fates("a", "b");
        a.send_to(&[n], relay.address("b")).await.unwrap();
        let fates = loop {
            let fates = relay.fates("a", "b");
            if fates.offered > before.offered {
                break fates;
            }
            tokio::task::yield_now().await;
        };
        let copies = 1 + fates.doubled - before.doubled - (fates.lost - before.lost) - (fates.cut - before.cut);
        for _ in 0..copies {
            came.push(receive(b).await.0[0]);
        }
    }
    came
}

#[tokio::test]
async fn each_end_sees_the_other_at_its_address_whoever_begins() {
    let (relay, a, b) = two(1).await;
    a.send_to(b"hello", relay.address("b")).await.unwrap();
    assert_eq!(receive(&b).await, (b"hello".to_vec(), relay.address("a")));
    b.send_to(b"well met", relay.address("a")).await.unwrap();
    assert_eq!(receive(&a).await, (b"well met".to_vec(), relay.address("b")));
}

#[tokio::test]
async fn what_a_node_sends_before_it_is_placed_is_kept() {
    let (mut relay, _a, b) = two(1).await;
    let c = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = relay.open("c").await;
    c.send_to(b"early", relay.address("b")).await.unwrap();
    relay.place("c", c.local_addr().unwrap());
    assert_eq!(receive(&b).await, (b"early".to_vec(), address));
}

#[tokio::test]
async fn one_seed_has_one_fate() {
    let path = Path { loss: 0.3, duplication: 0.2, ..Path::default() };
    let mut rows = Vec::new();
    for seed in [7, 7, 8] {
        let (relay, a, b) = two(seed).await;
        relay.set_all(path);
        rows.push(row(&relay, &a, &b).await);
        let fates = relay.fates("a", "b");
        assert!((30..90).contains(&fates.lost) && (10..60).contains(&fates.doubled), "{fates:?}");
        assert_eq!(relay.fates("b", "a"), Fates::default());
    }
    assert_eq!(rows[0], rows[1]);
    assert_ne!(rows[0], rows[2]);
}

#[tokio::test]
async fn a_cut_is_of_one_direction_until_it_is_healed() {
    let (relay, a, b) = two(1).await;
    relay.cut("a", "b");
    assert!(row(&relay, &a, &b).await.is_empty());
    b.send_to(b"still here", relay.address("a")).await.unwrap();
    assert_eq!(receive(&a).await.0, b"still here");
    relay.split(&["a"], &["b"]);
    b.send_to(b"lost", relay.address("a")).await.unwrap();
    while relay.fates("b", "a").cut == 0 {
        tokio::task::yield_now().await;
    }
    relay.heal();
    assert_eq!(row(&relay, &a, &b).await.len(), usize::from(MANY));
    b.send_to(b"back", relay.address("a")).await.unwrap();
    assert_eq!(receive(&a).await.0, b"back");
}

#[tokio::test]
async fn a_delay_keeps_the_order_and_jitter_does_not() {
    let (relay, a, b) = two(1).await;
    for (jitter, in_order) in [(0, true), (30, false)] {
        relay.set("a", "b", Path { jitter: Duration::from_millis(jitter), ..Path::delayed(20) });
        let start = Instant::now();
        for n in 0..50 {
            a.send_to(&[n], relay.address("b")).await.unwrap();
        }
        let mut came = Vec::new();
        for _ in 0..50 {
            came.push(receive(&b).await.0[0]);
            assert!(start.elapsed() >= Duration::from_millis(20));
        }
        assert_eq!(came.is_sorted(), in_order, "{came:?}");
    }
}

#[tokio::test]
async fn it_keeps_what_was_sent_when_asked_to() {
    let (relay, a, b) = two(1).await;
    relay.record();
    relay.cut("a", "b");
    row(&relay, &a, &b).await;
    let first = Datagram { from: "a".to_owned(), to: "b".to_owned(), bytes: vec![0] };
    assert_eq!((relay.recorded().len(), &relay.recorded()[0]), (usize::from(MANY), &first));
}
