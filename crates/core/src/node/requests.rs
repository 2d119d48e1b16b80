//! What callers ask: check, batches, refund, reset, explain. Validation first, so that an error changes nothing.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::MutexGuard;

use super::Node;
use crate::algorithm::Meter;
use crate::counter::Slot;
use crate::decision::{Check, CheckError, Decision, LimitRef, Reason, Refunded};
use crate::entry::{Entry, KeyId};
use crate::limit::{COST_MAX, KEY_BYTES_MAX, Rule};
use crate::stability::{self, Outlook};
use crate::table::Shard;
use crate::time::{Nanos, Now};
use crate::view::{Explanation, ReplicaCount};

/// Whether a request comes for the first time or is a held one tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Counts as demand.
    First,
    /// Was demanded, and denied for this reason, before: that denial was not the answer, and is not counted as one.
    Again(Option<Reason>),
}

impl Node {
    /// Decides one request and charges what it grants.
    ///
    /// # Errors
    /// [`CheckError`]; nothing was changed then.
    pub fn check(&self, check: &Check<'_>, now: Now, attempt: Attempt) -> Result<Decision, CheckError> {
        validate(check.key, check.cost)?;
        let id = self.key_id(check.limit, check.key);
        let outlook = self.outlook.load();
        let decision = check_in(&mut self.shard(id).lock(), id, check, now, attempt, &outlook)?;
        if decision.reason == Some(Reason::Unconfirmed) {
            self.pressed.store(true, Relaxed);
        }
        Ok(decision)
    }

    /// Decides several requests, all or none: where one is refused, nothing is charged.
    ///
    /// `before` holds the decisions on the same requests when they were tried last, and is empty the first time.
    ///
    /// # Errors
    /// The place of the first request that could not be decided, and why; nothing was changed then.
    pub fn check_all(
        &self,
        checks: &[Check<'_>],
        now: Now,
        before: &[Decision],
    ) -> Result<Vec<Decision>, (usize, CheckError)> {
        for (i, check) in checks.iter().enumerate() {
            self.validate_whole(check).map_err(|e| (i, e))?;
        }
        let ids: Vec<KeyId> = checks.iter().map(|c| self.key_id(c.limit, c.key)).collect();
        let mut places: Vec<usize> = ids.iter().map(|id| self.shard_of(*id)).collect();
        // always in one order, so that two batches never wait for each other
        places.sort_unstable();
        places.dedup();
        let mut shards: Vec<MutexGuard<'_, Shard>> = places.iter().map(|p| self.shards[*p].0.lock()).collect();
        let outlook = self.outlook.load();
        let mut undo = Vec::new();
        let mut decisions = Vec::with_capacity(checks.len());
        for (i, (check, id)) in checks.iter().zip(&ids).enumerate() {
            let place = places.binary_search(&self.shard_of(*id)).unwrap_or_default();
            let shard = &mut shards[place];
            let full = shard.find(*id).map(|e| e.meter.clone());
            let attempt = before.get(i).map_or(Attempt::First, |d| Attempt::Again(d.reason.filter(|_| !d.allowed)));
            let decision = check_in(shard, *id, check, now, attempt, &outlook).map_err(|e| (i, e))?;
            if decision.allowed && decision.reason.is_none() {
                undo.push((place, *id, check, full));
            }
            decisions.push(decision);
        }
        if decisions.iter().all(|d| d.allowed) {
            return Ok(decisions);
        }
        for (place, id, check, meter) in undo.into_iter().rev() {
            take_back(&mut shards[place], id, check, meter, now);
        }
        for (decision, id) in decisions.iter_mut().zip(&ids) {
            if decision.allowed && decision.reason.is_none() {
                decision.allowed = false;
                decision.delay = Nanos::ZERO;
            }
            let place = places.binary_search(&self.shard_of(*id)).unwrap_or_default();
            if let Some(entry) = shards[place].find(*id) {
                // what is left now, not what was in the midst of the batch
                decision.remaining = entry.level(now).whole();
                decision.reset_after = entry.meter.full_in(&entry.rule, now);
            }
        }
        if decisions.iter().any(|d| d.reason == Some(Reason::Unconfirmed)) {
            self.pressed.store(true, Relaxed);
        }
        Ok(decisions)
    }

    /// Whether `check` can be decided at all, without deciding it.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn validate_whole(&self, check: &Check<'_>) -> Result<(), CheckError> {
        validate(check.key, check.cost)?;
        let rule = self.catalog.read().rule(check.limit, check.key)?;
        reserved(&rule, check.priority).map(|_| ())
    }

