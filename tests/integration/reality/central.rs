//! `central` against a real Redis: one script decides everything, clients are near and far.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::arrivals::{plan, stream};
use super::store::Store;
use super::twin::{Tolerance, Twin};
use super::{TRIES, turn};

const RATE: u64 = 1000;
const BURST: u64 = 200;
/// One way to the store, milliseconds. The first node is so far that answers of a tenth of a second before are still
/// under way when the near ones take over: what one exact store grants in order reaches clients as a burst of some
/// hundred tokens, and so the simulator is asked about more than that an exact store is exact.
const DISTANCES_MS: [u64; 3] = [100, 20, 2];

/// One after the other all have half as much again as is allowed; once there is a pause in which the bucket fills.
async fn run(store: &Store) -> (Twin, f64) {
    let load = 1.5 * RATE as f64;
    let planned =
        plan([stream(1, 1, load, 1, 0.0..0.8), stream(1, 0, load, 1, 1.4..2.4), stream(1, 2, load, 1, 2.4..3.4)]);
    let distances = DISTANCES_MS.map(Duration::from_millis);
    let answers = store.offer((RATE, BURST), &distances, &planned, Instant::now()).await;
    let mut cluster = format!("[nodes]\ncount = 3\n[[limit]]\nrate = '{RATE}/s'\nburst = {BURST}\n");
    for (ms, n) in DISTANCES_MS.iter().zip(1..) {
        write!(cluster, "[[network.link]]\nfrom = 'n{n}'\nto = 'store'\nlatency = '{ms}ms'\n").unwrap();
    }
    let twin = Twin::new(&cluster, answers);
    let late = twin.late(|answer| 2 * distances[answer.node]);
    (twin, late)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_redis_does_what_the_simulator_says() {
    let _turn = turn().await;
    let mut disagreed = Vec::new();
    for _ in 0..TRIES {
        let store = Store::start().await;
        let (twin, late) = run(&store).await;
        let comparison = twin.compare("central", &[0.8, 2.4, 3.4]);
        println!("a real Redis, answers at most {:.1} ms late:\n{comparison}", late * 1000.0);
        // the burst of the change of places is there, and the simulator has foreseen it
        assert!(comparison.overshoot_max() > 90.0, "{comparison}");
        // one request at either end, and what came while the latest answer was under way
        let overshoot = 2.0 + RATE as f64 * late;
        disagreed = comparison.disagreements(&Tolerance { overshoot, utilisation: 2.0, refused: 2.0 });
        if disagreed.is_empty() {
            return;
        }
    }
    panic!("{disagreed:#?}");
}
