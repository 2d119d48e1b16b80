//! Whatever the network does, all nodes end with the same counts, and with nothing once it is quiet.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Cluster, MS, limits, limits_on};
use spillgate_core::decision::LimitRef;
use spillgate_core::limit::{Accuracy, Algorithm, OnPartition};
use spillgate_core::node::Told;
use spillgate_core::view::Explanation;

fn explain(cluster: &Cluster, i: usize, key: &str) -> Option<Explanation> {
    cluster.node(i).explain(LimitRef::Named("api"), key, cluster.present()).expect("the limit is known")
}

fn level(cluster: &Cluster, i: usize, key: &str) -> f64 {
    explain(cluster, i, key).map_or(f64::NAN, |e| e.level)
}

/// What the nodes hold of each replica's counters of the key: one value each, if they agree. A replica's own refunds
/// count from where it began, which it tells nobody before it refunds.
fn counts(cluster: &Cluster, key: &str) -> BTreeMap<String, BTreeSet<(u64, Option<u64>)>> {
    let mut held: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for i in 0..cluster.nodes.len() {
        for (place, count) in explain(cluster, i, key).map_or_else(Vec::new, |e| e.replicas).into_iter().enumerate() {
            let refunded = (place > 0).then_some(count.refunded);
            held.entry(count.replica.to_string()).or_default().insert((count.granted, refunded));
        }
    }
    // a replica that has only listened holds a start of its own, and nobody else holds anything of it
    held.retain(|_, values| values.iter().any(|(_, refunded)| refunded.is_some()));
    held
}

/// Loss, duplication and reordering, refunds among them.
#[test]
fn any_loss_order_and_repetition_of_frames_ends_in_the_same_counts() {
    for seed in 1..=10 {
        let n = 2 + (seed as usize % 4);
        let limits = limits(Algorithm::TokenBucket, "1/d", Some(1_000_000), Accuracy::Gossip);
        let mut cluster = Cluster::new(n, limits, 3 * MS, 0.3, seed);
        cluster.duplication = 0.2;
        cluster.jitter = 40 * MS;
        cluster.settle();
        let keys: Vec<String> = (0..50).map(|k| format!("k{k}")).collect();
        let mut spent = vec![0i64; keys.len()];
        let mut refunded = vec![0.0; keys.len()];
        for _ in 0..1500 {
            let step = cluster.random.below(2 * MS);
            cluster.run(cluster.now + step);
            let i = usize::try_from(cluster.random.below(n as u64)).expect("small");
            let k = usize::try_from(cluster.random.below(keys.len() as u64)).expect("small");
            let cost = 1 + cluster.random.below(20);
            if cluster.random.below(10) == 0 {
                let back = cluster.node(i).refund(LimitRef::Named("api"), &keys[k], cost, cluster.present());
                let back = back.expect("a refund").refunded;
                spent[k] -= i64::try_from(back).expect("small");
                refunded[k] += back as f64;
            } else if cluster.check(i, &keys[k], cost).allowed {
                spent[k] += i64::try_from(cost).expect("small");
            }
        }
        // every frame may be lost three times in ten: a minute is many times what that takes
        cluster.run(cluster.now + 5_000 * MS);
        for ((key, spent), refunded) in keys.iter().zip(&spent).zip(&refunded) {
            let left = 1_000_000.0 - *spent as f64;
            for (replica, values) in counts(&cluster, key) {
                let granted: BTreeSet<u64> = values.iter().map(|v| v.0).collect();
                let refunded: BTreeSet<u64> = values.iter().filter_map(|v| v.1).collect();
                assert!(granted.len() == 1 && refunded.len() == 1, "seed {seed}: {key} of {replica}: {values:?}");
            }
            for i in 0..n {
                let level = level(&cluster, i, key);
                // a refund that overtook the charges it is of finds less to give back: never more than is left
                let lost = if i == 0 && *refunded == 0.0 { 0.0 } else { *refunded };
                let fits = level <= left + 0.01 && level >= left - lost - 0.01;
                assert!(fits, "seed {seed}: node {i} has {level} of {key}, {left} are left, {refunded} were refunded");
            }
        }
    }
}

