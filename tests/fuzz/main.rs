//! Mutates the corpora in `fuzz/corpus` for a fixed number of rounds by a fixed seed, and gives the results to what reads
//! bytes from outside. `SPILLGATE_FUZZ=1000000 cargo test --test fuzz` runs so many rounds; libFuzzer runs the same
//! targets with the coverage of the code to guide it, see `fuzz/`.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy knows tests by their attribute, not what they call

mod mutate;
mod seeds;
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mutate::Mutator;
use targets::{TARGETS, Target};

/// Rounds of each target: some seconds.
const ROUNDS: usize = 20_000;
/// A request or a configuration costs more than a frame.
const ROUNDS_TEXT: usize = 4_000;
/// No round takes so long, however busy the machine is.
const ROUND_MAX: Duration = Duration::from_secs(60);
const SEED: u64 = 20_261_124;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)
}

fn load(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Outcomes that were seen, over all rounds.
fn fuzz(name: &str, target: Target, rounds: usize) -> BTreeSet<String> {
    let rounds = std::env::var("SPILLGATE_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(rounds);
    let mut pool = load(name);
    assert!(!pool.is_empty(), "no corpus of {name}");
    let (watched, watch) = mpsc::channel();
    let of = name.to_owned();
    let watching = thread::spawn(move || end_at_hang(&of, &watch));
    let begin = |input: &[u8]| watched.send(input.to_vec()).unwrap();
    let mut seen = BTreeSet::new();
    for input in &pool {
        begin(input);
        seen.insert(target(input));
    }
    let mut mutator = Mutator::new(SEED);
    for round in 0..rounds {
        let input = mutator.mutate(&pool);
        begin(&input);
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let Ok(outcome) = outcome else {
            let path = keep(name, &round.to_string(), &input);
            panic!("round {round} of {name} (seed {SEED}): the input is in {}, keep it in the corpus", path.display());
        };
        // what led to something new leads on
        if seen.insert(outcome) {
            pool.push(input);
        }
    }
    drop(watched);
    watching.join().unwrap();
    eprintln!("{name}: {rounds} rounds, {} outcomes, {} inputs kept", seen.len(), pool.len());
    seen
}

/// Ends the tests where an input is read for ever: what hangs without a pause can't be left otherwise.
fn end_at_hang(name: &str, inputs: &mpsc::Receiver<Vec<u8>>) {
    let mut last = Vec::new();
    loop {
        match inputs.recv_timeout(ROUND_MAX) {
            Ok(input) => last = input,
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let path = keep(name, "hang", &last);
                // not by eprintln, which is kept for the end of a test
                let told =
                    format!("an input of {name} is read for ever: it is in {}, keep it in the corpus", path.display());
                let _ = writeln!(std::io::stderr(), "{told}");
                std::process::abort();
            }
        }
    }
}

fn keep(name: &str, what: &str, input: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("spillgate-fuzz-{name}-{what}"));
    fs::write(&path, input).unwrap();
    path
}

fn run(name: &str, rounds: usize) -> BTreeSet<String> {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    fuzz(name, *target, rounds)
}

#[test]
fn frames() {
    let seen = run("frame", ROUNDS);
    // it got past the decoder, and met its limits
    assert!(seen.iter().any(|s| s.starts_with("heard 3")) && seen.iter().any(|s| s.starts_with("Value")), "{seen:?}");
}

#[test]
fn messages() {
    let seen = run("message", ROUNDS);
    assert!(
        seen.iter().any(|s| s.starts_with("Unasked State")) && seen.iter().any(|s| s.starts_with("Value")),
        "{seen:?}"
    );
}

#[test]
fn slices() {
    let seen = run("slice", ROUNDS);
    assert!(seen.contains("3 0") && seen.contains("3 2") && seen.contains("Trailing"), "{seen:?}");
}

#[test]
fn configurations() {
    let seen = run("config", ROUNDS_TEXT);
    assert!(seen.iter().any(|s| s.ends_with("true")) && seen.len() > 50, "{seen:?}");
}

#[test]
fn http_bodies() {
    let seen = run("http", ROUNDS_TEXT);
    for part in ["/v1/check 200", "/v1/checks 200", "/v1/refund 200", "/v1/reset 200", " 422 ", " 400 ", " 404 "] {
        assert!(seen.iter().any(|s| s.contains(part)), "{part} was not seen: {seen:?}");
    }
}

#[test]
fn plain_requests() {
    let seen = run("plain", ROUNDS_TEXT);
    for outcome in ["rest", "/v1/check 9 whole", "/v1/checks 9 whole", "/v1/check 9 /v1/check 9 whole"] {
        assert!(seen.contains(outcome), "{outcome} was not seen: {seen:?}");
    }
    assert!(seen.len() > 15, "{seen:?}");
}

#[test]
fn commands_of_redis_clients() {
    let seen = run("resp", ROUNDS_TEXT);
    for part in ["PONG", "OK", "ERRunknownlimit", "ERRProtocolerror", "ERRunknowncommand", "ERRwrongnumber"] {
        assert!(seen.iter().any(|s| s.contains(part)), "{part} was not seen: {seen:?}");
    }
}

/// One input, to look into what a run has found: `SPILLGATE_FUZZ_INPUT=frame:/tmp/file`.
#[test]
#[ignore = "for an input at hand"]
fn one_input() {
    let told = std::env::var("SPILLGATE_FUZZ_INPUT").unwrap();
    let (name, path) = told.split_once(':').unwrap();
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    eprintln!("{}", target(&fs::read(path).unwrap()));
}

/// Writes the seeds that are encoded by the program itself; to be run when a format changes.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_seeds() {
    for (name, inputs) in seeds::all() {
        fs::create_dir_all(corpus(name)).unwrap();
        for (i, input) in inputs.iter().enumerate() {
            fs::write(corpus(name).join(format!("seed-{i}")), input).unwrap();
        }
    }
}

/// What the program encodes today is in the corpora: else they are of an older format, and every input is refused at once.
#[test]
fn the_corpora_are_of_the_present_format() {
    for (name, inputs) in seeds::all() {
        let kept = load(name);
        for (i, input) in inputs.iter().enumerate() {
            assert!(kept.contains(input), "seed-{i} of {name}: run `cargo test --test fuzz -- --ignored write_seeds`");
        }
    }
}