    /// Gives tokens back: at most what is missing from the bucket.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn refund(&self, limit: LimitRef<'_>, key: &str, cost: u64, now: Now) -> Result<Refunded, CheckError> {
        validate(key, cost)?;
        self.give_back(limit, key, now, |_| cost)
    }

    /// Gives back all that is missing: the whole capacity is there again, at the peers with the next news.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn reset(&self, limit: LimitRef<'_>, key: &str, now: Now) -> Result<Refunded, CheckError> {
        validate(key, 0)?;
        self.give_back(limit, key, now, |entry| entry.meter.missing(&entry.rule, now))
    }

    fn give_back(
        &self,
        limit: LimitRef<'_>,
        key: &str,
        now: Now,
        amount: impl FnOnce(&Entry) -> u64,
    ) -> Result<Refunded, CheckError> {
        let id = self.key_id(limit, key);
        let mut shard = self.shard(id).lock();
        let known = shard.place(id);
        if known.is_none() {
            let capacity = shard.catalog.rule(limit, key)?.capacity();
            return Ok(Refunded { refunded: 0, capacity, remaining: capacity });
        }
        let totals = shard.totals();
        let entry = shard.locate(known, id, limit, key, now)?;
        entry.roll(now);
        let amount = amount(entry);
        entry.news_or(now.at, totals);
        let refunded = entry.refund(now, amount);
        let answer = Refunded { refunded, capacity: entry.rule.capacity(), remaining: entry.level(now).whole() };
        shard.total(0, refunded);
        enlist(&mut shard, id);
        Ok(answer)
    }

    /// All that a decision on the key depends on; `None` when nothing is known of it, so that it is full.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn explain(&self, limit: LimitRef<'_>, key: &str, now: Now) -> Result<Option<Explanation>, CheckError> {
        validate(key, 0)?;
        let id = self.key_id(limit, key);
        let outlook = self.outlook.load();
        let names: BTreeMap<Slot, _> = self.links.lock().peers.iter().map(|p| (p.slot, p.replica.clone())).collect();
        let mut shard = self.shard(id).lock();
        let known = shard.place(id);
        if known.is_none() {
            return shard.catalog.rule(limit, key).map(|_| None);
        }
        let entry = shard.locate(known, id, limit, key, now)?;
        entry.roll(now);
        let level = entry.level(now).tokens();
        let window = entry.window(now, &outlook, level, 1);
        let mut replicas = Vec::new();
        let mut demand = 0.0;
        if let Some(news) = &mut entry.news {
            demand = f64::from(news.demand.per_second(now.at));
            let own = self.config.replica.clone();
            // counts begin at an arbitrary start, so those of a node that granted nothing yet mean nothing
            let (granted, refunded) = if news.has_counted() { (news.granted, news.refunded) } else { (0, 0) };
            replicas.push(ReplicaCount { replica: own, granted, refunded, demand, age: Nanos::ZERO });
            for peer in news.peers.iter().filter(|p| p.count.granted() > 0) {
                if let Some(replica) = names.get(&peer.slot) {
                    replicas.push(ReplicaCount {
                        replica: replica.clone(),
                        granted: peer.count.granted(),
                        refunded: peer.count.refunded(),
                        demand: f64::from(peer.said.demand).max(0.0),
                        age: now.at.since(peer.heard),
                    });
                }
            }
        }
        Ok(Some(Explanation {
            algorithm: entry.rule.algorithm().as_str(),
            accuracy: entry.rule.spec().accuracy.as_str(),
            rate: entry.rule.rate(),
            capacity: entry.rule.capacity(),
            level,
            unacked: window.unacked,
            allowance: window.allowance,
            weight: window.weight,
            demand,
            bound: stability::bound(&entry.rule, &outlook, now.at),
            window: entry.meter.window(),
            replicas,
        }))
    }
}

pub(super) const fn validate(key: &str, cost: u64) -> Result<(), CheckError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(CheckError::KeyLength(key.len()));
    }
    if cost > COST_MAX {
        return Err(CheckError::Cost(cost));
    }
    Ok(())
}

pub(super) fn reserved(rule: &Rule, priority: &str) -> Result<u64, CheckError> {
    rule.reserved(priority).ok_or_else(|| CheckError::Priority {
        limit: rule.limit().to_owned(),
        priority: priority.chars().take(64).collect(),
        known: rule.spec().reserve.iter().map(|r| format!(", {}", r.priority)).collect(),
    })
}

/// Has the key looked at in the next ticks.
pub(super) fn enlist(shard: &mut Shard, id: KeyId) {
    if let Some(news) = shard.find(id).and_then(|e| e.news.as_mut())
        && !news.listed
    {
        news.listed = true;
        shard.list(id);
    }
}

