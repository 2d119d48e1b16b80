//! The driver: owns the core's node and the clock, asks it, and holds answers that are worth waiting for. It must not
//! know HTTP, QUIC or Redis.

mod clock;
mod hold;

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use metrics::Histogram;
use spillgate_core::decision::{Check, CheckError, Decision, LimitRef, Reason, Refunded};
use spillgate_core::limit::Limits;
use spillgate_core::node::{Attempt, FrameError, Node, NodeConfig, Outbox, Restored, Told};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::{Explanation, PeerView, ReplicaId, TopBy, TopKey};
use spillgate_core::wire::DecodeError;
use tokio::sync::Notify;

use clock::Clock;

pub use hold::{Held, worth_holding};

/// An item of a batch could not be decided; nothing of the batch was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("checks[{index}]: {error}")]
pub struct BatchError {
    /// Which one, from 0.
    pub index: usize,
    /// Why.
    pub error: CheckError,
}

/// Decisions on checks, in their order; `None`: the node is to decide that one by itself.
pub type Ruled = Result<Vec<Option<Decision>>, BatchError>;

/// Another that may decide in the node's place.
pub trait Referee: Send + Sync {
    /// Whether it decides now. Asked on every check, so it must be cheap.
    fn presides(&self) -> bool;

    /// Decides `checks`, each by itself or, with `all`, all or none; charges what it grants. `attempts` says of each
    /// whether it was asked for before.
    fn decide<'a>(
        &'a self,
        checks: &'a [Check<'a>],
        attempts: &'a [Attempt],
        all: bool,
    ) -> Pin<Box<dyn Future<Output = Ruled> + Send + 'a>>;

    /// Tokens of a key were given back here.
    fn given_back(&self, limit: LimitRef<'_>, key: &str);
}

/// The node with its clock. Clones share it.
#[derive(Clone)]
pub struct Driver(Arc<Shared>);

struct Shared {
    node: Node,
    clock: Clock,
    /// Something may have become grantable: held requests try again.
    progress: Notify,
    /// A request was refused for want of confirmation.
    press: Notify,
    check_duration: Histogram,
    referee: OnceLock<Arc<dyn Referee>>,
}

impl Driver {
    /// Starts a node. `check_duration` takes the time of each decision, in seconds.
    #[must_use]
    pub fn new(config: NodeConfig, limits: Limits, check_duration: Histogram) -> Self {
        let node = Node::new(config, limits);
        let (progress, press) = (Notify::new(), Notify::new());
        let referee = OnceLock::new();
        Self(Arc::new(Shared { node, clock: Clock::new(), progress, press, check_duration, referee }))
    }

    /// Lets `referee` decide whenever it says that it does; only the first one counts.
    pub fn set_referee(&self, referee: Arc<dyn Referee>) {
        if self.0.referee.set(referee).is_err() {
            tracing::error!("a second referee was named: it is not asked");
        }
    }

    fn presiding(&self) -> Option<&Arc<dyn Referee>> {
        self.0.referee.get().filter(|referee| referee.presides())
    }

    /// Whether the node decides by itself now, so that [`Driver::check`] is all there is to a decision.
    #[must_use]
    pub fn decides_alone(&self) -> bool {
        self.presiding().is_none()
    }

