//! Which of a peer's frames this node had received before it told the last of what has arrived there. It must not know
//! what was told, or how.
//!
//! A confirmation counts only with all that was told before it, and on a link where something is always under way, lost or
//! waiting for room the peer never has all of it. So this node notes now and then what it has received, and once all has
//! arrived that it had to tell by then, says so in its frames: that counts.

use super::received::Received;
use crate::wire::{Ack, EXTENSION_SETTLED, Header};

/// What one peer is told of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settled {
    /// What had been received when a tick was told that has not arrived yet.
    noted: Option<(u64, Received)>,
    /// The same of a tick that has arrived, with all before it.
    settled: Received,
}

impl Settled {
    /// Looks whether all has arrived that was noted, `missing` being the oldest tick of which something has not; if so,
    /// notes what is `received` as `tick` is told.
    pub fn look(&mut self, tick: u64, missing: Option<u64>, received: Received) {
        match self.noted {
            Some((noted, _)) if missing.is_some_and(|missing| missing <= noted) => {}
            noted => {
                self.settled = noted.map_or(self.settled, |(_, then)| then);
                self.noted = Some((tick, received));
            }
        }
    }

    /// As it is said.
    pub fn extension(&self) -> Option<(u8, Vec<u8>)> {
        let (high, bits) = self.settled.names()?;
        let content = u128::from(high) << 64 | u128::from(bits);
        Some((EXTENSION_SETTLED, content.to_be_bytes().to_vec()))
    }
}

/// What a peer says of it.
pub(super) fn read(header: &Header) -> Option<Ack> {
    let content: u128 = header.extension(EXTENSION_SETTLED).map(u128::from_be_bytes)?;
    Some(Ack { high: (content >> 64) as u64, bits: content as u64, ..header.ack? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Nanos;

    fn received(frames: u64) -> Received {
        let mut received = Received::default();
        (1..=frames).for_each(|seq| assert!(received.note(seq, Nanos::ZERO)));
        received
    }

    fn high(settled: &Settled) -> Option<u64> {
        settled.settled.names().map(|(high, _)| high)
    }

    #[test]
    fn what_was_received_is_settled_once_all_told_by_then_has_arrived() {
        let mut settled = Settled::default();
        assert_eq!(settled.extension(), None, "nothing was received");
        settled.look(10, Some(4), received(3));
        settled.look(11, Some(10), received(5));
        assert_eq!(high(&settled), None, "tick 10 is missing");
        settled.look(12, Some(11), received(6));
        assert_eq!(high(&settled), Some(3), "and not what was received since");
        settled.look(13, Some(12), received(7));
        assert_eq!(high(&settled), Some(3));
        settled.look(14, None, received(8));
        assert_eq!(high(&settled), Some(6));
    }
}