#[test]
fn a_reset_is_one_for_all_nodes_and_windows() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow]
    {
        let burst = (!algorithm.windowed()).then_some(100);
        let mut cluster = Cluster::new(3, limits(algorithm, "100/d", burst, Accuracy::Gossip), MS, 0.1, 4);
        cluster.settle();
        for i in 0..3 {
            assert!(cluster.check(i, "k", 20 + i as u64).allowed);
        }
        cluster.run(cluster.now + 1000 * MS);
        assert!((level(&cluster, 2, "k") - 37.0).abs() < 0.1, "{algorithm:?}");
        let reset = cluster.node(1).reset(LimitRef::Named("api"), "k", cluster.present()).expect("a reset");
        assert_eq!(reset.remaining, 100, "{algorithm:?}");
        cluster.run(cluster.now + 1000 * MS);
        for i in 0..3 {
            let left = explain(&cluster, i, "k").map_or(100.0, |e| e.level);
            assert!((left - 100.0).abs() < 0.1, "{algorithm:?}: node {i} has {left}");
        }
    }
}

/// Keys come and go; what holds no information takes no memory, on any node.
#[test]
fn a_quiet_cluster_keeps_nothing() {
    let mut cluster =
        Cluster::new(3, limits(Algorithm::TokenBucket, "100/s", Some(10), Accuracy::default()), 2 * MS, 0.05, 6);
    cluster.settle();
    for k in 0..500 {
        cluster.run(cluster.now + MS);
        cluster.check(k % 3, &format!("k{k}"), 3);
    }
    assert!(cluster.node(0).len() > 200);
    // quiet for as long as counters are kept, and once around the shards
    cluster.run(cluster.now + 12_000 * MS);
    for i in 0..3 {
        assert_eq!(cluster.node(i).len(), 0, "node {i} still keeps keys");
    }
    let frames = cluster.frames;
    cluster.run(cluster.now + 1000 * MS);
    // a keep-alive each 50 ms to two peers, and nothing else
    assert!(cluster.frames - frames <= 3 * 2 * 21, "{} frames in a quiet second", cluster.frames - frames);
}

/// A key that comes back after it was forgotten counts from there, not from its history.
#[test]
fn a_key_that_comes_back_starts_full_everywhere() {
    let mut cluster = Cluster::new(2, limits(Algorithm::TokenBucket, "100/s", Some(100), Accuracy::Gossip), MS, 0.0, 8);
    cluster.settle();
    for round in 0..3 {
        for _ in 0..5 {
            assert!(cluster.check(0, "k", 20).allowed, "round {round}");
        }
        cluster.run(cluster.now + 100 * MS);
        let expected = 100.0 * 0.1;
        assert!((level(&cluster, 1, "k") - expected).abs() < 3.0, "round {round}: {}", level(&cluster, 1, "k"));
        cluster.run(cluster.now + 12_000 * MS);
    }
}

fn transfer(cluster: &Cluster, from: usize, to: usize) -> usize {
    let mut keys = 0;
    for chunk in cluster.node(from).state_chunks(cluster.present()) {
        let told = cluster.node(to).handle_message(&chunk, true, cluster.present());
        assert!(matches!(told, Ok(Told::State { .. })), "{told:?}");
        if let Ok(Told::State { keys: more, .. }) = told {
            keys += more;
        }
    }
    keys
}

/// A restarted node has forgotten all; its peers' tables bring it back, and nobody gets a fresh quota. What it may have
/// granted that nobody heard of is charged: all it was entitled to under a strict limit, what is likely under a bounded one.
#[test]
fn a_restarted_node_catches_up_and_gives_nobody_a_fresh_quota() {
    let algorithms = [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];
    for (algorithm, accuracy) in algorithms.iter().flat_map(|a| [(*a, Accuracy::Strict), (*a, Accuracy::default())]) {
        let strict = accuracy == Accuracy::Strict;
        let burst = (!algorithm.windowed()).then_some(100);
        let mut cluster = Cluster::new(3, limits(algorithm, "100/d", burst, accuracy), MS, 0.0, 2);
        cluster.settle();
        let mut granted = 0;
        for _ in 0..60 {
            cluster.run(cluster.now + 5 * MS);
            granted += u64::from(cluster.check(0, "k", 1).allowed);
        }
        // for a second it claims its weight, and is likely to have granted as much as before
        cluster.run(cluster.now + if strict { 500 } else { 1500 } * MS);
        assert!(granted >= 55, "{algorithm:?}: {granted}");
        cluster.crash(0);
        cluster.run(cluster.now + 50 * MS);
        cluster.start(0);
        assert!(!cluster.check(0, "k", 1).allowed, "{algorithm:?}: not counted in yet, so no weight");
        assert_eq!(transfer(&cluster, 1, 0), 1);
        cluster.settle();
        let left = level(&cluster, 0, "k");
        let known = 100.0 - granted as f64;
        let lost = if strict { known..=known + 1.5 } else { 0.0..=1.5 };
        assert!(lost.contains(&(known - left).abs()), "{algorithm:?} {accuracy:?}: {left} left after {granted}");
        for _ in 0..200 {
            cluster.run(cluster.now + 5 * MS);
            for i in 0..3 {
                granted += u64::from(cluster.check(i, "k", 1).allowed);
            }
        }
        // bounded may be 5 % over
        let expected = if strict { 55..=100 } else { 94..=105 };
        assert!(expected.contains(&granted), "{algorithm:?} {accuracy:?}: {granted} of 100");
    }
}

