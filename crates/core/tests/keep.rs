//! What a node keeps over a restart: nothing that was spent is forgotten, and nothing is counted twice.

mod common;

use common::{Cluster, MS, limits};
use spillgate_core::decision::LimitRef;
use spillgate_core::limit::{Accuracy, Algorithm};
use spillgate_core::node::Restored;

const SECOND: u64 = 1000 * MS;
const HOUR: u64 = 3600 * SECOND;

fn level(cluster: &Cluster, i: usize, key: &str) -> f64 {
    let explained = cluster.node(i).explain(LimitRef::Named("api"), key, cluster.present()).expect("a limit");
    explained.map_or(f64::NAN, |e| e.level)
}

fn daily(algorithm: Algorithm, accuracy: Accuracy) -> spillgate_core::limit::Limits {
    let burst = (!algorithm.windowed()).then_some(1000);
    limits(algorithm, "1000/d", burst, accuracy)
}

/// Takes tokens one by one until there are so many.
fn spend(cluster: &mut Cluster, i: usize, key: &str, tokens: u64) {
    let mut spent = 0;
    for _ in 0..100 * tokens {
        if spent == tokens {
            return;
        }
        spent += u64::from(cluster.check(i, key, 1).allowed);
        cluster.run(cluster.now + 5 * MS);
    }
    assert_eq!(spent, tokens, "not granted in time");
}

/// All end at once and are started again after `down`; each asks all others for their tables, as a joiner does.
fn restart_all(cluster: &mut Cluster, snapshots: &[Vec<Vec<u8>>], down: u64) {
    for i in 0..snapshots.len() {
        cluster.crash(i);
    }
    cluster.run(cluster.now + down);
    for (i, slices) in snapshots.iter().enumerate() {
        cluster.start_from(i, slices);
    }
    // all at once: none has heard of another's table when it brings its own
    let tables: Vec<Vec<Vec<u8>>> = (0..snapshots.len()).map(|i| cluster.table(i)).collect();
    for to in 0..snapshots.len() {
        for table in tables.iter().enumerate().filter(|(from, _)| *from != to).map(|(_, table)| table) {
            cluster.take(to, table);
        }
    }
    cluster.run(cluster.now + 2 * SECOND);
}

fn snapshots(cluster: &Cluster) -> Vec<Vec<Vec<u8>>> {
    (0..cluster.nodes.len()).map(|i| cluster.snapshot(i)).collect()
}

#[test]
fn a_node_comes_back_with_every_key_at_its_level_however_many_there_are() {
    for algorithm in Algorithm::ALL {
        let mut cluster = Cluster::new(1, daily(algorithm, Accuracy::Strict), MS, 0.0, 1);
        for k in 0..3000u64 {
            assert!(cluster.check(0, &format!("k{k}"), 1 + k % 100).allowed);
        }
        let slices = cluster.snapshot(0);
        assert!(slices.len() >= 3000 / 512, "{} slices", slices.len());
        cluster.crash(0);
        cluster.run(cluster.now + 60 * SECOND);
        cluster.start_from(0, &slices);
        assert_eq!(cluster.node(0).len(), 3000);
        for k in 0..3000u64 {
            let refilled =
                if algorithm.windowed() { 0.0 } else { (60.0 * 1000.0 / 86_400.0f64).min(1.0 + (k % 100) as f64) };
            let expected = 1000.0 - (1 + k % 100) as f64 + refilled;
            let level = level(&cluster, 0, &format!("k{k}"));
            // of a key that is full again nothing is kept
            let level = if level.is_nan() { 1000.0 } else { level };
            assert!((level - expected).abs() < 1e-3, "{algorithm:?} k{k}: {level}, not {expected}");
        }
    }
}

