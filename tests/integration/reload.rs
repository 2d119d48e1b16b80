//! Reloading: by a changed file, by SIGHUP, by request. Counts survive, and a bad file changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::{Daemon, Setup, start_cluster, until};
use crate::nodes::all_see;

fn limit(burst: u64) -> String {
    format!("[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = {burst}\n")
}

async fn start() -> Daemon {
    let directory = Arc::new(TempDir::new().unwrap());
    let daemon = Daemon::start(&directory, Setup::single(&limit(100))).await;
    assert_eq!(daemon.check("k", 30).await["remaining"], 70);
    daemon
}

fn file(daemon: &Daemon) -> PathBuf {
    daemon.directory.path().join(format!("{}.toml", daemon.name))
}

/// Writes the daemon's file anew, with these limits.
fn write(daemon: &Daemon, limits: &str) {
    let setup = Setup { limits: limits.to_owned(), ..daemon.setup.clone() };
    std::fs::write(file(daemon), setup.config()).unwrap();
}

async fn capacity(daemon: &Daemon) -> Value {
    daemon.get("/v1/limits").await["limits"][0]["capacity"].clone()
}

#[tokio::test]
async fn a_changed_file_is_noticed_and_counts_survive() {
    let daemon = start().await;
    write(&daemon, &limit(200));
    until("it is noticed", async || capacity(&daemon).await == 200).await;
    // what was used stays used
    assert_eq!(daemon.level("k").await.round(), 170.0);
    assert_eq!(daemon.logged("its file changed"), 1, "{}", daemon.log());
    assert_eq!(daemon.logged("changed api"), 1, "{}", daemon.log());
}

#[tokio::test]
async fn a_file_that_is_replaced_by_renaming_is_noticed() {
    let daemon = start().await;
    let setup = Setup { limits: limit(300), ..daemon.setup.clone() };
    let beside = daemon.directory.path().join("beside");
    std::fs::write(&beside, setup.config()).unwrap();
    std::fs::rename(&beside, file(&daemon)).unwrap();
    until("it is noticed", async || capacity(&daemon).await == 300).await;
    // and again: the name is watched, not the file that had it
    write(&daemon, &limit(400));
    until("it is noticed again", async || capacity(&daemon).await == 400).await;
    assert_eq!(daemon.level("k").await.round(), 370.0);
}

#[tokio::test]
async fn sighup_reloads() {
    let daemon = start().await;
    write(&daemon, &limit(50));
    daemon.signal("HUP");
    until("it has heard", async || daemon.logged("\"why\":\"SIGHUP\"") == 1).await;
    assert_eq!(capacity(&daemon).await, 50);
    assert_eq!(daemon.level("k").await.round(), 20.0);
}

#[tokio::test]
async fn a_request_reloads_and_tells_what_changed() {
    let daemon = start().await;
    write(&daemon, &format!("{}[[limit]]\nname = \"new\"\nrate = \"5/s\"\n", limit(100)));
    let answer = daemon.post("/v1/reload", json!({})).await.unwrap();
    assert_eq!(answer, json!({"reloaded": true, "changes": "added new"}));
    let check = json!({"limit": "new", "key": "k"});
    assert_eq!(daemon.post("/v1/check", check.clone()).await.unwrap()["remaining"], 4);
    write(&daemon, &limit(100));
    let answer = daemon.post("/v1/reload", json!({})).await.unwrap();
    assert_eq!(answer["changes"], "removed new");
    let error = daemon.post("/v1/check", check).await.unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
    assert_eq!(daemon.level("k").await.round(), 70.0);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_reported() {
    let daemon = start().await;
    for (bad, told) in [
        (limit(200) + "[[limit]]\nname = \"api\"\nrate = \"1/h\"\n", "api"),
        (limit(200) + "[[limit]]\nname = \"b\"\nrate = \"fast\"\n", "fast"),
        (limit(200).replace("burst", "brust"), "brust"),
        ("[[limit".to_owned(), "not TOML"),
    ] {
        let before = daemon.logged("the new configuration is bad");
        write(&daemon, &bad);
        let error = daemon.post("/v1/reload", json!({})).await.unwrap_err().to_string();
        assert!(error.contains("nothing was changed") && error.contains(told), "{error}");
        until("it is logged", async || daemon.logged("the new configuration is bad") > before).await;
        assert_eq!(capacity(&daemon).await, 100);
        assert_eq!(daemon.level("k").await.round(), 70.0);
    }
    // a file that is gone for a moment is no reason to change anything either
    std::fs::remove_file(file(&daemon)).unwrap();
    daemon.signal("HUP");
    until("it is logged", async || daemon.logged("\"why\":\"SIGHUP\"") == 1).await;
    assert_eq!(capacity(&daemon).await, 100);
    write(&daemon, &limit(200));
    until("a good one is taken", async || capacity(&daemon).await == 200).await;
    assert_eq!(daemon.level("k").await.round(), 170.0);
}

#[tokio::test]
async fn a_cluster_reloaded_node_by_node_keeps_one_count() {
    let daemons = start_cluster(2, &limit(100)).await;
    assert_eq!(daemons[0].check("k", 10).await["allowed"], true);
    all_see(&daemons, "k", 90.0).await;
    for daemon in &daemons {
        write(daemon, &limit(200));
        daemon.post("/v1/reload", json!({})).await.unwrap();
        // while the two have different limits, too; the one that has not asked before waits until its demand is known
        let body = json!({"limit": "api", "key": "k", "cost": 10, "wait_ms": 10_000});
        assert_eq!(daemon.post("/v1/check", body).await.unwrap()["allowed"], true);
    }
    all_see(&daemons, "k", 170.0).await;
}
