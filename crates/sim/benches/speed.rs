//! How fast the simulator is: simulated requests a second of real time under `bounded`, at ten nodes, by load.

use std::time::Instant;

use spillgate_sim::run::run;
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy;

#[expect(clippy::disallowed_methods, reason = "real time is what is measured here")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bounded = strategy::find("bounded").ok_or("bounded is gone")?;
    for rate in [1_000, 10_000, 100_000, 400_000] {
        let text =
            format!("duration = '10s'\n[nodes]\ncount = 10\n[[limit]]\nrate = '{rate}/s'\n[[workload]]\nload = 1.5\n");
        let scenario = Scenario::parse("speed", &text, &|_| Err("it reads no files".to_owned()));
        let scenario = scenario.map_err(|problems| format!("{problems:?}"))?;
        let begun = Instant::now();
        let result = run(&scenario, bounded, 1);
        let took = begun.elapsed().as_secs_f64();
        let (requests, frames) = (result.measures.offered.count, result.measures.traffic.count);
        println!(
            "{rate}/s: {requests} requests and {frames} frames in {took:.2} s: {:.0} requests, {:.0} events a second",
            requests as f64 / took,
            result.events as f64 / took
        );
    }
    Ok(())
}