#[test]
fn what_is_full_again_by_now_is_dropped() {
    let mut cluster = Cluster::new(1, daily(Algorithm::TokenBucket, Accuracy::Strict), MS, 0.0, 1);
    assert!(cluster.check(0, "little", 10).allowed && cluster.check(0, "much", 900).allowed);
    let slices = cluster.snapshot(0);
    cluster.crash(0);
    cluster.run(cluster.now + HOUR);
    cluster.start(0);
    let restored: Vec<Restored> =
        slices.iter().map(|s| cluster.node(0).restore(s, cluster.present()).expect("a slice")).collect();
    assert_eq!(restored.iter().map(|r| (r.keys, r.dropped)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (1, 1));
    assert!((level(&cluster, 0, "much") - (100.0 + 1000.0 / 24.0)).abs() < 0.01);
}

/// The table changes between the slices: what stood in it before is all there.
#[test]
fn keys_that_come_and_go_while_a_snapshot_is_taken_make_it_miss_none() {
    let limits = limits(Algorithm::TokenBucket, "1000/s", Some(1000), Accuracy::Strict);
    let mut cluster = Cluster::new(1, limits, MS, 0.0, 1);
    // some are full again soon and are swept meanwhile, the others stay
    for k in 0..4000u64 {
        let cost = if k % 2 == 0 { 1 } else { 1000 };
        assert!(cluster.check(0, &format!("k{k}"), cost).allowed);
    }
    cluster.run(7 * SECOND);
    for k in (1..4000u64).step_by(2) {
        assert!(cluster.check(0, &format!("k{k}"), 1000).allowed);
    }
    let mut kept = Vec::new();
    let node = cluster.nodes[0].take().expect("it runs");
    let mut slices = node.slices();
    let mut at = cluster.present();
    while let Some(slice) = slices.next(at) {
        kept.push(slice);
        at.at.0 += MS;
        node.tick(at, 1000, &mut Nowhere);
    }
    assert!(node.len() < 4000, "nothing was swept");
    cluster.start_from(0, &kept);
    for k in (1..4000u64).step_by(2) {
        assert!(level(&cluster, 0, &format!("k{k}")) < 900.0, "k{k} is missing");
    }
}

struct Nowhere;

impl spillgate_core::node::Outbox for Nowhere {
    fn frame(&mut self, _: &spillgate_core::view::ReplicaId, _: Vec<u8>) {}
}

#[test]
fn a_whole_cluster_keeps_what_each_of_its_nodes_charged() {
    for algorithm in Algorithm::ALL {
        let mut cluster = Cluster::new(3, daily(algorithm, Accuracy::default()), MS, 0.0, 3);
        cluster.settle();
        for i in 0..3 {
            spend(&mut cluster, i, "k", 50);
        }
        let snapshots = snapshots(&cluster);
        restart_all(&mut cluster, &snapshots, 10 * SECOND);
        for i in 0..3 {
            let level = level(&cluster, i, "k");
            assert!((850.0..850.5).contains(&level), "{algorithm:?}: node {i} has {level}");
        }
    }
}

/// Two sides that could not hear each other are restarted before they meet again: each snapshot holds charges that the
/// other's node never heard of. Once a peer is forgotten, after a minute here, its side is a cluster of its own.
#[test]
fn charges_of_both_sides_of_a_partition_are_counted_once_by_whoever_restarts() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::TokenBucket] {
        for (apart, before) in [(0, 20), (40 * SECOND, 20), (40 * SECOND, 0)] {
            // without the rule, so that each side may spend at will
            let mut cluster = Cluster::new(3, daily(algorithm, Accuracy::Gossip), MS, 0.0, 5);
            cluster.settle();
            for i in 0..3 {
                spend(&mut cluster, i, "k", before);
            }
            cluster.cut = vec![(0, 1), (0, 2), (1, 0), (2, 0)];
            cluster.run(cluster.now + apart);
            for (i, tokens) in [(0, 100), (1, 80), (2, 60)] {
                spend(&mut cluster, i, "k", tokens);
            }
            cluster.run(cluster.now + SECOND);
            let snapshots = snapshots(&cluster);
            cluster.cut.clear();
            restart_all(&mut cluster, &snapshots, SECOND);
            for i in 0..3 {
                let level = level(&cluster, i, "k");
                let left = 760.0 - 3.0 * before as f64;
                // 240 were spent apart; during a silence a bucket is charged what the silent could have spent, which is less than comes back
                assert!((left - 5.0..=left + 3.0).contains(&level), "{algorithm:?} {apart} {before}: {i} has {level}");
            }
        }
    }
}

