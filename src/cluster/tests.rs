//! Real clusters on loopback: each node in a runtime of its own, so that ending the runtime is a crash that says
//! nothing to anybody.

mod intruders;
mod nodes;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use nodes::{Event, Node, OLD, Setup, replica, until};
use spillgate_core::view::ReplicaId;

use super::link::{self, Tag};
use super::{Cluster, ClusterError, Member, MemberState};

fn states(node: &Node) -> Vec<(ReplicaId, MemberState)> {
    node.cluster().members().into_iter().map(|Member { replica, state, .. }| (replica, state)).collect()
}

#[test]
fn three_nodes_meet_and_frames_and_messages_name_their_sender() {
    let a = Setup::new("a").start();
    let b = Setup::new("b").seed(&a).start();
    // c knows b only, and learns of a from it
    let c = Setup::new("c").seed(&b).start();
    let nodes = [&a, &b, &c];
    for node in nodes {
        for peer in nodes.iter().filter(|peer| peer.id() != node.id()) {
            node.sees(&Event::Up(peer.id(), peer.cluster().advertised_addr()));
        }
    }
    let room = a.cluster().frame_bytes_max();
    assert!(room >= 1150, "{room}");
    until("a frame of full size arrives at c", || {
        a.cluster().send_frame(&c.id(), vec![7; room]);
        c.inbox.has(&Event::Frame(a.id(), vec![7; room]))
    });
    for size in [0, 1, 100_000, Setup::MESSAGE_BYTES_MAX] {
        b.send(&a, vec![size as u8; size]).unwrap();
        a.sees(&Event::Message(b.id(), vec![size as u8; size]));
    }
    for node in nodes {
        let others: Vec<_> =
            nodes.iter().filter(|peer| peer.id() != node.id()).map(|peer| (peer.id(), MemberState::Alive)).collect();
        assert_eq!(states(node), others);
        assert_eq!(node.inbox.ups(), 2, "{:?}", node.inbox.events());
    }
}

#[test]
fn a_message_over_the_limit_is_refused_at_either_end() {
    let a = Setup::new("a").start();
    let b = Setup { message_bytes_max: 1000, ..Setup::new("b").seed(&a) }.start();
    a.meets(&b);
    let error = b.send(&a, vec![0; 1001]).unwrap_err();
    assert!(matches!(error, ClusterError::MessageTooLarge { bytes: 1001, bytes_max: 1000 }), "{error}");
    // larger than a's flow control lets through at once, so that b's refusal comes in time to be told
    let error = a.send(&b, vec![0; Setup::MESSAGE_BYTES_MAX]).unwrap_err();
    assert!(matches!(error, ClusterError::NotDelivered { .. }), "{error}");
    a.send(&b, vec![1; 1000]).unwrap();
    b.sees(&Event::Message(a.id(), vec![1; 1000]));
    assert!(!b.inbox.events().iter().any(|event| matches!(event, Event::Message(_, bytes) if bytes.len() > 1000)));
    let nobody = replica("nobody", 1);
    let error = a.runtime().block_on(a.cluster().send_message(&nobody, vec![1])).unwrap_err();
    assert!(matches!(error, ClusterError::NotConnected { .. }), "{error}");
    a.cluster().send_frame(&nobody, vec![1]);
}

#[test]
fn a_message_given_up_midway_never_arrives_in_part() {
    let a = Setup::new("a").start();
    let b = Setup::new("b").seed(&a).start();
    a.meets(&b);
    for _ in 0..20 {
        // polled once: the part that flow control lets through is on its way
        let sent = a.runtime().block_on(async {
            tokio::time::timeout(Duration::ZERO, a.cluster().send_message(&b.id(), vec![1; Setup::MESSAGE_BYTES_MAX]))
                .await
        });
        assert!(sent.is_err(), "eight megabytes were delivered at once");
        a.send(&b, vec![2; 2_000_000]).unwrap();
    }
    until("the messages sent after those arrive", || b.inbox.events().len() == 21);
    assert!(
        !b.inbox.events().iter().any(|event| matches!(event, Event::Message(_, bytes) if bytes.first() == Some(&1)))
    );
}

#[test]
fn what_is_sent_on_peer_up_is_heard_though_the_other_end_is_not_there_yet() {
    let a = Setup { greets: true, ..Setup::new("a") }.start();
    let b = Setup { greets: true, ..Setup::new("b").seed(&a) }.start();
    a.sees(&Event::Message(b.id(), b"hello".to_vec()));
    b.sees(&Event::Message(a.id(), b"hello".to_vec()));
}

