//! How fast the simulator is on one core: simulated requests a second of real time, at ten nodes by load, and what larger
//! clusters take, whose frames grow with the square of the nodes. Beside each figure stands what it is in steps of a fixed
//! loop, since machines and their neighbours differ: judge a change by those, or by the instructions that
//! `valgrind --tool=cachegrind --cache-sim=no` counts.
//!
//! A thousand nodes for a minute take minutes where nodes tell one another little (`oracle`, `central`, `static`,
//! `demand-share`, `owner`, `window-counter`). A full mesh of spillgate at its default pace takes hours: idle links alone
//! carry twenty million frames a virtual second, busy ones up to one every 10 ms, and links out of the processor's caches
//! cost two to four microseconds a frame. There it is some two minutes of processor at 100 nodes, ten at 200, the most
//! that is still minutes, and most of an hour at 300; a thousand nodes that tell news once a second took 184 s for 12
//! virtual seconds, their meeting included. All but the last are reckoned from runs of a second or two.
//!
//! ```console
//! $ cargo bench -p spillgate-sim                              some two minutes
//! $ cargo bench -p spillgate-sim -- bounded 10 400000 1       one strategy: nodes, the limit's rate, seconds
//! $ cargo bench -p spillgate-sim -- bounded 1000 1000 60 1000 the same with news only every so many milliseconds
//! ```

use std::time::{Duration, Instant};

use spillgate_sim::run::run;
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy;

/// Strategy, nodes, the limit's rate (half as much again is offered), seconds, milliseconds between rounds of news.
type Case<'c> = (&'c str, u64, u64, u64, u64);

/// Between rounds of news by default, milliseconds.
const INTERVAL: u64 = 10;

const CASES: [Case<'static>; 7] = [
    ("oracle", 10, 400_000, 5, INTERVAL),
    ("gossip", 10, 400_000, 5, INTERVAL),
    ("bounded", 10, 400_000, 5, INTERVAL),
    ("strict", 10, 400_000, 5, INTERVAL),
    ("bounded", 10, 100_000, 5, INTERVAL),
    ("bounded", 10, 10_000, 5, INTERVAL),
    ("bounded", 100, 1000, 2, INTERVAL),
];

/// How long it took this thread, in time on the processor where the system tells that: neighbours take less of it.
#[expect(clippy::disallowed_methods, reason = "real time is what is measured here")]
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let (begun, on_cpu) = (Instant::now(), on_cpu());
    let result = work();
    let took = on_cpu.zip(self::on_cpu()).map(|(before, after)| Duration::from_nanos(after.saturating_sub(before)));
    (took.unwrap_or_else(|| begun.elapsed()), result)
}

/// Nanoseconds that this thread has run so far; Linux tells.
fn on_cpu() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Nanoseconds a step of the fixed loop: a multiplication and a shift that wait for the one before. The best of five.
fn step_ns() -> f64 {
    const STEPS: u64 = 20_000_000;
    let once = |seed: u64| {
        let (took, end) = timed(|| {
            (0..STEPS).fold(seed, |state, n| {
                let next = (state ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                next ^ (next >> 29)
            })
        });
        std::hint::black_box(end);
        took.as_secs_f64() * 1e9 / STEPS as f64
    };
    (1..=5).map(once).fold(f64::INFINITY, f64::min)
}

/// What a cluster needs whose news is slow: a node waits for several rounds before it takes another for silent, and until
/// all have met.
fn slow(interval: u64) -> (String, String) {
    let (stale, warmup) = (4 * interval, 2000 + 4 * interval);
    let run = format!("warmup = '{warmup}ms'\nsample_every = '{interval}ms'\n");
    (run, format!("gossip_interval = '{interval}ms'\nstale_after = '{stale}ms'\n"))
}

fn measure((name, nodes, rate, seconds, interval): Case<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let strategy = strategy::find(name).ok_or_else(|| format!("no strategy is called {name}"))?;
    let (of_run, of_nodes) = if interval == INTERVAL { (String::new(), String::new()) } else { slow(interval) };
    let text = format!(
        "duration = '{seconds}s'\n{of_run}[nodes]\ncount = {nodes}\n{of_nodes}[[limit]]\nrate = '{rate}/s'\n[[workload]]\nload = 1.5\n"
    );
    let scenario = Scenario::parse("speed", &text, &|_| Err("it reads no files".to_owned()));
    let scenario = scenario.map_err(|problems| format!("{problems:?}"))?;
    let step = step_ns();
    let (took, result) = timed(|| run(&scenario, strategy, 1));
    let (requests, frames) = (result.measures.offered.count, result.measures.traffic.count);
    let took = took.as_secs_f64();
    let each = |count: u64| took * 1e9 / count.max(1) as f64 / step;
    println!(
        "{name:8} {nodes:>4} nodes {:>7}/s: {requests:>8} requests, {frames:>8} frames in {took:>6.2} s; {:>8.0} requests/s, \
         {:>8.0} events/s; {:>6.0} steps a request, {:>5.0} an event (a step: {step:.2} ns), hash {}",
        rate + rate / 2,
        requests as f64 / took,
        result.events as f64 / took,
        each(requests),
        each(result.events),
        result.hash,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // cargo adds a flag of its own
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.as_slice() {
        [] => CASES.into_iter().try_for_each(measure),
        [name, nodes, rate, seconds, rest @ ..] if rest.len() <= 1 => {
            let interval = rest.first().map_or(Ok(INTERVAL), |interval| interval.parse())?;
            measure((name, nodes.parse()?, rate.parse()?, seconds.parse()?, interval))
        }
        _ => Err("give nothing, or: strategy nodes rate seconds [milliseconds between rounds of news]".into()),
    }
}
