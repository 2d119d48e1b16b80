//! Clusters that come together, lose nodes, get them back and grow: what was granted stays granted.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::daemon::{Daemon, Setup, meet, start_cluster, until};
use crate::nodes::{all_see, behind, exhaust, meet_behind, member, spend, start_behind, take_one};
use crate::relay::{Path, Relay};

/// A hundred tokens, and next to nothing comes back while a test runs.
const HUNDRED: &str = "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = 100\naccuracy = \"strict\"\n";
/// Enough for a test that goes on asking.
const PLENTY: &str = "[[limit]]\nname = \"api\"\nrate = \"1000/s\"\n";
/// A share below one token can't be spent in strict mode: so much may be left over with three nodes.
const LEFT_OVER: u64 = 2;

/// Charges one token after another at the first node, and says how long the others took to show each: the median.
async fn spreading_time(daemons: &[Daemon], rounds: u64) -> Duration {
    let mut times = Vec::new();
    for round in 1..=rounds {
        let start = Instant::now();
        assert_eq!(daemons[0].check("k", 1).await["allowed"], true);
        all_see(&daemons[1..], "k", 100.0 - round as f64).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_charge_is_known_everywhere_within_a_few_ticks() {
    let daemons = start_cluster(3, HUNDRED).await;
    let median = spreading_time(&daemons, 15).await;
    // ten ticks of 10 ms: one or two for the news, the others for asking both nodes over new connections
    assert!(median < Duration::from_millis(100), "{median:?}");
}

#[tokio::test]
async fn a_bad_network_delays_news_and_loses_none() {
    let mut relay = Relay::new(1);
    relay.set_all(Path { jitter: Duration::from_millis(10), loss: 0.2, duplication: 0.05, ..Path::delayed(20) });
    let daemons = meet_behind(&mut relay, &["a", "b", "c"], HUNDRED).await;
    let median = spreading_time(&daemons, 15).await;
    // on the way 20 to 30 ms; one in five is lost to either node, and noticed after two round trips and three ticks
    assert!(median < Duration::from_millis(300), "{median:?}");
    let total = 15 + exhaust(&daemons, "k").await;
    assert!((100 - LEFT_OVER..=100).contains(&total), "{total}");
    assert!(relay.fates("a", "b").lost > 0);
}