#[test]
fn who_leaves_is_gone_at_once_and_not_dead() {
    let a = Setup::new("a").start();
    let mut b = Setup::new("b").seed(&a).start();
    let c = Setup::new("c").seed(&a).start();
    for (one, other) in [(&a, &b), (&a, &c), (&b, &c)] {
        one.meets(other);
    }
    let last = vec![9; 200_000];
    b.send(&a, last.clone()).unwrap();
    let left = Event::Left(b.id());
    let leaving = std::time::Instant::now();
    b.leave();
    assert!(leaving.elapsed() < Duration::from_secs(6), "{:?}", leaving.elapsed());
    for node in [&a, &c] {
        node.sees(&left);
        assert!(!node.inbox.has(&Event::Dead(b.id())), "{:?}", node.inbox.events());
        assert!(states(node).contains(&(b.id(), MemberState::Left)), "{:?}", states(node));
    }
    let events = a.inbox.events();
    let place = |event: &Event| events.iter().position(|other| other == event);
    assert!(place(&Event::Message(b.id(), last)) < place(&left), "the last message came before the goodbye");

    let again = Setup { incarnation: 2, ..Setup::new("b").seed(&a) }.start();
    a.meets(&again);
    assert!(states(&a).contains(&(again.id(), MemberState::Alive)));
}

#[test]
fn a_goodbye_does_not_overtake_a_message() {
    let a = Setup::new("a").start();
    let b = Setup::new("b").seed(&a).start();
    a.meets(&b);
    let link = b.cluster().shared.mesh.registry.link(&a.id()).unwrap();
    b.runtime().block_on(async {
        let mut stream = link.connection.open_uni().await.unwrap();
        stream.write_all(&[Tag::Message as u8, 1]).await.unwrap();
        link::send(&link, Tag::Goodbye, &[]).await.unwrap();
        stream.write_all(&[2]).await.unwrap();
        stream.finish().unwrap();
    });
    a.sees(&Event::Left(b.id()));
    assert!(a.inbox.has(&Event::Message(b.id(), vec![1, 2])), "{:?}", a.inbox.events());
}

#[test]
fn a_crash_is_noticed_and_a_new_run_takes_the_place_of_the_old() {
    let mut a = Setup::new("a").start();
    let b = Setup::new("b").seed(&a).start();
    let c = Setup::new("c").seed(&a).start();
    for (one, other) in [(&a, &b), (&a, &c), (&b, &c)] {
        one.meets(other);
    }
    let (old, port) = (a.id(), a.cluster().local_addr());
    let to_old = b.cluster().shared.mesh.registry.link(&old).unwrap().connection;
    a.crash();
    for node in [&b, &c] {
        node.sees(&Event::Dead(old.clone()));
        assert!(states(node).contains(&(old.clone(), MemberState::Dead)), "{:?}", states(node));
    }
    // it was the others' seed and has none itself: they must come back to it
    let again = Setup { incarnation: 2, listen: port, ..Setup::new("a") }.start();
    for node in [&b, &c] {
        node.meets(&again);
        let about_a = node.inbox.events_of("a");
        let up = |id| Event::Up(id, port);
        assert_eq!(about_a, [up(old.clone()), Event::Dead(old.clone()), Event::Lost(old.clone()), up(again.id())]);
        again.send(node, b"new".to_vec()).unwrap();
        node.sees(&Event::Message(again.id(), b"new".to_vec()));
    }
    assert_eq!(again.inbox.ups(), 2);
    // the new run ended the old one's connections: nobody had to wait until they timed out
    let reason = to_old.close_reason();
    assert!(matches!(reason, Some(quinn::ConnectionError::Reset)), "{reason:?}");
}

#[test]
fn a_new_run_before_the_old_one_is_missed_ends_it_too() {
    let a = Setup::new("a").start();
    let mut b = Setup::new("b").seed(&a).start();
    a.meets(&b);
    let (old, port) = (b.id(), b.cluster().local_addr());
    b.crash();
    let again = Setup { incarnation: 2, listen: port, ..Setup::new("b").seed(&a) }.start();
    a.meets(&again);
    let about_b: Vec<_> = a.inbox.events_of("b").into_iter().filter(|event| !matches!(event, Event::Dead(_))).collect();
    assert_eq!(about_b, [Event::Up(old.clone(), port), Event::Lost(old), Event::Up(again.id(), port)]);
}

#[test]
fn dropping_the_last_handle_ends_the_node_and_frees_the_port() {
    let a = Setup::new("a").start();
    let mut b = Setup::new("b").seed(&a).start();
    a.meets(&b);
    let port = b.cluster().local_addr();
    b.drop_cluster();
    a.sees(&Event::Dead(b.id()));
    until("the port is free", || UdpSocket::bind(port).is_ok());
}

