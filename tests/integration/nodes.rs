//! Several daemons at once: started behind a relay, spent from until nothing is left, watched together.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::daemon::{DEADLINE, Daemon, Setup, meet, until, write_secret};
use crate::relay::Relay;

/// How long a request waits for what only its peers' confirmation keeps from it.
const WAIT_MS: u64 = 300;

/// The setup of a node of a cluster that stands in `directory`, alone so far.
pub fn member(directory: &TempDir, name: &str, limits: &str) -> Setup {
    let secret = directory.path().join("secret");
    let secret = if secret.exists() { secret } else { write_secret(directory.path(), "secret") };
    Setup { name: name.to_owned(), secret: Some(secret), ..Setup::single(limits) }
}

/// Setups of nodes that reach one another through the relay alone; each has all of them as seeds.
pub async fn behind(relay: &mut Relay, directory: &TempDir, names: &[&str], limits: &str) -> Vec<Setup> {
    for name in names {
        relay.open(name).await;
    }
    let seeds: Vec<String> = names.iter().map(|name| relay.address(name).to_string()).collect();
    let setup = |name: &&str| Setup {
        advertise: Some(relay.address(name)),
        seeds: seeds.clone(),
        ..member(directory, name, limits)
    };
    names.iter().map(setup).collect()
}

/// Starts them at once, and places them in the relay.
pub async fn start_behind(relay: &Relay, directory: &Arc<TempDir>, setups: Vec<Setup>) -> Vec<Daemon> {
    let mut starting = JoinSet::new();
    for setup in setups {
        let directory = directory.clone();
        starting.spawn(async move { Daemon::start(&directory, setup).await });
    }
    let mut daemons = Vec::new();
    while let Some(daemon) = starting.join_next().await {
        let daemon = daemon.unwrap();
        relay.place(&daemon.name, daemon.cluster.unwrap());
        daemons.push(daemon);
    }
    daemons.sort_by(|a, b| a.name.cmp(&b.name));
    daemons
}

/// A cluster of these names behind the relay, all of them met.
pub async fn meet_behind(relay: &mut Relay, names: &[&str], limits: &str) -> Vec<Daemon> {
    let directory = Arc::new(TempDir::new().unwrap());
    let setups = behind(relay, &directory, names, limits).await;
    let daemons = start_behind(relay, &directory, setups).await;
    meet(&daemons).await;
    daemons
}

/// Asks for one token under `api`, waiting a moment for confirmation.
pub async fn take_one(daemon: &Daemon, key: &str) -> Value {
    let body = json!({"limit": "api", "key": key, "wait_ms": WAIT_MS});
    daemon.post("/v1/check", body).await.unwrap_or_else(|e| panic!("check at {}: {e}", daemon.name))
}

/// Takes tokens one by one until it has so many.
pub async fn spend(daemon: &Daemon, key: &str, tokens: u64) {
    let deadline = Instant::now() + DEADLINE;
    let mut granted = 0;
    while granted < tokens {
        granted += u64::from(take_one(daemon, key).await["allowed"] == true);
        if Instant::now() >= deadline {
            let (key, cluster) = (daemon.get(&format!("/v1/keys/api/{key}")).await, daemon.get("/v1/cluster").await);
            panic!("{} granted only {granted} of {tokens}: {key:#} {cluster:#}", daemon.name);
        }
    }
}

/// Waits until none of them reckons with demand for the key: one that is killed then takes along nothing that was granted
/// unheard, as far as a bounded limit assumes.
pub async fn at_rest(daemons: &[Daemon], key: &str) {
    for daemon in daemons {
        until("nobody has demand any more", async || {
            let key = daemon.get(&format!("/v1/keys/api/{key}")).await;
            key["replicas"].as_array().unwrap().iter().all(|replica| replica["demand"] == 0.0)
        })
        .await;
    }
}

/// Takes tokens at all of them at once, each until it refuses for good; how many it were.
pub async fn exhaust(daemons: &[Daemon], key: &str) -> u64 {
    let mut spending = JoinSet::new();
    for daemon in daemons {
        let (client, name, key) = (daemon.client(), daemon.name.clone(), key.to_owned());
        spending.spawn(async move {
            let body = json!({"limit": "api", "key": key, "wait_ms": WAIT_MS});
            let wait = Duration::from_millis(WAIT_MS);
            for granted in 0.. {
                let answer = client.post("/v1/check", &body, wait).await;
                if answer.unwrap_or_else(|e| panic!("check at {name}: {e}"))["allowed"] == false {
                    return granted;
                }
            }
            unreachable!("a limit that never refuses")
        });
    }
    spending.join_all().await.into_iter().sum()
}

/// Waits until each of them sees so many tokens left.
pub async fn all_see(daemons: &[Daemon], key: &str, tokens: f64) {
    for daemon in daemons {
        let mut seen = f64::NAN;
        let deadline = Instant::now() + DEADLINE;
        while seen.round() != tokens {
            assert!(Instant::now() < deadline, "{} sees {seen} of {key}, not {tokens}: {}", daemon.name, daemon.log());
            seen = daemon.level(key).await;
        }
    }
}
