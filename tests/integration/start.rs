//! Starting: what a daemon says when it can't.

use std::sync::Arc;

use tempfile::TempDir;

use crate::daemon::{Daemon, Setup, start_cluster, until};

const LIMIT: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\n";

#[tokio::test]
async fn a_single_node_needs_no_one() {
    let directory = Arc::new(TempDir::new().unwrap());
    let mut daemon = Daemon::start(&directory, Setup::single(LIMIT)).await;
    until("it is ready", async || daemon.ready().await).await;
    let answer = daemon.check("k", 30).await;
    assert_eq!((&answer["allowed"], &answer["remaining"]), (&true.into(), &70.into()), "{answer}");
    daemon.stop().await;
}

#[tokio::test]
async fn three_nodes_count_as_one() {
    let daemons = start_cluster(3, LIMIT).await;
    for (daemon, cost) in daemons.iter().zip([20, 10, 5]) {
        let answer = daemon.check("k", cost).await;
        assert_eq!(answer["allowed"], true, "{answer}");
    }
    for daemon in &daemons {
        until("all know of 35", async || daemon.level("k").await.round() == 65.0).await;
    }
}