#[test]
fn of_two_connections_dialed_at_once_one_stays() {
    let (a, b) = (Setup::new("a").bind(), Setup::new("b").bind());
    let (to_a, to_b) = (a.cluster().local_addr(), b.cluster().local_addr());
    let (a_mesh, b_mesh) = (a.cluster().shared.mesh.clone(), b.cluster().shared.mesh.clone());
    a.begin();
    b.begin();
    a.runtime().block_on(async { a_mesh.dial(to_b, None) });
    b.runtime().block_on(async { b_mesh.dial(to_a, None) });
    a.meets(&b);
    until("one connection is left", || [&a_mesh, &b_mesh].iter().all(|mesh| mesh.endpoint.open_connections() == 1));
    a.send(&b, b"still".to_vec()).unwrap();
    b.sees(&Event::Message(a.id(), b"still".to_vec()));
    assert_eq!((a.inbox.ups(), b.inbox.ups()), (1, 1));
}

#[test]
fn a_lost_connection_is_no_event_and_comes_back() {
    let a = Setup::new("a").start();
    let b = Setup::new("b").seed(&a).start();
    a.meets(&b);
    let lost = a.cluster().shared.mesh.registry.link(&b.id()).unwrap().connection;
    lost.close(super::code::LEFT, b"test");
    until("another connection carries messages", || a.send(&b, b"again".to_vec()).is_ok());
    b.sees(&Event::Message(a.id(), b"again".to_vec()));
    assert_eq!((a.inbox.events_of("b").len(), b.inbox.ups()), (1, 1), "{:?}", a.inbox.events());
}

#[test]
fn a_seed_by_name_may_come_later_and_be_this_node_itself() {
    let reserved = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = reserved.local_addr().unwrap();
    let b = Setup::new("b").seed_at(format!("localhost:{}", port.port())).start();
    drop(reserved);
    // its own address, once as it advertises it and once by another way
    let (own, around) = (port.to_string(), format!("127.0.0.2:{}", port.port()));
    let setup = Setup::new("a").seed_at(own).seed_at(around.clone()).seed_at("nowhere.invalid:1".into());
    let a = Setup { listen: ([0, 0, 0, 0], port.port()).into(), ..setup }.start();
    assert_eq!(a.cluster().advertised_addr(), port);
    a.meets(&b);
    let around = around.parse().unwrap();
    until("it met itself, and will not try again soon", || {
        a.cluster().shared.mesh.backoff(around) > Duration::from_secs(30)
    });
    assert_eq!(states(&a), [(b.id(), MemberState::Alive)]);
}

#[test]
fn membership_too_large_for_a_datagram_takes_a_stream() {
    // five ids of 250 bytes in each digest
    let long = |n: u32| format!("{n}-{}", "long".repeat(62));
    let first = Setup::new(&long(0)).start();
    let others: Vec<_> = (1..5).map(|n| Setup::new(&long(n)).seed(&first).start()).collect();
    for node in &others {
        until("everybody is up", || node.inbox.ups() == 4 && first.inbox.ups() == 4);
    }
    let stay = std::time::Instant::now() + Duration::from_secs(2);
    until("two seconds are over", || std::time::Instant::now() > stay);
    for node in &others {
        assert!(!node.inbox.events().iter().any(|event| matches!(event, Event::Dead(_))), "{:?}", node.inbox.events());
    }
}

#[test]
fn secrets_rotate_one_step_at_a_time_and_no_two() {
    let new = "the-new-secret-of-the-cluster";
    let steps = [OLD.to_owned(), format!("{OLD}\n{new}"), format!("{new}\n{OLD}"), new.to_owned()];
    for pair in steps.windows(2) {
        let a = Setup { secret: pair[0].clone(), ..Setup::new("a") }.start();
        let b = Setup { secret: pair[1].clone(), ..Setup::new("b").seed(&a) }.start();
        a.meets(&b);
    }
    let a = Setup { secret: steps[0].clone(), ..Setup::new("a") }.start();
    let b = Setup { secret: steps[2].clone(), ..Setup::new("b").seed(&a) }.start();
    stay_apart(&a, &b);
}

#[test]
fn another_secret_or_cluster_name_never_meets_and_learns_nothing() {
    let a = Setup::new("a").start();
    let friend = Setup::new("friend").seed(&a).start();
    a.meets(&friend);
    let stranger = Setup { secret: "another-secret-of-good-length".into(), ..Setup::new("stranger").seed(&a) }.start();
    let neighbour = Setup { name: "neighbour".into(), ..Setup::new("neighbour").seed(&a) }.start();
    stay_apart(&a, &stranger);
    stay_apart(&a, &neighbour);
    assert_eq!(states(&a), [(friend.id(), MemberState::Alive)]);
    assert_eq!((a.inbox.ups(), a.inbox.events_of("friend").len()), (1, 1));
}

