//! Nodes that come, go, move, stand still, tell the wrong time or have another's name: what was granted stays granted,
//! and whoever can't take part says why.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::daemon::{Daemon, Setup, meet, start_cluster, until};
use crate::nodes::{all_see, at_rest, exhaust, member, spend};
use crate::world::{SEED, World};

/// A hundred tokens, and next to nothing comes back while a test runs.
const HUNDRED: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\naccuracy = \"strict\"\n";
/// The same where a node that is killed takes along what was asked of it in the time that news takes, and not its window.
const BOUNDED: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\n";
const DAILY: &str =
    "[[limit]]\nname = \"api\"\nalgorithm = \"fixed-window\"\nrate = \"100/d\"\naccuracy = \"strict\"\n";
const DAY: i64 = 86_400;
/// `max_overshoot` of [`BOUNDED`], tokens.
const OVER: u64 = 5;
/// A share below one token can't be spent in strict mode.
const LEFT_OVER: u64 = 4;

fn seeds_of(daemons: &[Daemon]) -> Vec<String> {
    daemons.iter().map(|d| d.cluster.unwrap().to_string()).collect()
}

/// One after the other, each with those before it as seeds; a silent one is forgotten soon.
async fn start_forgetful(names: &[&str], limits: &str) -> Vec<Daemon> {
    let directory = Arc::new(TempDir::new().unwrap());
    let mut daemons = Vec::new();
    for name in names {
        let new = join(&directory, &daemons, name, limits).await;
        daemons.push(new);
    }
    meet(&daemons).await;
    daemons
}

async fn join(directory: &Arc<TempDir>, daemons: &[Daemon], name: &str, limits: &str) -> Daemon {
    let cluster = "forget_after = \"2s\"".to_owned();
    Daemon::start(directory, Setup { seeds: seeds_of(daemons), cluster, ..member(directory, name, limits) }).await
}