/// Who says goodbye has told all; who is replaced without one may have granted its share of a full bucket unheard.
#[test]
fn who_is_replaced_takes_its_window_along_and_who_leaves_does_not() {
    for lost in [false, true] {
        let limits = limits(Algorithm::TokenBucket, "1/366d", Some(100), Accuracy::Strict);
        let mut cluster = Cluster::new(2, limits, MS, 0.0, 3);
        cluster.settle();
        assert!(cluster.check(0, "k", 10).allowed);
        cluster.run(cluster.now + 500 * MS);
        let (stays, gone) = (cluster.node(1), cluster.node(0).replica().clone());
        if lost {
            stays.peer_lost(&gone, cluster.present());
        } else {
            stays.peer_left(&gone, cluster.present());
        }
        let left = level(&cluster, 1, "k").round();
        assert!(if lost { left <= 40.0 } else { left == 90.0 }, "lost {lost}: {left}");
    }
}

/// Under traffic below the limit a restarted node, or one that stood still, ends where its peers are: not in the debt of
/// all that was charged while it was away.
#[test]
fn a_node_that_was_away_under_traffic_ends_where_its_peers_are() {
    for restarted in [true, false] {
        let limits = limits(Algorithm::TokenBucket, "100/s", Some(200), Accuracy::default());
        let mut cluster = Cluster::new(3, limits, MS, 0.0, 7);
        cluster.settle();
        let traffic = |cluster: &mut Cluster, millis: u64| {
            for i in 0..millis / 15 {
                cluster.run(cluster.now + 15 * MS);
                assert!(cluster.check(1 + (i % 2) as usize, "k", 1).allowed);
            }
        };
        traffic(&mut cluster, 3000);
        if restarted {
            cluster.crash(0);
            traffic(&mut cluster, 1000);
            cluster.start(0);
            // first words come before the table does
            traffic(&mut cluster, 100);
        } else {
            cluster.pause(0, 5000);
            traffic(&mut cluster, 5300);
            cluster.node(0).doubt();
        }
        for from in [1, 2] {
            transfer(&cluster, from, 0);
        }
        traffic(&mut cluster, 500);
        let (own, theirs) = (level(&cluster, 0, "k"), level(&cluster, 1, "k"));
        assert!((own - theirs).abs() < 5.0, "restarted {restarted}: {own} beside {theirs}");
    }
}

/// Transfers from several peers, in any order, again and again, and mixed with news: the lowest level, charged once.
#[test]
fn transfers_never_charge_twice() {
    let mut cluster =
        Cluster::new(4, limits(Algorithm::TokenBucket, "1/d", Some(1000), Accuracy::Gossip), 5 * MS, 0.1, 11);
    cluster.settle();
    for round in 0..40u64 {
        cluster.run(cluster.now + 3 * MS);
        let i = usize::try_from(round % 4).expect("small");
        assert!(cluster.check(i, "k", 5).allowed);
        let from = usize::try_from(cluster.random.below(4)).expect("small");
        let to = (from + 1) % 4;
        transfer(&cluster, from, to);
    }
    cluster.run(cluster.now + 3000 * MS);
    for i in 0..4 {
        let left = level(&cluster, i, "k");
        // a transferred level is rounded up to whole tokens against the caller, once a transfer at most
        assert!((left - 800.0).abs() < 1.5, "node {i}: {left}");
    }
}

