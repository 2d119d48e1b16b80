//! How fast the simulator is on one core: simulated requests a second of real time, at ten nodes by load, and what larger
//! clusters take, whose frames grow with the square of the nodes: a thousand nodes send twenty million frames a second
//! to keep their links alive. Beside each figure stands what it is in steps of a fixed loop, since machines and their
//! neighbours differ: judge a change by those, or by the instructions that
//! `valgrind --tool=cachegrind --cache-sim=no` counts.
//!
//! ```console
//! $ cargo bench -p spillgate-sim                              some two minutes
//! $ cargo bench -p spillgate-sim -- bounded 10 400000 1       one strategy: nodes, the limit's rate, seconds
//! ```

use std::time::{Duration, Instant};

use spillgate_sim::run::run;
use spillgate_sim::scenario::Scenario;
use spillgate_sim::strategy;

/// Strategy, nodes, the limit's rate (half as much again is offered), seconds.
type Case<'c> = (&'c str, u64, u64, u64);

const CASES: [Case<'static>; 7] = [
    ("oracle", 10, 400_000, 5),
    ("gossip", 10, 400_000, 5),
    ("bounded", 10, 400_000, 5),
    ("strict", 10, 400_000, 5),
    ("bounded", 10, 100_000, 5),
    ("bounded", 10, 10_000, 5),
    ("bounded", 100, 1000, 2),
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

fn measure((name, nodes, rate, seconds): Case<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let strategy = strategy::find(name).ok_or_else(|| format!("no strategy is called {name}"))?;
    let text = format!(
        "duration = '{seconds}s'\n[nodes]\ncount = {nodes}\n[[limit]]\nrate = '{rate}/s'\n[[workload]]\nload = 1.5\n"
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
        [name, nodes, rate, seconds] => measure((name, nodes.parse()?, rate.parse()?, seconds.parse()?)),
        _ => Err("give nothing, or: strategy nodes rate seconds".into()),
    }
}
