//! The way into the cluster: seeds, by address or name, resolved and dialed again and again. It knows only addresses.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, sleep, timeout};

use super::quic::Mesh;
use super::roster::Roster;

/// Between dials while no peer is up; each address has its own backoff besides.
const ALONE: Duration = Duration::from_millis(500);
/// Between resolutions while no peer is up, and when there is one: then it only heals a split that both sides have
/// forgotten.
const RESOLVE_ALONE: Duration = Duration::from_secs(2);
const RESOLVE_TOGETHER: Duration = Duration::from_secs(30);
/// Between looks whether the first dials have ended.
const TRIED: Duration = Duration::from_millis(10);
const LOOKUP: Duration = Duration::from_secs(5);
/// A name may stand for every pod of a service; some of them will do.
const ADDRESSES_MAX: usize = 32;

/// Runs for one seed until it is aborted. Takes one off `untried` when the seed has led to somebody or nobody.
pub(super) async fn follow(seed: String, mesh: Arc<Mesh>, roster: Arc<Mutex<Roster>>, untried: Arc<AtomicUsize>) {
    let mut addresses = Vec::new();
    let mut tried = false;
    let mut resolved_at: Option<Instant> = None;
    let mut told = None;
    loop {
        let alone = roster.lock().unwrap_or_else(PoisonError::into_inner).is_alone();
        let pace = if alone { RESOLVE_ALONE } else { RESOLVE_TOGETHER };
        let due = resolved_at.is_none_or(|at| at.elapsed() >= pace);
        if due {
            let outcome = resolve(&seed).await;
            resolved_at = Some(Instant::now());
            tell(&seed, &outcome, &mut told);
            // a name server that is away for a moment takes no seed away
            addresses = outcome.unwrap_or(addresses);
        }
        if due || alone {
            for address in &addresses {
                mesh.dial(*address, None);
            }
        }
        if !tried {
            while addresses.iter().any(|address| mesh.is_dialing(*address)) {
                sleep(TRIED).await;
            }
            untried.fetch_sub(1, Relaxed);
            tried = true;
        }
        sleep(ALONE).await;
    }
}

async fn resolve(seed: &str) -> Result<Vec<SocketAddr>, String> {
    let found = timeout(LOOKUP, lookup_host(seed)).await.map_err(|_| format!("no answer in {LOOKUP:?}"))?;
    let mut addresses: Vec<_> = found.map_err(|error| error.to_string())?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() { Err("the name has no address".into()) } else { Ok(addresses) }
}

/// One line each time the outcome is another than before.
fn tell(seed: &str, outcome: &Result<Vec<SocketAddr>, String>, told: &mut Option<Result<Vec<SocketAddr>, String>>) {
    if told.as_ref() == Some(outcome) {
        return;
    }
    match outcome {
        Ok(addresses) => tracing::info!(seed, ?addresses, "seed resolved"),
        Err(error) => tracing::warn!(seed, error, "seed cannot be resolved; trying again and again"),
    }
    *told = Some(outcome.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_names_resolve_and_nonsense_is_an_error() {
        assert_eq!(resolve("127.0.0.1:8471").await.unwrap(), vec!["127.0.0.1:8471".parse().unwrap()]);
        assert!(resolve("localhost:8471").await.unwrap().iter().all(|address| address.ip().is_loopback()));
        for nonsense in ["no-port", "", "name.invalid.:8471", "127.0.0.1:99999"] {
            assert!(resolve(nonsense).await.is_err(), "{nonsense}");
        }
    }

    #[test]
    fn an_outcome_is_told_once() {
        let (good, bad) = (Ok(vec!["127.0.0.1:1".parse().unwrap()]), Err("no such name".to_owned()));
        let mut told = None;
        for outcome in [&good, &good, &bad, &bad, &good] {
            tell("seed:1", outcome, &mut told);
            assert_eq!(told.as_ref(), Some(outcome));
        }
    }
}
