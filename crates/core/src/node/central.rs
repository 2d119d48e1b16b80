//! Checks that a central store decides: what it is told before, and what its word comes to. It must not know the store.

use super::Node;
use super::requests::{Attempt, count, decided, enlist, reserved, validate};
use crate::algorithm::Meter;
use crate::central::{Brief, Word};
use crate::counter::Slot;
use crate::decision::{Check, CheckError, Decision, Reason};
use crate::stability::Outlook;
use crate::time::{Nanos, Now};

impl Node {
    /// What a central store must be told to decide `check`; `None` when nobody can ever grant it, and [`Node::check`] says
    /// so. `episode` is another number each time the node begins to ask.
    ///
    /// What follows must be [`Node::take_words`], [`Node::note_counted`] or [`Node::unsaid`].
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn brief(&self, check: &Check<'_>, now: Now, episode: u32) -> Result<Option<Brief>, CheckError> {
        validate(check.key, check.cost)?;
        let id = self.key_id(check.limit, check.key);
        let outlook = self.outlook.load();
        let mut shard = self.shard(id).lock();
        let known = shard.place(id);
        let rule = shard.catalog.rule(check.limit, check.key)?;
        let reserve = reserved(&rule, check.priority)?;
        if rule.can_never_grant(check.cost, reserve) {
            return Ok(None);
        }
        if known.is_none() && check.cost == 0 {
            return Ok(Some(Brief::of_none(id, rule, reserve, now)));
        }
        let totals = shard.totals();
        let entry = shard.locate(known, id, check.limit, check.key, now)?;
        let reserve = reserved(&entry.rule, check.priority)?;
        entry.news_or(now.at, totals);
        let brief = entry.brief(now, &outlook, reserve, episode);
        enlist(&mut shard, id);
        Ok(Some(brief))
    }

    /// The store may not have heard `brief`: what was owed is owed again.
    pub fn unsaid(&self, brief: &Brief) {
        if let Some(entry) = self.shard(brief.key).lock().find(brief.key) {
            entry.unsaid(brief);
        }
    }

    /// The store has heard `brief` and counted a grant of `cost` tokens beside it. Unless they are charged here too, they
    /// are given back with the next brief.
    pub fn note_counted(&self, brief: &Brief, cost: u64) {
        if let Some(entry) = self.shard(brief.key).lock().find(brief.key) {
            entry.note_counted(brief, cost);
        }
    }

    /// Takes a central store's word on `checks`, all of them granted or, with `all`, none: charges what was granted, and
    /// answers.
    ///
    /// `alone` says that only the store tells of the silent peers now, so that its word on what is used counts.
    ///
    /// # Errors
    /// [`CheckError`] with the check's place; what the store granted is given back then.
    pub fn take_words(
        &self,
        checks: &[(&Check<'_>, &Brief, Word)],
        now: Now,
        attempt: impl Fn(usize) -> Attempt,
        all: bool,
        alone: bool,
    ) -> Result<Vec<Decision>, (usize, CheckError)> {
        let silent = if alone { self.links.lock().silent(now.at).iter().map(|s| s.slot).collect() } else { Vec::new() };
        let refuses = |brief: &Brief, word: &Word| !word.granted && brief.rule.spec().enforce;
        let charged = !all || !checks.iter().any(|(_, brief, word)| refuses(brief, word));
        let mut decisions = Vec::with_capacity(checks.len());
        for (i, (check, brief, word)) in checks.iter().enumerate() {
            let decision = self.take_word(check, brief, *word, now, attempt(i), charged, &silent);
            decisions.push(decision.map_err(|e| (i, e))?);
        }
        Ok(decisions)
    }

    #[allow(clippy::too_many_arguments)] // one word's whole context, private to the batch above
    fn take_word(
        &self,
        check: &Check<'_>,
        brief: &Brief,
        word: Word,
        now: Now,
        attempt: Attempt,
        charged: bool,
        silent: &[Slot],
    ) -> Result<Decision, CheckError> {
        let id = brief.key;
        let reason = (!word.granted).then_some(Reason::OverLimit);
        let granted = if word.granted && charged { check.cost } else { 0 };
        let mut decision = answer(check, brief, word, now, granted, &self.outlook.load());
        if !charged && reason.is_none() {
            decision.allowed = false;
            decision.delay = Nanos::ZERO;
        }
        let mut shard = self.shard(id).lock();
        let known = shard.place(id);
        if known.is_none() && check.cost == 0 {
            let tally = usize::from(shard.catalog.tally(&brief.rule));
            count(&mut shard, tally, &decision, attempt);
            return Ok(decision);
        }
        let totals = shard.totals();
        let entry = shard.locate(known, id, check.limit, check.key, now)?;
        entry.roll(now);
        let news = entry.news_or(now.at, totals);
        if attempt == Attempt::First && check.cost > 0 {
            news.demand.offer(now.at, check.cost);
        }
        entry.note_counted(brief, granted);
        if granted > 0 {
            entry.charge_granted(now, word.used, granted);
        }
        entry.align(now, word.used, silent);
        let recounted = matches!(attempt, Attempt::Again(Some(_)));
        entry.denied = entry.denied.saturating_sub(u64::from(recounted)) + u64::from(!decision.allowed);
        let tally = usize::from(entry.tally);
        shard.total(granted, 0);
        enlist(&mut shard, id);
        if charged || reason.is_some() {
            count(&mut shard, tally, &decision, attempt);
        }
        Ok(decision)
    }
}

/// The answer as the store's own state makes it.
fn answer(check: &Check<'_>, brief: &Brief, word: Word, now: Now, granted: u64, outlook: &Outlook) -> Decision {
    let at_store = Now { wall: word.wall, ..now };
    let rule = &brief.rule;
    let meter = Meter::showing(rule, at_store, word.used);
    let reason = (!word.granted).then_some(Reason::OverLimit);
    let mut decision = decided(&meter, rule, check.cost, brief.reserved, reason, at_store, outlook);
    if granted > 0 {
        let mut before = meter;
        before.refund(rule, at_store, granted);
        decision.delay = before.delay(rule, at_store);
    }
    decision
}

#[cfg(test)]
mod tests;
