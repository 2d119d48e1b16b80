//! Says whether something is worth a line in the log again. It knows nothing of what is logged.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one line a minute for each address, and memory for so many addresses at a time: whoever floods us with
/// addresses silences only the log.
const PERIOD: Duration = Duration::from_secs(60);
const ADDRESSES_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Seldom(Mutex<HashMap<IpAddr, Instant>>);

impl Seldom {
    pub(super) fn may(&self, address: IpAddr, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(&address).is_some_and(|at| now.duration_since(*at) < PERIOD) {
            return false;
        }
        if said.len() >= ADDRESSES_MAX {
            said.retain(|_, at| now.duration_since(*at) < PERIOD);
        }
        if said.len() >= ADDRESSES_MAX {
            return false;
        }
        said.insert(address, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_minute_an_address_and_never_without_bound() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        assert!(seldom.may(address(1), start));
        assert!(!seldom.may(address(1), start + PERIOD - Duration::from_nanos(1)));
        assert!(seldom.may(address(1), start + PERIOD));
        let later = start + PERIOD;
        let allowed = (2..5000).filter(|n| seldom.may(address(*n), later)).count();
        assert_eq!(allowed, ADDRESSES_MAX - 1);
        assert!(seldom.may(address(6000), later + PERIOD));
    }
}