/// Both have dialed the other and been refused, more than once, and neither has anything to tell.
fn stay_apart(a: &Node, b: &Node) {
    let refused = |node: &Node| node.cluster().shared.mesh.endpoint.stats();
    let to_b = b.cluster().local_addr();
    until("handshakes have failed both ways", || {
        let mesh = a.cluster().shared.mesh.clone();
        a.runtime().block_on(async { mesh.dial(to_b, None) });
        refused(a).outgoing_handshakes >= 2 && refused(b).outgoing_handshakes >= 2
    });
    until("no handshake is under way", || a.cluster().shared.mesh.registry.link_at(to_b).is_none());
    assert!(states(b).is_empty() && b.inbox.events().is_empty(), "{:?} {:?}", states(b), b.inbox.events());
    assert!(!states(a).iter().any(|(replica, _)| *replica == b.id()), "{:?}", states(a));
    assert!(b.send(a, vec![1]).is_err());
}

#[test]
fn one_id_used_twice_stays_with_the_process_that_is_up_whichever_clock_is_ahead() {
    for incarnation in [1, 3] {
        let a = Setup::new("a").start();
        let first = Setup { incarnation: 2, ..Setup::new("twin").seed(&a) }.start();
        a.meets(&first);
        // it knows nothing of the first, and is told by `a` where that is
        let second = Setup { incarnation, ..Setup::new("twin").seed(&a) }.start();
        let ended = second.ended();
        let address = first.cluster().advertised_addr();
        assert!(matches!(ended, ClusterError::Duplicate { address: at, .. } if at == address), "{ended}");
        assert!(second.cluster().is_refused() && second.inbox.events().is_empty());
        assert!(first.inbox.events_of("twin").is_empty() && !first.cluster().is_refused());
        assert_eq!(states(&a), [(first.id(), MemberState::Alive)]);
        assert_eq!(a.inbox.events(), [Event::Up(first.id(), address)]);
    }
}

/// A node that was out of reach finds that another was started in its place.
#[test]
fn of_two_that_each_were_up_the_one_without_peers_gives_way() {
    let a = Setup::new("a").start();
    let alone = Setup::new("twin").start();
    let newer = Setup { incarnation: 2, ..Setup::new("twin").seed(&a) }.start();
    a.meets(&newer);
    alone.runtime().block_on(async { alone.cluster().shared.mesh.dial(a.cluster().advertised_addr(), None) });
    let ended = alone.ended();
    assert!(matches!(ended, ClusterError::Duplicate { .. }), "{ended}");
    assert_eq!(states(&a), [(newer.id(), MemberState::Alive)]);
}

#[test]
fn a_node_whose_clock_went_back_is_taken_up_again() {
    let a = Setup::new("a").start();
    let mut b = Setup { incarnation: 9, ..Setup::new("b").seed(&a) }.start();
    a.meets(&b);
    b.crash();
    let again = Setup { incarnation: 3, ..Setup::new("b").seed(&a) }.start();
    a.meets(&again);
    a.sees(&Event::Lost(b.id()));
    assert_eq!(states(&a), [(again.id(), MemberState::Alive)]);
}

#[test]
fn certificates_from_files_join_nodes_by_their_names() {
    let authority = nodes::Authority::new();
    let a = Setup { credentials: Some(authority.issue("a")), ..Setup::new("a") }.start();
    let b = Setup { credentials: Some(authority.issue("b")), ..Setup::new("b").seed(&a) }.start();
    a.meets(&b);
    let other = nodes::Authority::new();
    let stranger = Setup { credentials: Some(other.issue("c")), ..Setup::new("c").seed(&a) }.start();
    stay_apart(&a, &stranger);
}

#[test]
fn what_cannot_be_bound_or_named_is_said() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port: SocketAddr = taken.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = |setup: Setup| runtime.block_on(Cluster::bind(setup.config())).err().unwrap().to_string();
    let error = refused(Setup { listen: port, ..Setup::new("a") });
    assert!(error.contains(&port.to_string()), "{error}");
    let error = refused(Setup::new("not a name"));
    assert!(error.contains("not a name"), "{error}");
    let error = refused(Setup::new(&"n".repeat(256)));
    assert!(error.contains("255"), "{error}");
    let error = refused(Setup { name: String::new(), ..Setup::new("a") });
    assert!(error.contains("cluster name"), "{error}");
}
