//! The driver: owns the core's node and the clock, asks it, and holds answers that are worth waiting for. It must not
//! know HTTP, QUIC or Redis.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::Histogram;
use spillgate_core::algorithm::CLOCK_TOLERANCE;
use spillgate_core::decision::{Check, CheckError, Decision, LimitRef, Reason, Refunded};
use spillgate_core::limit::Limits;
use spillgate_core::node::{Attempt, FrameError, Node, NodeConfig, Outbox, Restored, Told};
use spillgate_core::time::{Nanos, Now};
use spillgate_core::view::{Explanation, PeerView, ReplicaId, TopBy, TopKey};
use spillgate_core::wire::DecodeError;
use tokio::sync::Notify;

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

/// A request that was decided, and may be again.
#[derive(Clone, Debug)]
pub struct Held<'a> {
    /// What was asked.
    pub check: Check<'a>,
    /// How long its answer may be held, where the limit's `confirm_wait` does not allow more.
    pub wait: Nanos,
    /// The last decision on it.
    pub outcome: Result<Decision, CheckError>,
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

/// The monotonic clock since the start, and the wall clock as of the last look at it.
struct Clock {
    monotonic: quanta::Clock,
    start: quanta::Instant,
    /// Wall time at the start, nanoseconds since the epoch, as the last look at the wall clock has it.
    wall_at_start: AtomicU64,
    /// Whether it was seen to jump.
    jumped: AtomicBool,
}

impl Clock {
    fn new() -> Self {
        let monotonic = quanta::Clock::new();
        let clock = Self {
            start: monotonic.now(),
            monotonic,
            wall_at_start: AtomicU64::new(0),
            jumped: AtomicBool::new(false),
        };
        clock.look();
        clock.jumped.store(false, Relaxed);
        clock
    }

    fn now(&self) -> Now {
        let at = Nanos::from(self.monotonic.now().saturating_duration_since(self.start));
        Now { at, wall: self.wall_at_start.load(Relaxed).saturating_add(at.0) }
    }

    /// Looks at the wall clock: once a tick, so that a check reads one clock only.
    fn look(&self) {
        let at = Nanos::from(self.monotonic.now().saturating_duration_since(self.start));
        let wall = Nanos::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
        let start = wall.since(at).0;
        let before = self.wall_at_start.swap(start, Relaxed);
        if before.abs_diff(start) > CLOCK_TOLERANCE.0 {
            self.jumped.store(true, Relaxed);
        }
    }
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

    /// Decides, holding the answer up to the limit's `confirm_wait`, or up to `wait` if that is longer.
    ///
    /// # Errors
    /// [`CheckError`]; nothing was changed then.
    pub async fn check_wait(&self, check: &Check<'_>, wait: Nanos) -> Result<Decision, CheckError> {
        let start = self.now().at;
        let mut decision = self.decide(check, Attempt::First).await?;
        if !worth_holding(&decision, wait) {
            return Ok(decision);
        }
        loop {
            // before the next attempt, so that no progress is missed between it and the wait
            let progress = self.0.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            decision = self.decide(check, Attempt::Again(refusal(&decision))).await?;
            let now = self.now().at;
            let left = hold_time(&decision, wait).since(now.since(start));
            if decision.allowed || left == Nanos::ZERO {
                return Ok(decision);
            }
            self.pause(progress, left, &decision).await;
        }
    }

    /// Decides once: the referee if it presides and can, else the node.
    async fn decide(&self, check: &Check<'_>, attempt: Attempt) -> Result<Decision, CheckError> {
        if let Some(referee) = self.presiding() {
            let ruled = referee.decide(std::slice::from_ref(check), &[attempt], false).await.map_err(|e| e.error)?;
            if let Some(Some(decision)) = ruled.into_iter().next() {
                return Ok(decision);
            }
        }
        self.attempt(check, attempt)
    }

