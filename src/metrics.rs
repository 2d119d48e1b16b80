//! Metrics: every name and help text. It must not know how anything is counted.
//!
//! Histograms live as long as the process. All else is read from the node when it is scraped and rendered by a recorder
//! of its own, so that a limit or a peer that is gone leaves no line behind.

use metrics::{
    Histogram, Label, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    with_local_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;
use spillgate_core::decision::Reason;
use spillgate_core::table::Tally;
use spillgate_core::view::{PeerState, PeerView};

use crate::redis::{self, Mode};
use crate::snapshot::Written;

const CHECK_DURATION: &str = "spillgate_check_duration_seconds";
const CONVERGENCE: &str = "spillgate_gossip_convergence_seconds";
/// A decision takes from well below a microsecond to, on a machine that is short of time, a few milliseconds.
const CHECK_BUCKETS: [f64; 12] = [
    0.000_000_25,
    0.000_000_5,
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_1,
    0.000_5,
    0.002_5,
    0.01,
    0.1,
];
const CONVERGENCE_BUCKETS: [f64; 13] = [0.001, 0.002_5, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// What is read from the daemon when it is scraped.
#[derive(Debug)]
pub struct Sample {
    /// Limit name, counts, and the bound it states now in tokens.
    pub tallies: Vec<(String, Tally, f64)>,
    /// The peers.
    pub peers: Vec<PeerView>,
    /// Keys evicted though they held information.
    pub evictions: u64,
    /// Bytes of frames sent and received.
    pub bytes: (u64, u64),
    /// How the node decides now, among all modes.
    pub mode: Mode,
    /// The central store, where one is configured.
    pub store: Option<redis::View>,
    /// Frames that were dropped because they did not decode or were no peer's.
    pub frames_refused: u64,
    /// What was written to `data_dir`; `None` without one.
    pub snapshots: Option<Written>,
    /// Of the Redis protocol: connections open, commands by label, errors.
    pub resp: (u64, Vec<(&'static str, u64)>, u64),
    /// What this node is called in `build_info`.
    pub version: &'static str,
}

/// The daemon's metrics.
pub struct Metrics {
    lasting: PrometheusRecorder,
    handle: PrometheusHandle,
    convergence: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let with_buckets = |builder: PrometheusBuilder, name: &str, buckets: &[f64]| {
            builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
                .expect("the list of buckets is not empty")
        };
        let builder = with_buckets(PrometheusBuilder::new(), CHECK_DURATION, &CHECK_BUCKETS);
        let lasting = with_buckets(builder, CONVERGENCE, &CONVERGENCE_BUCKETS).build_recorder();
        let handle = lasting.handle();
        let convergence = with_local_recorder(&lasting, || {
            describe_histogram!(CHECK_DURATION, "Time to decide one check, without waiting and without the network");
            describe_histogram!(CONVERGENCE, "From the tick that told of charges to all peers having confirmed it");
            histogram!(CONVERGENCE)
        });
        Self { lasting, handle, convergence }
    }
}

impl Metrics {
    /// Takes the time of each decision, in seconds.
    pub fn check_duration(&self) -> Histogram {
        with_local_recorder(&self.lasting, || histogram!(CHECK_DURATION))
    }

    /// Takes the time from a charge's tick to its being common knowledge, in seconds.
    pub const fn convergence(&self) -> &Histogram {
        &self.convergence
    }

    /// To be called every few seconds: folds what histograms have taken in.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Everything as Prometheus text.
    #[must_use]
    pub fn render(&self, sample: &Sample) -> String {
        let now = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&now, || {
            limits(sample);
            gossip(sample);
            deciding(sample);
            snapshots(sample);
            resp(sample);
            process(sample);
        });
        let mut text = now.handle().render();
        text.push_str(&self.handle.render());
        text
    }
}

fn limits(sample: &Sample) {
    describe_counter!("spillgate_checks_total", "Checks by limit and outcome: allowed, would_deny, or why denied");
    describe_counter!(
        "spillgate_unconfirmed_denials_total",
        "Checks denied only because peers had not confirmed this node's last charges"
    );
    describe_gauge!(
        "spillgate_overshoot_tokens",
        "The deepest debt that news has shown: tokens admitted beyond the limit, high-water"
    );
    describe_gauge!(
        "spillgate_overshoot_bound_tokens",
        "The most that can be admitted beyond the limit, cluster-wide, while all peers are heard of"
    );
    describe_gauge!("spillgate_keys", "Keys in the table");
    describe_counter!("spillgate_evictions_total", "Keys evicted by the memory bound though they held information");
    for (limit, tally, bound) in &sample.tallies {
        let outcome = |outcome: &'static str, n: u64| {
            counter!("spillgate_checks_total", "limit" => limit.clone(), "outcome" => outcome).absolute(n);
        };
        outcome("allowed", tally.allowed);
        outcome("would_deny", tally.would_deny);
        for reason in Reason::ALL {
            outcome(reason.as_str(), tally.denied[reason as usize]);
        }
        let labels = || vec![Label::new("limit", limit.clone())];
        let unconfirmed = tally.denied[Reason::Unconfirmed as usize];
        counter!("spillgate_unconfirmed_denials_total", labels()).absolute(unconfirmed);
        gauge!("spillgate_overshoot_tokens", labels()).set(tally.overshoot);
        // limits that callers bring have no one bound
        if !bound.is_nan() {
            gauge!("spillgate_overshoot_bound_tokens", labels()).set(*bound);
        }
        gauge!("spillgate_keys", labels()).set(tally.keys as f64);
    }
    counter!("spillgate_evictions_total").absolute(sample.evictions);
}

fn gossip(sample: &Sample) {
    describe_counter!("spillgate_gossip_frames_total", "Frames by peer and direction");
    describe_counter!("spillgate_gossip_bytes_total", "Bytes of frames by direction");
    describe_counter!("spillgate_gossip_lost_frames_total", "Frames with news that were noticed as lost");
    describe_counter!("spillgate_gossip_refused_frames_total", "Frames dropped: undecodable, or of no peer");
    describe_gauge!("spillgate_gossip_news_age_seconds", "Time since the peer's last frame");
    describe_gauge!("spillgate_gossip_round_trip_seconds", "Smoothed round trip to the peer");
    describe_gauge!("spillgate_clock_offset_seconds", "The peer's wall clock minus this node's, estimated");
    describe_gauge!("spillgate_members", "Peers by state, this node not among them");
    for peer in &sample.peers {
        let name = peer.replica.node.to_string();
        let frames = |direction: &'static str, n: u64| {
            counter!("spillgate_gossip_frames_total", "peer" => name.clone(), "direction" => direction).absolute(n);
        };
        frames("sent", peer.frames_sent);
        frames("received", peer.frames_received);
        let labels = || vec![Label::new("peer", name.clone())];
        counter!("spillgate_gossip_lost_frames_total", labels()).absolute(peer.frames_lost);
        if let Some(age) = peer.news_age {
            gauge!("spillgate_gossip_news_age_seconds", labels()).set(age.as_secs_f64());
        }
        if let Some(round_trip) = peer.round_trip {
            gauge!("spillgate_gossip_round_trip_seconds", labels()).set(round_trip.as_secs_f64());
        }
        if let Some(offset) = peer.clock_offset {
            gauge!("spillgate_clock_offset_seconds", labels()).set(offset);
        }
    }
    counter!("spillgate_gossip_bytes_total", "direction" => "sent").absolute(sample.bytes.0);
    counter!("spillgate_gossip_bytes_total", "direction" => "received").absolute(sample.bytes.1);
    counter!("spillgate_gossip_refused_frames_total").absolute(sample.frames_refused);
    for state in PeerState::ALL {
        let count = sample.peers.iter().filter(|p| p.state == state).count();
        gauge!("spillgate_members", "state" => state.as_str()).set(count as f64);
    }
}

