//! Asking Redis on behalf of the driver: each check by itself, or all of them at once, within the time there is.

use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::join_all;
use spillgate_core::central::{Brief, Word};
use spillgate_core::decision::Check;
use spillgate_core::node::Attempt;
use tokio::time::{Instant, timeout_at};

use super::job::{Job, Waiting, refuses};
use super::{Central, Outcome, RedisError};
use crate::driver::{BatchError, Ruled};

impl Central {
    /// Asks about each check by itself; `None` where the node is to decide.
    pub(super) async fn each(&self, checks: &[Check<'_>], attempts: &[Attempt]) -> Ruled {
        let deadline = Instant::now() + self.0.target.timeout;
        let mut asked = Vec::with_capacity(checks.len());
        for (index, check) in checks.iter().enumerate() {
            asked.push(match self.brief(check).map_err(|error| BatchError { index, error })? {
                Some(brief) => self.start(self.job(&[*check], vec![brief.clone()], false)).map(|reply| (brief, reply)),
                None => None,
            });
        }
        let waiting = asked.into_iter().map(async |asked| {
            let (brief, reply) = asked?;
            Some((brief, self.wait(reply, deadline).await?))
        });
        let words = join_all(waiting).await;
        let mut decisions = Vec::with_capacity(checks.len());
        for (index, (check, heard)) in checks.iter().zip(words).enumerate() {
            decisions.push(match heard {
                Some((brief, words)) => self.take(&[*check], &[brief], &words, &attempts[index..], false, index)?.pop(),
                None => None,
            });
        }
        Ok(decisions.into_iter().map(Option::flatten).collect())
    }

    /// Asks about all of them at once, all or none; all `None` where the node is to decide.
    pub(super) async fn all(&self, checks: &[Check<'_>], attempts: &[Attempt]) -> Ruled {
        let deadline = Instant::now() + self.0.target.timeout;
        let nobody = || vec![None; checks.len()];
        let mut briefs = Vec::with_capacity(checks.len());
        for (index, check) in checks.iter().enumerate() {
            match self.brief(check).map_err(|error| BatchError { index, error })? {
                Some(brief) => briefs.push(brief),
                None => {
                    briefs.iter().for_each(|b| self.0.driver.node().unsaid(b));
                    return Ok(nobody());
                }
            }
        }
        let apart = self.link().is_some_and(|l| l.is_cluster()) && checks.iter().any(|c| c.key != checks[0].key);
        let words = if apart {
            self.all_apart(checks, &mut briefs, deadline).await
        } else {
            match self.start(self.job(checks, briefs.clone(), true)) {
                Some(reply) => self.wait(reply, deadline).await,
                None => None,
            }
        };
        match words {
            Some(words) => self.take(checks, &briefs, &words, attempts, true, 0),
            None => Ok(nobody()),
        }
    }

    /// The same where the keys lie in several slots, which no script can see at once: key after key, and what was
    /// granted before one refused is given back. In between others see it as spent.
    async fn all_apart(&self, checks: &[Check<'_>], briefs: &mut [Brief], deadline: Instant) -> Option<Vec<Word>> {
        self.0.health.count(Outcome::Split);
        if !self.0.told_of_split.swap(true, Relaxed) {
            tracing::warn!(
                "checks of several keys are not decided at one moment by a Redis Cluster: keys that must share a slot \
                 have to be the same text"
            );
        }
        let mut words: Vec<Option<Word>> = vec![None; checks.len()];
        while let Some(first) = words.iter().position(Option::is_none) {
            let group: Vec<usize> = (first..checks.len()).filter(|i| checks[*i].key == checks[first].key).collect();
            let own: Vec<Check<'_>> = group.iter().map(|i| checks[*i]).collect();
            let own_briefs: Vec<Brief> = group.iter().map(|i| briefs[*i].clone()).collect();
            let heard = match self.start(self.job(&own, own_briefs, true)) {
                Some(reply) => self.wait(reply, deadline).await,
                None => None,
            };
            let Some(heard) = heard else {
                // of the group itself its job takes care
                self.break_off(checks, briefs, &words, &group);
                return None;
            };
            if group.iter().zip(&heard).any(|(i, word)| refuses(&briefs[*i], word)) {
                self.break_off(checks, briefs, &words, &group);
                // those not asked any more were not at fault, as far as is known
                let wall = self.0.driver.now().wall;
                let unasked = |brief: &Brief| Word { granted: true, used: brief.known, wall };
                let mut all: Vec<Word> =
                    words.iter().zip(&*briefs).map(|(w, b)| w.unwrap_or_else(|| unasked(b))).collect();
                group.into_iter().zip(heard).for_each(|(i, word)| all[i] = word);
                return Some(all);
            }
            group.into_iter().zip(heard).for_each(|(i, word)| words[i] = Some(word));
        }
        words.into_iter().collect()
    }

    /// A batch comes to nothing: what Redis granted so far goes back, and what it has not heard is owed again. The
    /// requests `but` these are reckoned with by whoever has their words.
    fn break_off(&self, checks: &[Check<'_>], briefs: &mut [Brief], words: &[Option<Word>], but: &[usize]) {
        let node = self.0.driver.node();
        for (i, ((check, brief), word)) in checks.iter().zip(briefs).zip(words).enumerate() {
            if but.contains(&i) {
                continue;
            }
            match word {
                Some(word) if word.granted && check.cost > 0 => {
                    node.note_counted(brief, check.cost);
                    self.settle(check.limit, check.key);
                }
                Some(_) => node.note_counted(brief, 0),
                None => node.unsaid(brief),
            }
            settled(brief);
        }
    }

    /// Takes the words on `checks`; all `None` where this node's share must hold too, and Redis has granted.
    fn take(
        &self,
        checks: &[Check<'_>],
        briefs: &[Brief],
        words: &[Word],
        attempts: &[Attempt],
        all: bool,
        first: usize,
    ) -> Ruled {
        let driver = &self.0.driver;
        let refused = briefs.iter().zip(words).any(|(b, w)| refuses(b, w));
        self.0.health.count(if refused { Outcome::Denied } else { Outcome::Allowed });
        if self.0.shares.load(Relaxed) && !refused {
            for ((check, brief), word) in checks.iter().zip(briefs).zip(words) {
                driver.node().note_counted(brief, if word.granted { check.cost } else { 0 });
            }
            return Ok(vec![None; checks.len()]);
        }
        let items: Vec<_> = checks.iter().zip(briefs).zip(words).map(|((c, b), w)| (c, b, *w)).collect();
        let alone = self.0.alone.load(Relaxed);
        let attempt = |i: usize| attempts.get(i).copied().unwrap_or(Attempt::First);
        let decisions = driver.node().take_words(&items, driver.now(), attempt, all, alone);
        let decisions = decisions.map_err(|(index, error)| BatchError { index: first + index, error })?;
        Ok(decisions.into_iter().map(Some).collect())
    }

    /// Sends it off; `None` where Redis is not worth asking now.
    fn start(&self, job: Job) -> Option<Waiting> {
        let link = self.link();
        let Some(link) = link.clone().filter(|_| self.0.health.is_up()) else {
            self.0.health.count(Outcome::Skipped);
            match link.filter(|_| self.0.health.is_reachable()) {
                Some(link) => job.tell(link),
                None => job.unsaid(),
            }
            return None;
        };
        Some(job.start(link))
    }

    /// The words, if they come in time and there are any.
    async fn wait(&self, mut waiting: Waiting, deadline: Instant) -> Option<Vec<Word>> {
        let timeout = self.0.target.timeout;
        let Ok(Ok((job, reply))) = timeout_at(deadline, &mut waiting.0).await else {
            self.0.health.count(Outcome::Timeout);
            self.0.health.failed(&RedisError::Timeout(timeout));
            return None;
        };
        match reply {
            Ok(words) => {
                self.0.health.request_well();
                Some(words)
            }
            Err(error) => {
                self.0.health.count(Outcome::Error);
                self.0.health.failed(&error);
                job.unsaid();
                None
            }
        }
    }
}

/// What was owed by it has been reckoned with.
const fn settled(brief: &mut Brief) {
    (brief.owed, brief.owed_before) = (0, 0);
}