    /// The same for some of `checks`, at once; `which` are their places.
    async fn decide_each(
        &self,
        checks: &[(Check<'_>, Nanos)],
        which: &[(usize, Attempt)],
    ) -> Result<Vec<Decision>, BatchError> {
        let mut ruled = vec![None; which.len()];
        if let Some(referee) = self.presiding() {
            let some: Vec<Check<'_>> = which.iter().map(|(i, _)| checks[*i].0).collect();
            let attempts: Vec<Attempt> = which.iter().map(|(_, attempt)| *attempt).collect();
            let at = |e: BatchError| BatchError { index: which.get(e.index).map_or(e.index, |(i, _)| *i), ..e };
            ruled = referee.decide(&some, &attempts, false).await.map_err(at)?;
        }
        let mut decisions = Vec::with_capacity(which.len());
        for ((index, attempt), decision) in which.iter().zip(ruled) {
            let index = *index;
            decisions.push(match decision {
                Some(decision) => decision,
                None => self.attempt(&checks[index].0, *attempt).map_err(|error| BatchError { index, error })?,
            });
        }
        Ok(decisions)
    }

    /// Waits for progress, for tokens to come back, or until the time is up.
    async fn pause(&self, progress: impl Future<Output = ()>, left: Nanos, decision: &Decision) {
        let pause = match decision.reason {
            Some(Reason::OverLimit) => left.min(decision.retry_after),
            _ => left,
        };
        tokio::select! {
            () = progress => {}
            () = tokio::time::sleep(pause.into()) => {}
        }
    }

    /// Each by itself, with its own wait; validated as a whole before anything is charged.
    ///
    /// # Errors
    /// [`BatchError`].
    pub async fn check_each(&self, checks: &[(Check<'_>, Nanos)]) -> Result<Vec<Decision>, BatchError> {
        for (index, (check, _)) in checks.iter().enumerate() {
            self.0.node.validate_whole(check).map_err(|error| BatchError { index, error })?;
        }
        let start = self.now().at;
        let first: Vec<_> = (0..checks.len()).map(|index| (index, Attempt::First)).collect();
        let mut decisions = self.decide_each(checks, &first).await?;
        loop {
            let progress = self.0.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let passed = self.now().at.since(start);
            let held = |(index, decision): (usize, &Decision)| {
                let left = hold_time(decision, checks[index].1).since(passed);
                (!decision.allowed && left > Nanos::ZERO).then(|| (index, Attempt::Again(refusal(decision))))
            };
            let again: Vec<_> = decisions.iter().enumerate().filter_map(held).collect();
            let mut next: Option<Nanos> = None;
            for ((index, _), decision) in again.iter().zip(self.decide_each(checks, &again).await?) {
                decisions[*index] = decision;
                let left = hold_time(&decision, checks[*index].1).since(passed);
                if !decision.allowed && left > Nanos::ZERO {
                    let decision = &decision;
                    let pause = if decision.reason == Some(Reason::OverLimit) { decision.retry_after } else { left };
                    next = Some(next.unwrap_or(Nanos::MAX).min(pause).min(left));
                }
            }
            let Some(pause) = next else { return Ok(decisions) };
            tokio::select! {
                () = progress => {}
                () = tokio::time::sleep(pause.into()) => {}
            }
        }
    }

    /// Tries those again that were refused and are worth holding, each for as long as its limit and its `wait` say.
    /// Each `outcome` is true at any time: the future may be dropped, and the answers given as they stand.
    pub async fn hold_all(&self, held: &mut [Held<'_>]) {
        let start = self.now().at;
        loop {
            let progress = self.0.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let passed = self.now().at.since(start);
            let Some(pause) = held.iter_mut().filter_map(|h| self.try_again(h, passed)).min() else { return };
            tokio::select! {
                () = progress => {}
                () = tokio::time::sleep(pause.into()) => {}
            }
        }
    }

    /// Tries one again that has been held for the time `passed`; in which time to try once more, where that is worth it.
    fn try_again(&self, held: &mut Held<'_>, passed: Nanos) -> Option<Nanos> {
        let wait = held.wait;
        let left = |decision: &Decision| {
            let left = hold_time(decision, wait).since(passed);
            (!decision.allowed && left > Nanos::ZERO).then_some(left)
        };
        let before = held.outcome.as_ref().ok()?;
        left(before)?;
        held.outcome = self.attempt(&held.check, Attempt::Again(refusal(before)));
        let decision = held.outcome.as_ref().ok()?;
        let left = left(decision)?;
        Some(if decision.reason == Some(Reason::OverLimit) { decision.retry_after.min(left) } else { left })
    }

    /// All or none, holding the answer as [`Driver::check_wait`] does. Where one refuses, nothing is charged; those that
    /// were not at fault have `allowed: false` and no reason.
    ///
    /// # Errors
    /// [`BatchError`].
    pub async fn check_all(&self, checks: &[Check<'_>], wait: Nanos) -> Result<Vec<Decision>, BatchError> {
        let start = self.now().at;
        let mut decisions: Vec<Decision> = Vec::new();
        loop {
            let progress = self.0.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            decisions = self.decide_all(checks, &decisions).await?;
            let now = self.now();
            if decisions.iter().any(|d| d.reason == Some(Reason::Unconfirmed)) {
                self.0.press.notify_one();
            }
            let refused = || decisions.iter().filter(|d| !d.allowed && d.reason.is_some());
            // all of them must come through, so the one that can be held least decides
            let hold = refused().map(|d| hold_time(d, wait)).min();
            let left = hold.unwrap_or(Nanos::ZERO).since(now.at.since(start));
            let Some(last) = refused().max_by_key(|d| d.retry_after).copied() else { return Ok(decisions) };
            if left == Nanos::ZERO {
                return Ok(decisions);
            }
            self.pause(progress, left, &last).await;
        }
    }

    async fn decide_all(&self, checks: &[Check<'_>], before: &[Decision]) -> Result<Vec<Decision>, BatchError> {
        if let Some(referee) = self.presiding() {
            for (index, check) in checks.iter().enumerate() {
                self.0.node.validate_whole(check).map_err(|error| BatchError { index, error })?;
            }
            let attempt = |i: usize| before.get(i).map_or(Attempt::First, |d| Attempt::Again(refusal(d)));
            let attempts: Vec<Attempt> = (0..checks.len()).map(attempt).collect();
            let ruled = referee.decide(checks, &attempts, true).await?;
            if let Some(decisions) = ruled.into_iter().collect::<Option<Vec<_>>>() {
                return Ok(decisions);
            }
        }
        let all = self.0.node.check_all(checks, self.now(), before);
        all.map_err(|(index, error)| BatchError { index, error })
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
        self.0.clock.jumped.swap(false, Relaxed)
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

/// Why a held request was refused last; `None` when that was not counted as a denial.
fn refusal(decision: &Decision) -> Option<Reason> {
    decision.reason.filter(|_| !decision.allowed)
}

/// How long the answer may be held in all.
fn hold_time(decision: &Decision, wait: Nanos) -> Nanos {
    match decision.reason {
        Some(Reason::TooLarge) | None => Nanos::ZERO,
        Some(Reason::Unconfirmed) => wait.max(decision.confirm_wait),
        Some(Reason::OverLimit | Reason::Partition) => wait,
    }
}

/// Whether a refusal may become a grant within the time that its answer may be held.
#[must_use]
pub fn worth_holding(decision: &Decision, wait: Nanos) -> bool {
    !decision.allowed && hold_time(decision, wait) > Nanos::ZERO
}