    /// The node itself, for what needs no clock.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Now {
        self.0.clock.now()
    }

    /// Decides at once and by itself, whoever presides.
    ///
    /// # Errors
    /// [`CheckError`]; nothing was changed then.
    pub fn check(&self, check: &Check<'_>) -> Result<Decision, CheckError> {
        self.attempt(check, Attempt::First)
    }

    fn attempt(&self, check: &Check<'_>, attempt: Attempt) -> Result<Decision, CheckError> {
        let now = self.now();
        let decision = self.0.node.check(check, now, attempt);
        let took = self.0.clock.now().at.since(now.at);
        self.0.check_duration.record(took.as_secs_f64());
        if matches!(&decision, Ok(d) if d.reason == Some(Reason::Unconfirmed)) {
            self.0.press.notify_one();
        }
        decision
    }

    /// Gives tokens back.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn refund(&self, limit: LimitRef<'_>, key: &str, cost: u64) -> Result<Refunded, CheckError> {
        let refunded = self.0.node.refund(limit, key, cost, self.now());
        self.0.progress.notify_waiters();
        if let Some(referee) = self.presiding() {
            referee.given_back(limit, key);
        }
        refunded
    }

    /// The key's whole capacity is there again, here at once and at the peers with the next news.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn reset(&self, limit: LimitRef<'_>, key: &str) -> Result<Refunded, CheckError> {
        let refunded = self.0.node.reset(limit, key, self.now());
        self.0.progress.notify_waiters();
        if let Some(referee) = self.presiding() {
            referee.given_back(limit, key);
        }
        refunded
    }

    /// All that a decision on the key depends on; `Ok(None)`: nothing is known of the key, so it is full.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn explain(&self, limit: LimitRef<'_>, key: &str) -> Result<Option<Explanation>, CheckError> {
        self.0.node.explain(limit, key, self.now())
    }

    /// The configured limits.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        self.0.node.limits()
    }

    /// Goes over to other limits without losing counts.
    pub fn set_limits(&self, limits: Limits) {
        self.0.node.set_limits(limits, self.now());
        self.0.progress.notify_waiters();
    }

    /// The `n` busiest keys that callers of this node have named.
    #[must_use]
    pub fn top(&self, by: TopBy, n: usize) -> Vec<TopKey> {
        self.0.node.top(by, n)
    }

    /// The peers as this node sees them.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerView> {
        self.0.node.peers(self.now().at)
    }

    /// A peer is up.
    pub fn peer_up(&self, peer: &ReplicaId) {
        self.0.node.peer_up(peer, self.now());
    }

    /// Membership calls a peer dead.
    pub fn peer_dead(&self, peer: &ReplicaId) {
        self.0.node.peer_dead(peer, self.now());
    }

    /// A peer has left for good, and said so.
    pub fn peer_left(&self, peer: &ReplicaId) {
        self.0.node.peer_left(peer, self.now());
        self.0.progress.notify_waiters();
    }

    /// A peer is gone for good, and took along what nobody has heard of.
    pub fn peer_lost(&self, peer: &ReplicaId) {
        self.0.node.peer_lost(peer, self.now());
        self.0.progress.notify_waiters();
    }

    /// Grants nothing until [`Driver::release`] or [`Driver::begin_alone`], whoever counts this node in.
    pub fn hold(&self) {
        self.0.node.hold(self.now());
    }

    /// The peers' tables have come.
    pub fn release(&self) {
        self.0.node.release(self.now());
        self.0.progress.notify_waiters();
    }

    /// Nobody is there to count this node in: it begins by itself.
    pub fn begin_alone(&self) {
        self.0.node.begin_alone(self.now());
        self.0.progress.notify_waiters();
    }

    /// Takes in a frame of a peer; what answers it goes to `outbox`.
    ///
    /// # Errors
    /// [`FrameError`]; nothing was changed then.
    pub fn frame(&self, from: &ReplicaId, bytes: &[u8], outbox: &mut impl Outbox) -> Result<(), FrameError> {
        let heard = self.0.node.handle_frame(from, bytes, self.now(), outbox)?;
        if heard.progress {
            self.0.progress.notify_waiters();
        }
        Ok(())
    }

    /// Takes in a reliable message of a peer, who was `asked` for its table or was not.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing was changed then.
    pub fn message(&self, bytes: &[u8], asked: bool) -> Result<Told, DecodeError> {
        self.0.node.handle_message(bytes, asked, self.now())
    }

    /// Takes in a slice of an earlier run's table, see [`Node::restore`].
    ///
    /// # Errors
    /// [`DecodeError`]; nothing was changed then.
    pub fn restore(&self, slice: &[u8]) -> Result<Restored, DecodeError> {
        self.0.node.restore(slice, self.now())
    }

    /// The node stood still while its peers went on, see [`Node::doubt`].
    pub fn doubt(&self) {
        self.0.node.doubt();
    }

    /// Whether the wall clock jumped since this was asked last: then this node may stand in windows that its peers do not.
    #[must_use]
    pub fn clock_jumped(&self) -> bool {
        self.0.clock.jumped()
    }

    /// One round of news.
    pub fn tick(&self, bytes_max: usize, outbox: &mut impl Outbox) {
        self.0.clock.look();
        self.0.node.tick(self.now(), bytes_max, outbox);
    }

    /// Returns when peers are to be asked for confirmation at once; [`Driver::press`] then does it.
    pub async fn pressed(&self) {
        loop {
            match self.0.node.press_at() {
                Some(at) => {
                    let left = at.since(self.now().at);
                    if left == Nanos::ZERO {
                        return;
                    }
                    tokio::time::sleep(left.into()).await;
                }
                None => self.0.press.notified().await,
            }
        }
    }

    /// Asks the peers for confirmation at once.
    pub fn press(&self, bytes_max: usize, outbox: &mut impl Outbox) {
        self.0.node.press(self.now(), bytes_max, outbox);
    }
}