/// Cut in two, each side goes on with its shares; healed, all agree again and nothing was over.
#[test]
fn the_sides_of_a_partition_stay_within_the_limit_together() {
    for seed in 1..=8 {
        let mut cluster = Cluster::new(
            4,
            limits_on(Algorithm::TokenBucket, "1000/s", Some(1000), Accuracy::Strict, OnPartition::Share),
            MS,
            0.0,
            seed,
        );
        cluster.settle();
        let before = common::offer(&mut cluster, 1000.0, 1000.0, 2.0, &[1.0; 4], 1000);
        assert_eq!(before.over, 0.0);
        for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            cluster.cut.extend([(a, b), (b, a)]);
        }
        let split = common::offer(&mut cluster, 1000.0, 1000.0, 2.0, &[1.0; 4], 6000);
        // the bucket was empty before, and the oracle's is full: 6000 of 7000 is all there is to have
        assert!(split.over <= 0.0, "seed {seed}: {split:?}");
        assert!(split.utilisation > 0.85 * 6.0 / 7.0, "seed {seed}: {split:?}");
        cluster.cut.clear();
        cluster.settle();
        // what was assumed too much comes back with the refill, within a second
        cluster.run(cluster.now + 500 * MS);
        let healed = common::offer(&mut cluster, 1000.0, 1000.0, 2.0, &[1.0; 4], 3000);
        assert!(healed.over <= 0.0 && healed.utilisation > 0.95, "seed {seed}: {healed:?}");
    }
}

#[test]
fn on_partition_is_obeyed() {
    let run = |on_partition| {
        let limits = limits_on(Algorithm::TokenBucket, "100/s", Some(100), Accuracy::Strict, on_partition);
        let mut cluster = Cluster::new(2, limits, MS, 0.0, 5);
        cluster.settle();
        // equal demand, so equal shares
        common::offer(&mut cluster, 100.0, 100.0, 3.0, &[1.0; 2], 500);
        cluster.cut = vec![(0, 1), (1, 0)];
        let asked = |cluster: &mut Cluster, times: usize| {
            let ask = |_| {
                cluster.run(cluster.now + 5 * MS);
                cluster.check(0, "k", 1).allowed
            };
            (0..times).map(ask).filter(|allowed| *allowed).count()
        };
        asked(&mut cluster, 200);
        let dead = cluster.node(1).replica().clone();
        cluster.node(0).peer_dead(&dead, cluster.present());
        asked(&mut cluster, 400)
    };
    assert_eq!(run(OnPartition::Deny), 0);
    // two seconds of half the rate, or of all of it and what the dead had left
    let share = run(OnPartition::Share);
    assert!((85..=115).contains(&share), "{share}");
    let all = run(OnPartition::Continue);
    assert!((190..=255).contains(&all), "{all}");
}

/// A table speaks for other replicas too: who sends one unasked could poison their counters.
#[test]
fn a_table_that_nobody_asked_for_is_not_believed() {
    let mut cluster = Cluster::new(2, limits(Algorithm::TokenBucket, "1/d", Some(100), Accuracy::Gossip), MS, 0.0, 1);
    cluster.settle();
    assert!(cluster.check(0, "k", 60).allowed);
    let chunk = cluster.node(0).state_chunks(cluster.present()).next().expect("a table has at least one part");
    let told = cluster.node(1).handle_message(&chunk, false, cluster.present());
    assert_eq!(told, Ok(Told::Unasked));
    assert!(explain(&cluster, 1, "k").is_none(), "node 1 took in what it had not asked for");
}

/// One that stood still asks its peers where they are, and one of them may just be joining: all that this one knows by itself
/// is that nobody told it of any charge.
#[test]
fn who_stood_still_does_not_take_a_joiner_for_one_that_knows_better() {
    let limits = limits(Algorithm::TokenBucket, "1/d", Some(100), Accuracy::default());
    let mut cluster = Cluster::new(2, limits, MS, 0.0, 3);
    cluster.settle();
    let mut granted = 0;
    while granted < 60 {
        cluster.run(cluster.now + 5 * MS);
        granted += u64::from(cluster.check(0, "k", 1).allowed);
    }
    cluster.run(cluster.now + 2000 * MS);
    cluster.crash(0);
    cluster.start(0);
    cluster.node(0).hold(cluster.present());
    assert!(!cluster.check(0, "k", 1).allowed, "it has no table yet");
    cluster.run(cluster.now + 500 * MS);
    cluster.node(1).doubt();
    cluster.bring(0, 1);
    let left = level(&cluster, 1, "k");
    assert!(left <= 40.1, "{left} where it stayed");
    cluster.bring(1, 0);
    cluster.node(0).release(cluster.present());
    let left = level(&cluster, 0, "k");
    assert!(left <= 40.1, "{left} at the joiner");
}
