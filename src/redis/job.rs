//! Requests under way to Redis: sent beside whoever asked, so that a reply is reckoned with though nobody waits for it
//! any more. It must not know who asked.

use spillgate_core::central::{Brief, Word};
use tokio::sync::oneshot;

use super::link::Link;
use super::script::{self, Call};
use super::{Central, Outcome, RedisError};

/// Requests that one script decides, under way.
pub(super) struct Job {
    pub(super) central: Central,
    pub(super) call: Call,
    pub(super) briefs: Vec<Brief>,
    pub(super) costs: Vec<u64>,
    pub(super) all: bool,
}

pub(super) type Reply = Result<Vec<Word>, RedisError>;

impl Job {
    /// Sends it off.
    pub(super) fn start(self, link: Link) -> Waiting {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let reply = self.run(&link).await;
            // whoever asked has been answered otherwise, or has gone
            if let Err((job, reply)) = sender.send((self, reply)) {
                job.come_late(reply);
            }
        });
        Waiting(receiver)
    }

    /// Tells Redis what is owed, and asks for nothing; whoever asked decides by itself.
    pub(super) fn tell(mut self, link: Link) {
        self.call = self.call.of_nothing();
        tokio::spawn(async move {
            match self.run(&link).await {
                Ok(_) => self.briefs.iter().for_each(|brief| self.central.0.driver.node().note_counted(brief, 0)),
                Err(_) => self.unsaid(),
            }
        });
    }

    pub(super) async fn run(&self, link: &Link) -> Reply {
        let script = self.central.0.scripts.of(&self.briefs);
        let reply = link.run(script, &self.call).await?;
        script::words(&self.briefs, reply).ok_or(RedisError::Reply)
    }

    /// Redis has not heard it, or may not have.
    pub(super) fn unsaid(&self) {
        self.briefs.iter().for_each(|brief| self.central.0.driver.node().unsaid(brief));
    }

    /// Nobody waits for it any more: what Redis counted stands against what the node charged itself meanwhile.
    fn come_late(self, reply: Reply) {
        let Ok(words) = reply else {
            self.unsaid();
            return;
        };
        self.central.0.health.count(Outcome::Late);
        let charged = !self.all || !self.briefs.iter().zip(&words).any(|(b, w)| refuses(b, w));
        for ((brief, word), cost) in self.briefs.iter().zip(&words).zip(&self.costs) {
            let counted = if word.granted && charged { *cost } else { 0 };
            self.central.0.driver.node().note_counted(brief, counted);
        }
    }
}

/// A reply under way. Given up, whatever comes is reckoned with as late.
pub(super) struct Waiting(pub(super) oneshot::Receiver<(Job, Reply)>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.close();
        if let Ok((job, reply)) = self.0.try_recv() {
            job.come_late(reply);
        }
    }
}

/// Whether a word keeps the others of a batch from being granted: a dry run never does.
pub(super) fn refuses(brief: &Brief, word: &Word) -> bool {
    !word.granted && brief.rule.spec().enforce
}
