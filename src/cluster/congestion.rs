//! How much may be under way on a connection. It knows nothing of peers, nor of what is sent.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, CubicConfig};

/// A peer that has confirmed nothing for so long is cut off rather than congested: acknowledgements come within 25 ms
/// and a round trip. In long round trips, for so many of them.
const CUT_OFF: Duration = Duration::from_millis(200);
const CUT_OFF_TRIPS: u32 = 3;
/// Then so much may be under way: the news of every tick, a full datagram each, until the connection is given up.
const CUT_OFF_BYTES: u64 = 1 << 20;

/// Cubic, but to a peer that confirms nothing news is sent on.
///
/// In a partition nothing is confirmed, so that the window fills within a second or so. QUIC then sends nothing but
/// probes, each after twice the time of the one before: when the partition has healed after three seconds, the next
/// probe was up to three more seconds away, and the peers stayed silent for each other. News is a datagram a tick and
/// worthless when it is late: it needs no window to hold it back, and the first of it to get through ends the silence.
/// Where packets are lost while others are confirmed, which is what congestion looks like, Cubic alone decides.
pub(super) struct NewsGoesOn(CubicConfig);

impl NewsGoesOn {
    pub(super) fn config() -> Arc<Self> {
        Arc::new(Self(CubicConfig::default()))
    }
}

impl ControllerFactory for NewsGoesOn {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::new(self.0.clone()).build(now, current_mtu);
        Box::new(Window { cubic, unconfirmed_since: None, patience: CUT_OFF, cut_off: false })
    }
}

struct Window {
    cubic: Box<dyn Controller>,
    /// Since when something has been under way and nothing was confirmed.
    unconfirmed_since: Option<Instant>,
    patience: Duration,
    cut_off: bool,
}

impl Controller for Window {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        let since = *self.unconfirmed_since.get_or_insert(now);
        self.cut_off = now.saturating_duration_since(since) > self.patience;
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &quinn_proto::RttEstimator) {
        (self.unconfirmed_since, self.cut_off) = (None, false);
        self.patience = CUT_OFF.max(rtt.get() * CUT_OFF_TRIPS);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.cubic.window();
        if self.cut_off { window.max(CUT_OFF_BYTES) } else { window }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), ..*self })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: u16 = 1200;

    #[test]
    fn the_window_opens_only_when_nothing_is_confirmed_for_long() {
        let start = Instant::now();
        let mut window = NewsGoesOn::config().build(start, DATAGRAM);
        let cubic = Arc::new(CubicConfig::default()).build(start, DATAGRAM);
        for (packet, at) in [Duration::ZERO, CUT_OFF / 2, CUT_OFF].into_iter().enumerate() {
            window.on_sent(start + at, u64::from(DATAGRAM), packet as u64);
            assert_eq!(window.window(), cubic.window());
        }
        window.on_sent(start + CUT_OFF + Duration::from_millis(1), u64::from(DATAGRAM), 3);
        assert_eq!((window.window(), window.clone_box().window()), (CUT_OFF_BYTES, CUT_OFF_BYTES));
        assert_eq!(window.initial_window(), cubic.initial_window());
    }
}