fn deciding(sample: &Sample) {
    describe_gauge!("spillgate_mode", "1 for the way in which the node decides now: local, redis, or degraded");
    for mode in Mode::ALL {
        gauge!("spillgate_mode", "mode" => mode.as_str()).set(f64::from(u8::from(mode == sample.mode)));
    }
    let Some(store) = &sample.store else { return };
    describe_counter!("spillgate_redis_requests_total", "Checks that were Redis' to decide, by what came of it");
    describe_counter!(
        "spillgate_redis_switches_total",
        "Times that deciding went over to Redis, and back to the nodes"
    );
    describe_gauge!("spillgate_redis_up", "Whether Redis answers");
    for (outcome, n) in store.outcomes {
        counter!("spillgate_redis_requests_total", "outcome" => outcome.as_str()).absolute(n);
    }
    counter!("spillgate_redis_switches_total", "to" => "redis").absolute(store.switches.0);
    counter!("spillgate_redis_switches_total", "to" => "local").absolute(store.switches.1);
    gauge!("spillgate_redis_up").set(f64::from(u8::from(store.is_up)));
}

fn snapshots(sample: &Sample) {
    let Some(Written { written, failed, bytes }) = sample.snapshots else { return };
    describe_counter!("spillgate_snapshots_total", "Snapshots of the table by outcome: written, failed");
    describe_gauge!("spillgate_snapshot_bytes", "Size of the last snapshot written");
    for (outcome, n) in [("written", written), ("failed", failed)] {
        counter!("spillgate_snapshots_total", "outcome" => outcome).absolute(n);
    }
    gauge!("spillgate_snapshot_bytes").set(bytes as f64);
}

fn resp(sample: &Sample) {
    describe_gauge!("spillgate_resp_connections", "Connections of the Redis protocol");
    describe_counter!("spillgate_resp_commands_total", "Commands of the Redis protocol");
    describe_counter!("spillgate_resp_errors_total", "Commands of the Redis protocol answered with an error");
    let (connections, commands, errors) = &sample.resp;
    gauge!("spillgate_resp_connections").set(*connections as f64);
    for (command, n) in commands {
        counter!("spillgate_resp_commands_total", "command" => *command).absolute(*n);
    }
    counter!("spillgate_resp_errors_total").absolute(*errors);
}

fn process(sample: &Sample) {
    describe_gauge!("spillgate_build_info", "Always 1; the version is the label");
    gauge!("spillgate_build_info", "version" => sample.version).set(1.0);
    let collector = Collector::default();
    collector.describe();
    collector.collect();
}