/// Decides under the shard's lock.
fn check_in(
    shard: &mut Shard,
    id: KeyId,
    check: &Check<'_>,
    now: Now,
    attempt: Attempt,
    outlook: &Outlook,
) -> Result<Decision, CheckError> {
    let known = shard.place(id);
    if known.is_none()
        && let Some(decision) = check_absent(shard, id, check, now, outlook)?
    {
        return Ok(decision);
    }
    let totals = shard.totals();
    let entry = shard.locate(known, id, check.limit, check.key, now)?;
    let reserved = reserved(&entry.rule, check.priority)?;
    entry.roll(now);
    // what can never be granted is no demand: one absurd cost would take the key's whole weight from the peers
    let listed = if check.cost == 0 || entry.rule.can_never_grant(check.cost, reserved) {
        true
    } else {
        let news = entry.news_or(now.at, totals);
        if attempt == Attempt::First {
            news.demand.offer(now.at, check.cost);
        }
        std::mem::replace(&mut news.listed, true)
    };
    let reason = entry.refusal(now, outlook, check.cost, reserved);
    if check.cost > 0 {
        entry.want_or_not(now, outlook, reason);
    }
    let delay = entry.meter.delay(&entry.rule, now);
    let granted = if reason.is_none() { check.cost } else { 0 };
    if granted > 0 {
        entry.charge(now, granted);
    }
    let mut decision = decided(&entry.meter, &entry.rule, check.cost, reserved, reason, now, outlook);
    if granted > 0 {
        decision.delay = delay;
    }
    let recounted = matches!(attempt, Attempt::Again(Some(_)));
    // a mistake of the caller's says nothing of the key
    let denied = !decision.allowed && reason != Some(Reason::TooLarge);
    entry.denied = entry.denied.saturating_sub(u64::from(recounted)) + u64::from(denied);
    if decision.reason == Some(Reason::Unconfirmed)
        && let Some(news) = &mut entry.news
    {
        news.pressed = true;
    }
    let tally = usize::from(entry.tally);
    shard.total(granted, 0);
    if !listed {
        shard.list(id);
    }
    count(shard, tally, &decision, attempt);
    Ok(decision)
}

/// Decides for a key that is not in the table what does not bring it there: a peek, and what can never be granted. An
/// error must not either, or a flood of mistakes would push out keys that count.
fn check_absent(
    shard: &mut Shard,
    id: KeyId,
    check: &Check<'_>,
    now: Now,
    outlook: &Outlook,
) -> Result<Option<Decision>, CheckError> {
    let rule = shard.catalog.rule(check.limit, check.key)?;
    let reserved = reserved(&rule, check.priority)?;
    if check.cost > 0 && !rule.can_never_grant(check.cost, reserved) {
        return Ok(None);
    }
    let tally = usize::from(shard.catalog.tally(&rule));
    let mut entry = Entry::full(id, rule, now);
    let reason = entry.refusal(now, outlook, check.cost, reserved);
    let decision = decided(&entry.meter, &entry.rule, check.cost, reserved, reason, now, outlook);
    count(shard, tally, &decision, Attempt::First);
    Ok(Some(decision))
}

/// The answer, with what is left after it.
pub(super) fn decided(
    meter: &Meter,
    rule: &Rule,
    cost: u64,
    reserved: u64,
    reason: Option<Reason>,
    now: Now,
    outlook: &Outlook,
) -> Decision {
    let enforced = rule.spec().enforce;
    Decision {
        allowed: reason.is_none() || !enforced,
        reason,
        cost,
        capacity: rule.capacity(),
        window: rule.window(),
        remaining: meter.level(rule, now).whole(),
        retry_after: match reason {
            Some(reason) if enforced => retry_after(reason, meter, rule, now, cost + reserved, outlook),
            _ => Nanos::ZERO,
        },
        reset_after: meter.full_in(rule, now),
        delay: Nanos::ZERO,
        confirm_wait: match reason {
            Some(Reason::Unconfirmed) if enforced => rule.spec().confirm_wait,
            _ => Nanos::ZERO,
        },
    }
}

pub(super) fn count(shard: &mut Shard, tally: usize, decision: &Decision, attempt: Attempt) {
    let Some(tally) = shard.tallies.get_mut(tally) else { return };
    if let Attempt::Again(Some(reason)) = attempt {
        tally.denied[reason as usize] = tally.denied[reason as usize].saturating_sub(1);
    }
    match (decision.reason, decision.allowed) {
        (None, _) => tally.allowed += 1,
        (Some(_), true) => tally.would_deny += 1,
        (Some(reason), false) => tally.denied[reason as usize] += 1,
    }
}

/// When it is worth asking again: never zero.
fn retry_after(reason: Reason, meter: &Meter, rule: &Rule, now: Now, tokens: u64, outlook: &Outlook) -> Nanos {
    match reason {
        Reason::TooLarge => Nanos::MAX,
        Reason::OverLimit => meter.wait_for(rule, now, tokens).max(Nanos(1)),
        // after a round of news
        Reason::Unconfirmed | Reason::Partition => outlook.settle.max(Nanos::from_millis(1)),
    }
}

/// Undoes a grant of this very call: nobody has seen it, since its shard was locked all the while.
fn take_back(shard: &mut Shard, id: KeyId, check: &Check<'_>, meter: Option<Meter>, now: Now) {
    let tally = match shard.find(id) {
        Some(entry) => {
            entry.granted = entry.granted.saturating_sub(check.cost);
            entry.meter = meter.unwrap_or_else(|| Meter::full(&entry.rule, now));
            if let Some(news) = &mut entry.news {
                news.granted -= check.cost;
            }
            entry.tally
        }
        // a peek, which left nothing in the table
        None => match shard.catalog.rule(check.limit, check.key) {
            Ok(rule) => shard.catalog.tally(&rule),
            Err(_) => return,
        },
    };
    if let Some(tally) = shard.tallies.get_mut(usize::from(tally)) {
        tally.allowed = tally.allowed.saturating_sub(1);
    }
}
