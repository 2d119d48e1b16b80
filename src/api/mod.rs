//! The ways in, HTTP and the Redis protocol: translates requests, asks the driver, answers. It must not know peers,
//! QUIC, a Redis server or arithmetic.

mod answer;
mod ask;
mod body;
mod connection;
mod cork;
mod http;
mod listen;
mod pace;
mod plain;
mod problem;
mod request;
mod resp;
mod token;
mod view;

use std::sync::Arc;

use spillgate_core::time::Nanos;
use spillgate_core::view::PeerState;
use tokio::sync::Semaphore;

use crate::driver::Driver;

pub use self::http::Http;
pub use self::listen::{CONNECTIONS_MAX, Speak, bind_unix, raise_file_limit, serve_tcp, serve_unix};
pub use self::pace::Patience;
pub use self::plain::read_front;
pub use self::resp::{Resp, RespCounts};
pub use self::token::{Token, TokenError, read_text as read_token};

/// Whether this node should be sent requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// State is loaded and the cluster joined, or the time to join is up.
    Ready,
    /// Still loading or joining; checks are answered all the same, on what is known.
    Joining,
    /// On the way out: checks are refused with 503.
    Draining,
}

impl Readiness {
    /// The name in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Joining => "joining",
            Self::Draining => "draining",
        }
    }
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's name; none for a single node.
    pub cluster: Option<String>,
    /// The node's id.
    pub node: String,
    /// Larger in each run of the node.
    pub incarnation: u64,
    /// Where its peers reach it; none for a single node.
    pub address: Option<String>,
    /// The program's version.
    pub version: &'static str,
    /// Since the node started.
    pub uptime: Nanos,
}

/// Another node, as this one sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberView {
    /// The node's id.
    pub node: String,
    /// Which run of it.
    pub incarnation: u64,
    /// Where it is reached; none where that is not known any more.
    pub address: Option<String>,
    /// How it stands.
    pub state: PeerState,
    /// Smoothed round trip; none before the first confirmation.
    pub round_trip: Option<Nanos>,
    /// Time since its last frame; none before the first.
    pub news_age: Option<Nanos>,
    /// Its wall clock minus ours, in seconds; none before the first estimate.
    pub clock_offset: Option<f64>,
    /// Frames sent to it.
    pub frames_sent: u64,
    /// Frames received of it.
    pub frames_received: u64,
    /// Frames to it that were noticed as lost.
    pub frames_lost: u64,
}

/// Who decides, and how the central store does that may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeciderView {
    /// How the node decides now.
    pub mode: &'static str,
    /// The central store, where one is configured.
    pub store: Option<StoreView>,
}

/// The central store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreView {
    /// When it is to decide.
    pub when: &'static str,
    /// Where it is, without any secret.
    pub address: String,
    /// Whether it answers.
    pub is_up: bool,
    /// Whether it is a cluster; none before it was reached.
    pub is_cluster: Option<bool>,
    /// Whether nodes that it hears of decide without it, so that this node's share holds too.
    pub shares: bool,
    /// How often deciding went over to it.
    pub switched_over: u64,
    /// And back.
    pub switched_back: u64,
    /// What went wrong last, while it does not answer.
    pub last_error: Option<String>,
}

/// What the API asks of the daemon besides checks.
pub trait Control: Send + Sync + 'static {
    /// Whether this node should be sent requests. Asked on every check, so it must be cheap.
    fn readiness(&self) -> Readiness;

    /// Loads the limits from the configuration again, without losing counts. May block on files.
    ///
    /// # Errors
    /// The whole text of what is wrong with the new configuration; nothing was changed then.
    fn reload(&self) -> Result<String, String>;

    /// Refuses checks with 503 from now on; the process goes on.
    fn drain(&self);

    /// Every metric as Prometheus text. May take some milliseconds.
    fn metrics(&self) -> String;

    /// Who this node is.
    fn identity(&self) -> Identity;

    /// Who decides.
    fn decider(&self) -> DeciderView;

    /// The other nodes of the cluster, without this one.
    fn members(&self) -> Vec<MemberView>;
}

/// What the API needs to answer.
pub struct Api {
    /// Decides.
    pub driver: Driver,
    /// Everything but checks.
    pub control: Arc<dyn Control>,
    /// What a caller must present; none lets everybody in.
    pub token: Option<Arc<Token>>,
    /// How many checks may be answered at once; further ones are told so, whoever asks, and change nothing.
    pub checks: Arc<Semaphore>,
}

/// How many checks a node answers at once. One that is not held takes microseconds, so that these are requests that wait
/// for tokens or for confirmation: each takes some kilobytes, and is tried again whenever news comes.
pub const CHECKS_MAX: usize = 4096;