/// The peers went on: what they say counts, and their charges are not charged on top of a snapshot that has them.
#[test]
fn one_node_that_comes_back_takes_the_level_of_its_peers() {
    for (algorithm, refilled) in
        [(Algorithm::TokenBucket, 20.0 * 60.0 * 1000.0 / 86_400.0), (Algorithm::FixedWindow, 0.0)]
    {
        for down in [SECOND, 30 * SECOND, 20 * 60 * SECOND] {
            let mut cluster = Cluster::new(3, daily(algorithm, Accuracy::default()), MS, 0.0, 7);
            cluster.settle();
            for i in 0..3 {
                spend(&mut cluster, i, "k", 50);
            }
            let slices = cluster.snapshot(0);
            // after the snapshot, and before the end
            spend(&mut cluster, 0, "k", 10);
            // its peers have told of their charges so far, and not settled them
            cluster.run(cluster.now + 100 * MS);
            cluster.crash(0);
            spend(&mut cluster, 1, "k", 40);
            cluster.run(cluster.now + down);
            cluster.start_from(0, &slices);
            // its peers' first words come before the table: of each only what it said since
            cluster.run(cluster.now + SECOND);
            if algorithm.windowed() && down < 60 * SECOND {
                assert_eq!(level(&cluster, 0, "k").round(), 1000.0 - 150.0 - 40.0, "{down}");
            }
            cluster.bring(1, 0);
            cluster.bring(2, 0);
            cluster.run(cluster.now + SECOND);
            let levels: Vec<f64> = (0..3).map(|i| level(&cluster, i, "k")).collect();
            assert!(levels.iter().all(|l| (l - levels[1]).abs() < 1.5), "{algorithm:?} {down}: {levels:?}");
            // the one that crashed is charged what it is likely to have granted unheard: its claim for the time news takes
            assert!((790.0..=802.0 + refilled).contains(&levels[0]), "{algorithm:?} {down}: {levels:?}");
        }
    }
}

#[test]
fn a_peer_that_was_there_all_along_knows_better_than_the_snapshot() {
    for algorithm in Algorithm::ALL {
        let mut cluster = Cluster::new(3, daily(algorithm, Accuracy::default()), MS, 0.0, 13);
        cluster.settle();
        spend(&mut cluster, 0, "k", 100);
        let slices = cluster.snapshot(0);
        cluster.crash(0);
        cluster.node(1).reset(LimitRef::Named("api"), "k", cluster.present()).expect("a reset");
        cluster.run(cluster.now + SECOND);
        spend(&mut cluster, 1, "k", 1);
        cluster.start_from(0, &slices);
        cluster.bring(1, 0);
        cluster.bring(2, 0);
        cluster.run(cluster.now + SECOND);
        // less what the run that crashed may have granted unheard
        let level = level(&cluster, 0, "k");
        assert!((990.0..=999.5).contains(&level), "{algorithm:?}: {level}");
    }
}

/// Long after, when nobody keeps a counter of it: the lower level is the one that has seen more.
#[test]
fn of_two_snapshots_the_one_that_has_seen_more_counts() {
    for algorithm in Algorithm::ALL {
        let mut cluster = Cluster::new(3, daily(algorithm, Accuracy::default()), MS, 0.0, 15);
        cluster.settle();
        spend(&mut cluster, 0, "k", 50);
        cluster.run(cluster.now + 15 * SECOND);
        let mut kept = snapshots(&cluster);
        spend(&mut cluster, 0, "k", 60);
        cluster.run(cluster.now + 15 * SECOND);
        kept[0] = cluster.snapshot(0);
        restart_all(&mut cluster, &kept, SECOND);
        for i in 0..3 {
            let level = level(&cluster, i, "k");
            assert!((890.0..891.0).contains(&level), "{algorithm:?}: node {i} has {level}");
        }
    }
}

/// Whole tokens on the way would cost one at each hop.
#[test]
fn a_table_that_goes_from_node_to_node_and_back_stays_the_same() {
    let mut cluster = Cluster::new(3, daily(Algorithm::TokenBucket, Accuracy::default()), MS, 0.0, 11);
    cluster.settle();
    assert!(cluster.check(0, "k", 20).allowed);
    cluster.run(cluster.now + 10 * SECOND);
    for round in 0..10 {
        cluster.bring(round % 3, (round + 1) % 3);
        cluster.run(cluster.now + SECOND);
    }
    let refilled = 20.0 * 1000.0 / 86_400.0;
    for i in 0..3 {
        assert!((level(&cluster, i, "k") - (980.0 + refilled)).abs() < 0.05, "{}", level(&cluster, i, "k"));
    }
}

/// Each node dies at once with a snapshot of another age; no charge that all snapshots hold is lost, none is doubled.
#[test]
fn snapshots_of_different_ages_end_in_no_more_than_was_spent() {
    for seed in 1..=20 {
        let mut cluster = Cluster::new(4, daily(Algorithm::FixedWindow, Accuracy::default()), 2 * MS, 0.05, seed);
        cluster.settle();
        let (mut spent, mut at_oldest) = (0, 0);
        let mut kept: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 4];
        for round in 0..8 {
            for _ in 0..60 {
                let i = usize::try_from(cluster.random.below(4)).expect("small");
                spent += u64::from(cluster.check(i, "k", 1).allowed);
                cluster.run(cluster.now + 4 * MS);
            }
            let i = round % 4;
            kept[i] = cluster.snapshot(i);
            if round == 4 {
                at_oldest = spent;
            }
        }
        restart_all(&mut cluster, &kept, 5 * SECOND);
        for i in 0..4 {
            let used = 1000.0 - level(&cluster, i, "k");
            // what was under way when a snapshot was taken may be counted though it had been heard of: a few tokens
            assert!(used <= spent as f64 + 4.0, "seed {seed}: node {i} counts {used} of {spent}");
            assert!(
                used >= at_oldest as f64,
                "seed {seed}: node {i} counts {used}, {at_oldest} were in every snapshot"
            );
        }
    }
}

