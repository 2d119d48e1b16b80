//! Our own strategies against real daemons behind a bad network.

use std::time::Duration;

use tokio::time::Instant;

use super::arrivals::{Planned, offer, plan, stream};
use super::twin::{Tolerance, Twin, figure};
use super::{TRIES, turn};
use crate::daemon::{Daemon, until};
use crate::nodes::meet_behind;
use crate::relay::{Path, Relay};

const RATE: u64 = 400;
const BURST: u64 = 200;
/// How much is asked for at once, tokens a second.
const CROWD: f64 = 3000.0;
/// From a node's news to its being under way, and from its arrival to its being heard: processes and timers, one of
/// which is the relay's own, of a whole millisecond.
const HANDLING: f64 = 0.005;

fn limit(accuracy: &str) -> String {
    format!("[[limit]]\nname = \"api\"\nrate = \"{RATE}/s\"\nburst = {BURST}\naccuracy = \"{accuracy}\"\n")
}

/// The same for the simulator, which has the accuracy from the strategy.
fn scenario(nodes: usize, path: &Path) -> String {
    let Path { delay, jitter, loss, .. } = path;
    format!(
        "[nodes]\ncount = {nodes}\n[network]\nlatency = '{}ms'\njitter = '{}ms'\nloss = {loss}\n\
         [[limit]]\nrate = '{RATE}/s'\nburst = {BURST}\n",
        delay.as_millis(),
        jitter.as_millis()
    )
}

/// Waits until each of them has measured the way to all others, as the simulator's do while they warm up.
async fn warm(daemons: &[Daemon]) {
    for daemon in daemons {
        let measured = async || {
            let cluster = daemon.get("/v1/cluster").await;
            let members = cluster["members"].as_array().unwrap();
            members.iter().filter(|m| m["self"] != true).all(|m| m["round_trip_ms"].is_number())
        };
        until("round trips are known", measured).await;
    }
}

/// Little, and all of it at one node; then a crowd at the two others; then more than there is, unevenly.
fn crowd() -> Vec<Planned> {
    plan([
        stream(1, 0, 200.0, 2, 0.0..1.0),
        stream(2, 1, CROWD / 2.0, 4, 1.0..1.2),
        stream(3, 2, CROWD / 2.0, 4, 1.0..1.2),
        stream(4, 0, 600.0, 2, 1.2..3.5),
        stream(5, 1, 300.0, 2, 1.2..3.5),
        stream(6, 2, 100.0, 2, 1.2..3.5),
    ])
}

/// Three daemons, a crowd, and what the simulator says of it.
async fn three(accuracy: &str) {
    let _turn = turn().await;
    let path = Path { jitter: Duration::from_millis(10), loss: 0.05, ..Path::delayed(30) };
    let mut disagreed = Vec::new();
    for _ in 0..TRIES {
        let mut relay = Relay::new(1);
        relay.set_all(path);
        let daemons = meet_behind(&mut relay, &["a", "b", "c"], &limit(accuracy)).await;
        warm(&daemons).await;
        let answers = offer(&daemons, &crowd(), Instant::now()).await;
        let twin = Twin::new(&scenario(3, &path), answers);
        let comparison = twin.compare(accuracy, &[1.0, 1.2, 3.5]);
        let late = twin.late(|_| Duration::ZERO);
        println!("three daemons, {accuracy}, answers at most {:.1} ms late:\n{comparison}", late * 1000.0);
        let mut overshoot = 1.0 + RATE as f64 * late;
        if accuracy == "gossip" {
            // while news is later than it need be, the crowd goes on spending
            overshoot += CROWD * (HANDLING + late);
        } else {
            // the promise, of which no busy machine is an excuse
            let over = figure(&comparison.real, "overshoot");
            assert!(over <= overshoot, "{accuracy}: {over} over, {overshoot} explained\n{comparison}");
        }
        disagreed = comparison.disagreements(&Tolerance { overshoot, utilisation: 3.0, refused: 3.0 });
        if disagreed.is_empty() {
            return;
        }
    }
    panic!("{accuracy}: {disagreed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_of_strict_do_what_the_simulator_says() {
    three("strict").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_of_bounded_do_what_the_simulator_says() {
    three("bounded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_of_gossip_do_what_the_simulator_says() {
    three("gossip").await;
}
