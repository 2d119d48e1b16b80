use super::*;

fn replica(node: &str, incarnation: u64) -> ReplicaId {
    ReplicaId { node: node.into(), incarnation }
}

fn links() -> Links {
    let pace = Pace {
        interval: Nanos::from_millis(10),
        stale_after: Nanos::from_millis(200),
        forget_after: Nanos::from_secs(60),
    };
    Links::new(replica("a", 1), pace, false)
}

#[test]
fn a_restarted_node_takes_the_place_of_its_forerunner_and_no_late_word_brings_that_back() {
    let mut links = links();
    assert_eq!(links.meet(Nanos::ZERO, &replica("b", 1)), None);
    let old = links.find(&replica("b", 1)).expect("met").slot;
    assert_eq!(links.meet(Nanos::ZERO, &replica("b", 2)), Some(old));
    assert_ne!(links.find(&replica("b", 2)).expect("met").slot, old);
    links.meet(Nanos::ZERO, &replica("b", 1));
    assert!(links.find(&replica("b", 1)).is_none());
    links.part(&replica("b", 2));
    links.meet(Nanos::ZERO, &replica("b", 2));
    assert!(links.peers.is_empty());
}

#[test]
fn a_node_is_never_its_own_peer() {
    let mut links = links();
    links.meet(Nanos::ZERO, &replica("a", 2));
    assert!(links.peers.is_empty());
}

#[test]
fn a_peer_that_never_speaks_is_forgotten_in_the_end() {
    let mut links = links();
    links.meet(Nanos::ZERO, &replica("b", 1));
    assert!(links.judge(Nanos::from_secs(59)).is_empty());
    assert_eq!(links.judge(Nanos::from_secs(61)), vec![replica("b", 1)]);
}

/// All that a peer says which counts this node and `members`, and has told it everything.
fn speaks(links: &mut Links, replica: &ReplicaId) {
    let members = links.members;
    let peer = links.find(replica).expect("met");
    (peer.spoke, peer.includes_us, peer.members) = (true, true, Some(members));
}

#[test]
fn a_joiner_waits_for_those_that_others_count_and_it_never_met() {
    let mut links = links();
    let (met, unmet) = (replica("b", 1), replica("c", 1));
    links.meet(Nanos::ZERO, &met);
    links.learn_of(Nanos::ZERO, std::slice::from_ref(&unmet));
    speaks(&mut links, &met);
    links.judge(Nanos::ZERO);
    assert!(!links.admitted, "c may be cut off, and does not leave it any share");
    links.meet(Nanos::ZERO, &unmet);
    links.judge(Nanos::ZERO);
    assert!(!links.admitted, "c has not spoken");
    speaks(&mut links, &unmet);
    links.judge(Nanos::ZERO);
    assert!(links.admitted);
}

#[test]
fn whoever_waited_in_vain_takes_those_it_never_met_for_silent_until_they_are_in_step() {
    let mut links = links();
    let (met, unmet) = (replica("b", 1), replica("c", 1));
    links.meet(Nanos::ZERO, &met);
    links.learn_of(Nanos::ZERO, std::slice::from_ref(&unmet));
    speaks(&mut links, &met);
    links.give_up_waiting();
    links.judge(Nanos::ZERO);
    assert!(links.admitted);
    links.meet(Nanos::ZERO, &unmet);
    assert_eq!(links.outlook(Nanos::ZERO).silent, 1, "what this node spends c has not heard of");
}
