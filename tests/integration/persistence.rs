//! Quotas over restarts: of one node, of the whole cluster, after a kill, with a snapshot that can't be used, with a
//! disk that is full.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::command;
use crate::daemon::{Daemon, Setup, meet, until, write_secret};
use crate::metrics::sample;
use crate::nodes::{all_see, exhaust, spend};

/// Of either, next to nothing comes back while a test runs.
const DAILY: &str = "[[limit]]\nname = \"api\"\nalgorithm = \"fixed-window\"\nrate = \"100/d\"\naccuracy = \"strict\"\n\
                     [[limit]]\nname = \"bucket\"\nrate = \"100/d\"\nburst = 100\n";

fn data_dir(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().join(format!("data-{name}"))
}

fn snapshot(directory: &TempDir, name: &str) -> PathBuf {
    data_dir(directory, name).join("spillgate.snapshot")
}

/// The setup of a node that keeps its table in a directory of its own.
fn keeping(directory: &TempDir, name: &str) -> Setup {
    let node = format!("data_dir = {:?}\nsnapshot_interval = \"100ms\"", data_dir(directory, name));
    Setup { name: name.to_owned(), node, ..Setup::single(DAILY) }
}

async fn start_keeping_cluster(names: &[&str]) -> Vec<Daemon> {
    let directory = Arc::new(TempDir::new().unwrap());
    let secret = write_secret(directory.path(), "secret");
    let mut daemons: Vec<Daemon> = Vec::new();
    for name in names {
        let seeds = daemons.iter().filter_map(|d| d.cluster).map(|c| c.to_string()).collect();
        let setup = Setup { secret: Some(secret.clone()), seeds, ..keeping(&directory, name) };
        daemons.push(Daemon::start(&directory, setup).await);
    }
    meet(&daemons).await;
    daemons
}

/// All of them again, at the ports they had, each with all others as seeds.
async fn start_again(mut stopped: Vec<Daemon>) -> Vec<Daemon> {
    let seeds: Vec<String> = stopped.iter().filter_map(|d| d.cluster).map(|c| c.to_string()).collect();
    let mut starting = JoinSet::new();
    for daemon in &mut stopped {
        daemon.setup.seeds.clone_from(&seeds);
    }
    for daemon in stopped {
        starting.spawn(daemon.restart());
    }
    let mut daemons = starting.join_all().await;
    daemons.sort_by(|a, b| a.name.cmp(&b.name));
    daemons
}

async fn bucket_level(daemon: &Daemon) -> f64 {
    daemon.get("/v1/keys/bucket/k").await["level"].as_f64().unwrap()
}

/// Spends 60 of 100 of either limit, 20 at each node.
async fn spend_sixty(daemons: &[Daemon]) {
    for daemon in daemons {
        spend(daemon, "k", 20).await;
        let body = json!({"limit": "bucket", "key": "k", "cost": 20, "wait_ms": 1000});
        let answer = daemon.post("/v1/check", body).await.unwrap();
        assert_eq!(answer["allowed"], true, "{answer}");
    }
    all_see(daemons, "k", 40.0).await;
    for daemon in daemons {
        until("all know of the bucket", async || bucket_level(daemon).await.round() == 40.0).await;
    }
}

/// What is left is 40 on each, and no more than that can be had.
async fn forty_are_left(daemons: &[Daemon]) {
    for daemon in daemons {
        eprintln!("{} {}", daemon.name, daemon.get("/v1/keys/bucket/k").await);
    }
    for daemon in daemons {
        assert_eq!(daemon.level("k").await.round(), 40.0, "{}: {}", daemon.name, daemon.log());
        assert_eq!(bucket_level(daemon).await.round(), 40.0, "{}", daemon.name);
    }
    let rest = exhaust(daemons, "k").await;
    assert!((36..=40).contains(&rest), "{rest}");
}

#[tokio::test]
async fn a_whole_cluster_that_is_restarted_keeps_its_daily_quotas() {
    let mut daemons = start_keeping_cluster(&["a", "b", "c"]).await;
    spend_sixty(&daemons).await;
    let mut stopping = JoinSet::new();
    for mut daemon in daemons {
        stopping.spawn(async move {
            daemon.stop().await;
            daemon
        });
    }
    daemons = start_again(stopping.join_all().await).await;
    meet(&daemons).await;
    forty_are_left(&daemons).await;
}

#[tokio::test]
async fn a_whole_cluster_that_is_killed_keeps_what_its_snapshots_hold() {
    let mut daemons = start_keeping_cluster(&["a", "b", "c"]).await;
    spend_sixty(&daemons).await;
    for daemon in &daemons {
        let written = async || sample(daemon, "spillgate_snapshots_total{outcome=\"written\"}").await;
        // the one that is being written may have begun before
        let enough = written().await + 2.0;
        until("a snapshot has all", async || written().await >= enough).await;
    }
    for daemon in &mut daemons {
        daemon.kill().await;
    }
    let daemons = start_again(daemons).await;
    meet(&daemons).await;
    forty_are_left(&daemons).await;
}

