//! Several nodes hold one limit in virtual time: no overshoot, and little left unused.

mod common;

use common::{Cluster, MS, limits, offer};
use spillgate_core::limit::{Accuracy, Algorithm};

#[test]
fn table() {
    for accuracy in [Accuracy::Strict, Accuracy::default(), Accuracy::Gossip] {
        for (n, rate, burst, delay, loss, weights, name) in [
            (3, 1000.0, 1000, 0, 0.0, vec![6.0, 3.0, 1.0], "demo"),
            (3, 1000.0, 1000, MS / 2, 0.0, vec![1.0; 3], "even"),
            (10, 1000.0, 1000, 20 * MS, 0.0, vec![1.0; 10], "even"),
            (10, 1000.0, 100, MS / 2, 0.0, vec![1.0; 10], "even"),
            (10, 1000.0, 100, 20 * MS, 0.0, vec![1.0; 10], "even"),
            (10, 1000.0, 100, 20 * MS, 0.2, vec![1.0; 10], "even"),
            (
                10,
                1000.0,
                100,
                20 * MS,
                0.0,
                {
                    let mut w = vec![0.0; 10];
                    w[0] = 1.0;
                    w
                },
                "one",
            ),
            (10, 100.0, 10, MS / 2, 0.0, vec![1.0; 10], "small"),
        ] {
            let limits = limits(Algorithm::TokenBucket, &format!("{rate}/s"), Some(burst), accuracy);
            let mut cluster = Cluster::new(n, limits, delay, loss, 1);
            cluster.settle();
            let out = offer(&mut cluster, rate, burst as f64, 3.0, &weights, 5000);
            eprintln!(
                "{:8} n {n:2} b {burst:4} d {:4.1} loss {loss} {name:5}: over {:6.1} tokens ({:5.1} %) util {:5.1} % frames {} bytes {}",
                accuracy.as_str(),
                delay as f64 / MS as f64,
                out.over,
                out.over / burst as f64 * 100.0,
                out.utilisation * 100.0,
                cluster.frames,
                cluster.bytes
            );
        }
    }
}