/// The snapshot's replicas are let go of in the end: no counter of theirs is kept for good.
#[test]
fn what_is_kept_of_replicas_that_do_not_come_back_is_let_go_of() {
    let mut cluster = Cluster::new(2, daily(Algorithm::FixedWindow, Accuracy::default()), MS, 0.0, 9);
    cluster.settle();
    spend(&mut cluster, 0, "k", 5);
    let slices = cluster.snapshot(0);
    cluster.crash(1);
    cluster.crash(0);
    cluster.start_from(0, &slices);
    let reported =
        |cluster: &Cluster| -> usize { cluster.node(0).state_chunks(cluster.present()).map(|c| c.len()).sum() };
    let before = reported(&cluster);
    cluster.run(601 * SECOND);
    assert!(reported(&cluster) < before, "{before}, then {}", reported(&cluster));
    assert!((level(&cluster, 0, "k") - 995.0).abs() < 0.1);
}

#[test]
fn no_bytes_are_believed_that_are_no_slice() {
    let mut cluster = Cluster::new(1, daily(Algorithm::TokenBucket, Accuracy::Strict), MS, 0.0, 1);
    assert!(cluster.check(0, "k", 10).allowed);
    let slices = cluster.snapshot(0);
    let fresh = Cluster::new(1, daily(Algorithm::TokenBucket, Accuracy::Strict), MS, 0.0, 1);
    for cut in 0..slices[0].len() {
        assert!(fresh.node(0).restore(&slices[0][..cut], fresh.present()).is_err(), "{cut} bytes");
    }
    let mut long = slices[0].clone();
    long.push(0);
    assert!(fresh.node(0).restore(&long, fresh.present()).is_err());
    assert!(fresh.node(0).is_empty());
}

/// A joiner may have a table before it has met all that the table speaks of.
#[test]
fn a_charge_that_a_table_told_of_is_not_charged_again_when_its_node_is_met() {
    for algorithm in Algorithm::ALL {
        let mut cluster = Cluster::new(3, daily(algorithm, Accuracy::default()), MS, 0.0, 17);
        cluster.settle();
        cluster.crash(2);
        spend(&mut cluster, 0, "k", 50);
        cluster.run(cluster.now + 100 * MS);
        // it hears nothing of node 0 until it has the table of node 1
        let away = cluster.nodes[0].take();
        cluster.start(2);
        cluster.bring(1, 2);
        cluster.nodes[0] = away;
        cluster.introduce(0, 2);
        cluster.run(cluster.now + SECOND);
        assert_eq!(level(&cluster, 2, "k").round(), 950.0, "{algorithm:?}");
    }
}

/// Its peers have forgotten it, and it brings an hour-old snapshot or none: the day's quota is spent all the same.
#[test]
fn a_node_that_is_back_after_an_hour_has_no_fresh_quota() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::TokenBucket] {
        for with_snapshot in [true, false] {
            let mut cluster = Cluster::new(3, daily(algorithm, Accuracy::default()), MS, 0.0, 19);
            cluster.settle();
            spend(&mut cluster, 0, "k", 300);
            let slices = if with_snapshot { cluster.snapshot(0) } else { Vec::new() };
            cluster.run(cluster.now + SECOND);
            cluster.crash(0);
            spend(&mut cluster, 1, "k", 400);
            cluster.run(cluster.now + HOUR);
            spend(&mut cluster, 2, "k", 200);
            cluster.start_from(0, &slices);
            cluster.bring(1, 0);
            cluster.bring(2, 0);
            cluster.run(cluster.now + SECOND);
            let refilled = if algorithm.windowed() { 0.0 } else { 1000.0 / 24.0 };
            for i in 0..3 {
                let level = level(&cluster, i, "k");
                let right = (98.0..102.0 + refilled).contains(&level);
                assert!(
                    right,
                    "{algorithm:?}, snapshot {with_snapshot}: {i} has {level} left of the 100 and what came back"
                );
            }
        }
    }
}
