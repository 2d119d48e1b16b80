//! Deciding by whoever presides, and holding refusals that may become grants. It must not know why they may.

use spillgate_core::decision::{Check, CheckError, Decision, Reason};
use spillgate_core::node::Attempt;
use spillgate_core::time::Nanos;
use tokio::sync::futures::Notified;

use super::{BatchError, Driver};

/// A request that may be decided again, or is yet to be.
#[derive(Clone, Debug)]
pub struct Held<'a> {
    /// What was asked.
    pub check: Check<'a>,
    /// How long its answer may be held, where the limit's `confirm_wait` does not allow more.
    pub wait: Nanos,
    /// The last decision on it; `None` before the first.
    pub outcome: Option<Result<Decision, CheckError>>,
}

impl Held<'_> {
    /// How to decide it after it has been held for the time `passed`; `None`: it stays as it is.
    fn attempt(&self, passed: Nanos) -> Option<Attempt> {
        match &self.outcome {
            None => Some(Attempt::First),
            Some(Ok(decision)) if self.left(decision, passed).is_some() => Some(Attempt::Again(refusal(decision))),
            Some(_) => None,
        }
    }

    /// In which time to try again what was decided just now.
    fn pause(&self, passed: Nanos) -> Option<Nanos> {
        let decision = self.outcome.as_ref()?.as_ref().ok()?;
        let left = self.left(decision, passed)?;
        Some(if decision.reason == Some(Reason::OverLimit) { decision.retry_after.min(left) } else { left })
    }

    fn left(&self, decision: &Decision, passed: Nanos) -> Option<Nanos> {
        let left = hold_time(decision, self.wait).since(passed);
        (!decision.allowed && left > Nanos::ZERO).then_some(left)
    }
}

impl Driver {
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
            let over_limit = decision.reason == Some(Reason::OverLimit);
            pause(progress, if over_limit { left.min(decision.retry_after) } else { left }).await;
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

    /// Each by itself, with its own wait; validated as a whole before anything is charged.
    ///
    /// # Errors
    /// [`BatchError`].
    pub async fn check_each(&self, checks: &[(Check<'_>, Nanos)]) -> Result<Vec<Decision>, BatchError> {
        let at = |index| move |error| BatchError { index, error };
        for (index, (check, _)) in checks.iter().enumerate() {
            self.0.node.validate_whole(check).map_err(at(index))?;
        }
        let held = |(check, wait): &(_, _)| Held { check: *check, wait: *wait, outcome: None };
        let mut held: Vec<Held<'_>> = checks.iter().map(held).collect();
        self.hold_all(&mut held).await;
        let outcomes = held.into_iter().enumerate().filter_map(|(index, h)| Some(h.outcome?.map_err(at(index))));
        outcomes.collect()
    }

    /// Decides those that are not decided yet, and tries those again that were refused and are worth holding, each for as
    /// long as its limit and its `wait` say. Each `outcome` is true at any time: the future may be dropped, and the
    /// answers given as they stand.
    pub async fn hold_all(&self, held: &mut [Held<'_>]) {
        let start = self.now().at;
        let mut tried = Vec::with_capacity(held.len());
        loop {
            let progress = self.0.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            let passed = self.now().at.since(start);
            tried.clear();
            tried.extend(held.iter().enumerate().filter_map(|(i, h)| Some((i, h.attempt(passed)?))));
            if tried.is_empty() {
                return;
            }
            self.decide_some(held, &tried).await;
            let next = tried.iter().filter_map(|(i, _)| held[*i].pause(passed)).min();
            let Some(next) = next else { return };
            pause(progress, next).await;
        }
    }

    /// Decides those of `held` that stand at these places, once: the referee if it presides, and the node where it does
    /// not or can't.
    async fn decide_some(&self, held: &mut [Held<'_>], which: &[(usize, Attempt)]) {
        let mut left_to_node = Vec::new();
        let mut which = which;
        if let Some(referee) = self.presiding() {
            // who asks for nonsense is told so by the node, and spoils nobody else's
            let fit = |i: &&(usize, Attempt)| self.0.node.validate_whole(&held[i.0].check).is_ok();
            let (asked, mut unfit): (Vec<_>, Vec<_>) = which.iter().partition(fit);
            let checks: Vec<Check<'_>> = asked.iter().map(|(i, _)| held[*i].check).collect();
            let attempts: Vec<Attempt> = asked.iter().map(|(_, attempt)| *attempt).collect();
            let ruled = if asked.is_empty() { Ok(Vec::new()) } else { referee.decide(&checks, &attempts, false).await };
            match ruled {
                Ok(ruled) => {
                    for ((i, attempt), decision) in asked.into_iter().zip(ruled) {
                        match decision {
                            Some(decision) => held[i].outcome = Some(Ok(decision)),
                            None => left_to_node.push((i, attempt)),
                        }
                    }
                }
                // the limits have changed since
                Err(_) => left_to_node = asked,
            }
            left_to_node.append(&mut unfit);
            which = &left_to_node;
        }
        for (i, attempt) in which {
            held[*i].outcome = Some(self.attempt(&held[*i].check, *attempt));
        }
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
            let over_limit = last.reason == Some(Reason::OverLimit);
            pause(progress, if over_limit { left.min(last.retry_after) } else { left }).await;
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
}

/// Waits for progress, or until the time is up.
async fn pause(progress: std::pin::Pin<&mut Notified<'_>>, time: Nanos) {
    tokio::select! {
        () = progress => {}
        () = tokio::time::sleep(time.into()) => {}
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