#[tokio::test]
async fn a_second_process_with_a_node_id_in_use_ends_and_says_where_the_first_is() {
    let mut daemons = start_cluster(2, HUNDRED).await;
    spend(&daemons[0], "k", 30).await;
    all_see(&daemons, "k", 70.0).await;
    let first = daemons[1].cluster.unwrap();
    // it knows of "a" alone, which has "b" up elsewhere
    let other = TempDir::new().unwrap();
    std::fs::copy(daemons[0].directory.path().join("secret"), other.path().join("secret")).unwrap();
    let other = Arc::new(other);
    let setup = Setup { seeds: seeds_of(&daemons[..1]), ..member(&other, "b", HUNDRED) };
    let mut second = Daemon::start(&other, setup).await;
    assert!(!second.ready().await);
    assert_eq!(second.ended().await, Some(2), "{}", second.log());
    let told = format!("node id \"b\" is in use by another process at {first}");
    until("it says where the first is", async || second.logged(&told) == 1).await;
    // and the others are as they were
    assert!(daemons.iter_mut().all(Daemon::runs));
    meet(&daemons).await;
    all_see(&daemons, "k", 70.0).await;
    let rest = exhaust(&daemons, "k").await;
    assert!((70 - LEFT_OVER..=70).contains(&rest), "{rest}");
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_either_way_gives_no_token_of_a_bucket_and_stops_nobody() {
    let world = World::new();
    let mut daemons = start_cluster(2, HUNDRED).await;
    let directory = daemons[0].directory.clone();
    let setup = world.of(Setup { seeds: seeds_of(&daemons), ..member(&directory, "c", HUNDRED) });
    daemons.push(Daemon::start(&directory, setup).await);
    meet(&daemons).await;
    let offset = async |expected: i64| {
        until("the others see its clock", async || {
            let cluster = daemons[0].get("/v1/cluster").await;
            let c = cluster["members"].as_array().unwrap().iter().find(|m| m["node"] == "c").cloned().unwrap();
            c["clock_offset_ms"].as_f64().is_some_and(|ms| (ms / 1000.0 - expected as f64).abs() < 5.0)
        })
        .await;
    };
    for (i, jump) in [DAY, -DAY, 0].into_iter().enumerate() {
        world.set_clock(jump);
        offset(jump).await;
        for daemon in &daemons {
            spend(daemon, "k", 5).await;
        }
        all_see(&daemons, "k", 85.0 - 15.0 * i as f64).await;
    }
    assert!(daemons.iter_mut().all(Daemon::runs));
    let rest = exhaust(&daemons, "k").await;
    assert!((55 - LEFT_OVER..=55).contains(&rest), "{rest}");
}

/// A node that is a day ahead is in a window of its own; its peers do not follow it there, and what it spent is counted
/// when it comes back.
#[tokio::test]
async fn a_node_that_is_a_day_ahead_renews_nobody_elses_window() {
    let world = World::new();
    let mut daemons = start_cluster(2, DAILY).await;
    let directory = daemons[0].directory.clone();
    let setup = world.of(Setup { seeds: seeds_of(&daemons), ..member(&directory, "c", DAILY) });
    daemons.push(Daemon::start(&directory, setup).await);
    meet(&daemons).await;
    for daemon in &daemons {
        spend(daemon, "k", 15).await;
    }
    all_see(&daemons, "k", 55.0).await;
    world.set_clock(DAY);
    until("it is in the next window", async || daemons[2].level("k").await.round() > 55.0).await;
    daemons[2].check("k", 5).await;
    sleep(Duration::from_millis(300)).await;
    for daemon in &daemons[..2] {
        assert!(daemon.level("k").await <= 55.0, "its peers stay in their window");
    }
    world.set_clock(-DAY);
    // put back, it is in no fresh window
    until("it knows what was spent", async || daemons[2].level("k").await <= 95.0).await;
    world.set_clock(0);
    // it has asked its peers what this day's window holds
    until("it counts what all have spent", async || daemons[2].level("k").await <= 55.0).await;
    assert!(daemons[2].logged("\"clock_jumped\":true") >= 1, "{}", daemons[2].log());
    let rest = exhaust(&daemons, "k").await;
    assert!(rest <= 55, "{rest}");
}

#[tokio::test]
async fn a_node_whose_clock_was_put_back_before_its_restart_is_taken_up() {
    let world = World::new();
    let mut daemons = start_cluster(2, BOUNDED).await;
    let directory = daemons[0].directory.clone();
    let setup = world.of(Setup { seeds: seeds_of(&daemons), ..member(&directory, "c", BOUNDED) });
    daemons.push(Daemon::start(&directory, setup).await);
    meet(&daemons).await;
    spend(&daemons[2], "k", 30).await;
    all_see(&daemons, "k", 70.0).await;
    at_rest(&daemons, "k").await;
    world.set_clock(-DAY);
    let c = daemons.pop().unwrap().restart().await;
    daemons.push(c);
    meet(&daemons).await;
    all_see(&daemons, "k", 70.0).await;
    let rest = exhaust(&daemons, "k").await;
    assert!((70 - LEFT_OVER..=70 + OVER).contains(&rest), "{rest}");
}

#[tokio::test]
async fn a_seed_s_name_may_lead_nowhere_then_somewhere_then_elsewhere() {
    let world = World::new();
    let directory = Arc::new(TempDir::new().unwrap());
    let a = Daemon::start(&directory, member(&directory, "a", HUNDRED)).await;
    let port = a.cluster.unwrap().port();
    let setup = Setup { seeds: vec![format!("{SEED}:{port}")], ..member(&directory, "b", HUNDRED) };
    let b = Daemon::start(&directory, world.of(setup)).await;
    until("it says that the name has no address", async || b.logged("seed cannot be resolved") == 1).await;
    // nobody is there
    world.set_seed("127.0.0.9");
    until("it has the new address", async || b.logged("127.0.0.9") >= 1).await;
    assert!(!b.ready().await || b.peers("alive").await.is_empty());
    world.set_seed("127.0.0.1");
    meet(&[a, b]).await;
}

#[tokio::test]
async fn a_rolling_restart_of_five_gives_nobody_a_fresh_quota() {
    let limit = HUNDRED.replace("burst = 100", "burst = 200");
    let mut daemons = start_cluster(5, &limit).await;
    let mut spent = 0;
    for i in 0..5 {
        spend(&daemons[(i + 1) % 5], "k", 10).await;
        spent += 10;
        all_see(&daemons, "k", 200.0 - f64::from(spent)).await;
        let seeds = seeds_of(&daemons);
        let mut daemon = daemons.remove(i);
        daemon.stop().await;
        // the others go on meanwhile
        spend(&daemons[i % 4], "k", 10).await;
        spent += 10;
        daemon.setup.seeds = seeds;
        daemons.insert(i, daemon.restart().await);
        meet(&daemons).await;
        all_see(&daemons, "k", 200.0 - f64::from(spent)).await;
    }
    let rest = exhaust(&daemons, "k").await;
    assert!((100 - 2 * LEFT_OVER..=100).contains(&rest), "{rest}");
}

#[tokio::test]
async fn a_cluster_that_grows_from_three_to_six_and_shrinks_to_two_keeps_one_limit() {
    let limit = BOUNDED.replace("burst = 100", "burst = 200");
    let mut daemons = start_forgetful(&["a", "b", "c"], &limit).await;
    let directory = daemons[0].directory.clone();
    spend(&daemons[0], "k", 20).await;
    for name in ["d", "e", "f"] {
        let new = join(&directory, &daemons, name, &limit).await;
        daemons.push(new);
    }
    meet(&daemons).await;
    for daemon in &daemons {
        spend(daemon, "k", 10).await;
    }
    all_see(&daemons, "k", 120.0).await;
    // those who began go, one by a kill
    let mut left = 120.0;
    for i in 0..4 {
        let mut gone = daemons.remove(0);
        if i == 1 {
            at_rest(&daemons, "k").await;
            gone.kill().await;
            // until then it counts among those who may spend
            let forgotten =
                async || daemons[0].peers("silent").await.is_empty() && daemons[0].peers("alive").await.len() == 3;
            until("it is forgotten", forgotten).await;
        } else {
            gone.stop().await;
        }
        spend(&daemons[0], "k", 5).await;
        left -= 5.0;
        all_see(&daemons, "k", left).await;
    }
    let peers = async |daemon: &Daemon| daemon.peers("alive").await;
    until("two are left", async || peers(&daemons[0]).await == ["f"] && peers(&daemons[1]).await == ["e"]).await;
    all_see(&daemons, "k", 100.0).await;
    let rest = exhaust(&daemons, "k").await;
    // twice the burst
    assert!((100 - LEFT_OVER..=100 + 2 * OVER).contains(&rest), "{rest}");
}

/// Longer than it takes to be forgotten: the others have taken its share, and it does not know.
#[tokio::test]
async fn a_node_that_stood_still_until_it_was_forgotten_spends_nothing_that_is_gone() {
    let daemons = start_forgetful(&["a", "b", "c"], HUNDRED).await;
    for daemon in &daemons {
        spend(daemon, "k", 10).await;
    }
    all_see(&daemons, "k", 70.0).await;
    at_rest(&daemons, "k").await;
    daemons[2].signal("STOP");
    for (daemon, other) in [(&daemons[0], "b"), (&daemons[1], "a")] {
        let forgotten = async || daemon.peers("silent").await.is_empty() && daemon.peers("alive").await == [other];
        until("it is forgotten", forgotten).await;
    }
    let spent = exhaust(&daemons[..2], "k").await;
    // an even share of a full bucket is lost: so much it may have granted unheard
    assert!((70 - 34 - LEFT_OVER..=70).contains(&spent), "{spent}");
    daemons[2].signal("CONT");
    // from its first moment on
    let more = exhaust(&daemons[2..], "k").await;
    assert!(more + spent <= 70, "{more} more than the {spent} of 70");
    meet(&daemons).await;
    let rest = exhaust(&daemons, "k").await;
    assert!(rest + more + spent <= 70, "{rest} and {more} more than the {spent} of 70");
}

#[tokio::test]
async fn two_clusters_on_one_network_with_one_secret_stay_apart_though_each_has_the_other_as_a_seed() {
    let directory = Arc::new(TempDir::new().unwrap());
    let a = Daemon::start(&directory, member(&directory, "a", HUNDRED)).await;
    let apart = |name: &str, seeds| Setup {
        cluster_name: "other".to_owned(),
        seeds,
        cluster: "join_timeout = \"1s\"".to_owned(),
        ..member(&directory, name, HUNDRED)
    };
    let b = Daemon::start(&directory, apart("b", seeds_of(std::slice::from_ref(&a)))).await;
    let c = Daemon::start(&directory, apart("c", vec![a.cluster.unwrap().to_string(), b.cluster.unwrap().to_string()]))
        .await;
    let others = [b, c];
    meet(&others).await;
    let spent = exhaust(&others, "k").await;
    assert!((100 - LEFT_OVER..=100).contains(&spent), "{spent}");
    until("a is ready, alone", async || a.ready().await).await;
    let own = a.check("k", 100).await;
    assert_eq!(own["allowed"], true, "a has its own: {own} {}", a.log());
    let cluster: Value = a.get("/v1/cluster").await;
    assert_eq!(cluster["members"].as_array().unwrap().len(), 1, "{cluster}");
}