/// One of the snapshots is old: what the others hold beyond it counts, and nothing twice.
#[tokio::test]
async fn an_old_snapshot_among_new_ones_takes_nothing_back() {
    let mut daemons = start_keeping_cluster(&["a", "b", "c"]).await;
    let directory = daemons[0].directory.clone();
    spend(&daemons[0], "k", 10).await;
    all_see(&daemons, "k", 90.0).await;
    let old = directory.path().join("old");
    let kept = async || {
        let written = sample(&daemons[0], "spillgate_snapshots_total{outcome=\"written\"}").await;
        until("two more", async || {
            sample(&daemons[0], "spillgate_snapshots_total{outcome=\"written\"}").await >= written + 2.0
        })
        .await;
        fs::copy(snapshot(&directory, "a"), &old).unwrap();
    };
    kept().await;
    spend(&daemons[0], "k", 20).await;
    spend(&daemons[1], "k", 30).await;
    all_see(&daemons, "k", 40.0).await;
    for daemon in &mut daemons {
        daemon.stop().await;
    }
    fs::copy(&old, snapshot(&directory, "a")).unwrap();
    let daemons = start_again(daemons).await;
    meet(&daemons).await;
    for daemon in &daemons {
        assert_eq!(daemon.level("k").await.round(), 40.0, "{}: {}", daemon.name, daemon.log());
    }
}

/// The peers went on: the snapshot is older than what they know, and no charge in it is charged again.
#[tokio::test]
async fn one_node_that_comes_back_with_a_snapshot_agrees_with_its_peers() {
    let mut daemons = start_keeping_cluster(&["a", "b", "c"]).await;
    spend(&daemons[0], "k", 30).await;
    all_see(&daemons, "k", 70.0).await;
    let mut a = daemons.remove(0);
    a.stop().await;
    spend(&daemons[0], "k", 25).await;
    a.setup.seeds = daemons.iter().filter_map(|d| d.cluster).map(|c| c.to_string()).collect();
    daemons.push(a.restart().await);
    meet(&daemons).await;
    for daemon in &daemons {
        assert_eq!(daemon.level("k").await.round(), 45.0, "{}: {}", daemon.name, daemon.log());
    }
}

#[tokio::test]
async fn a_single_node_comes_back_where_it_was() {
    let directory = Arc::new(TempDir::new().unwrap());
    let mut a = Daemon::start(&directory, keeping(&directory, "a")).await;
    assert_eq!(a.check("k", 60).await["remaining"], 40);
    a.stop().await;
    for _ in 0..3 {
        let again = a.restart().await;
        a = again;
        assert_eq!(a.check("k", 0).await["remaining"], 40);
        a.stop().await;
    }
}

#[tokio::test]
async fn a_snapshot_that_can_not_be_used_is_set_aside_and_the_node_starts() {
    let directory = Arc::new(TempDir::new().unwrap());
    let mut a = Daemon::start(&directory, keeping(&directory, "a")).await;
    a.check("k", 60).await;
    a.stop().await;
    let file = snapshot(&directory, "a");
    let whole = fs::read(&file).unwrap();
    let garbage: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let newer = b"spillgate snapshot 2\n{}\n".to_vec();
    for (bytes, name, why) in [
        (whole[..whole.len() / 2].to_vec(), "torn", "ends too early"),
        (garbage, "torn", "no whole snapshot"),
        (Vec::new(), "torn", "ends too early"),
        (newer, "newer", "it has format 2"),
    ] {
        fs::write(&file, &bytes).unwrap();
        a = a.restart().await;
        assert_eq!(a.check("k", 0).await["remaining"], 100, "{name}");
        assert_eq!(a.logged(why), 1, "{name}: {}", a.log());
        let aside = file.with_extension(format!("snapshot.{name}"));
        assert_eq!(fs::read(aside).unwrap(), bytes);
        a.stop().await;
    }
    // another node's
    let mut b = Daemon::start(&directory, keeping(&directory, "b")).await;
    b.check("k", 60).await;
    b.stop().await;
    fs::copy(snapshot(&directory, "b"), &file).unwrap();
    let a = a.restart().await;
    assert_eq!(a.check("k", 0).await["remaining"], 100);
    assert_eq!(a.logged("it is of node \\\"b\\\""), 1, "{}", a.log());
}

#[tokio::test]
async fn a_full_disk_stops_nothing_and_is_told_of_once() {
    let directory = Arc::new(TempDir::new().unwrap());
    let mut a = Daemon::start(&directory, keeping(&directory, "a")).await;
    let outcome =
        async |outcome: &str| sample(&a, &format!("spillgate_snapshots_total{{outcome=\"{outcome}\"}}")).await;
    until("one is written", async || outcome("written").await >= 1.0).await;
    // whatever is written there finds no room
    let beside = data_dir(&directory, "a").join("spillgate.snapshot.tmp");
    let failed = outcome("failed").await;
    until("three have failed", async || {
        let _ = std::os::unix::fs::symlink("/dev/full", &beside);
        assert_eq!(a.check("other", 0).await["allowed"], true);
        outcome("failed").await >= failed + 3.0
    })
    .await;
    assert!(a.logged("No space left on device") >= 1, "{}", a.log());
    assert_eq!(a.check("k", 60).await["remaining"], 40);
    let written = outcome("written").await;
    until("they are written again", async || outcome("written").await >= written + 2.0).await;
    assert!(a.logged("snapshots are written again") >= 1, "{}", a.log());
    a.stop().await;
    let a = a.restart().await;
    assert_eq!(a.check("k", 0).await["remaining"], 40);
}

#[tokio::test]
async fn two_processes_do_not_share_a_data_dir() {
    let directory = Arc::new(TempDir::new().unwrap());
    let a = Daemon::start(&directory, keeping(&directory, "a")).await;
    let other = Setup { name: "b".to_owned(), ..keeping(&directory, "a") };
    let log = Daemon::try_start(&directory, other).await.err().expect("the directory is taken");
    assert!(log.contains("is in use by another process"), "{log}");
    assert_eq!(a.check("k", 1).await["allowed"], true);
    let nowhere = command::run(&["serve", "--http", "127.0.0.1:0", "--data-dir", "/proc/nowhere"]).await;
    nowhere.assert_fails(3, &["/proc/nowhere", "can't be used"]);
}
