//! The table as it outlives the process: slices of it as bytes, and taking them in again. It must not know files.
//!
//! A restored node is a new replica: its counters begin anew, and those of its last run are one of the sets of counters
//! that the snapshot holds, beside its peers'. Where peers are met that kept something too, the larger count of each
//! replica is right and what one side lacks is charged there once ([`crate::entry::Entry::adopt`]).

use std::sync::Arc;

use super::Node;
use super::transfer::names;
use crate::algorithm::{Kept, Meter};
use crate::counter::Slot;
use crate::entry::{Entry, KeyId, describe_rule};
use crate::gossip::Links;
use crate::limit::Rule;
use crate::news::Said;
use crate::time::{Nanos, Now};
use crate::view::ReplicaId;
use crate::wire::DecodeError;
use crate::wire::slice::{KEYS_MAX, SavedKey, Slice, decode_slice, encode_slice};

/// How long after its start a node holds what its snapshot says of replicas that have not come back: nodes that are
/// started again together are back by then.
const LET_GO_AFTER: Nanos = Nanos::from_secs(600);

/// What came of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Keys taken in.
    pub keys: usize,
    /// Keys that were full again by now, or whose rule is none.
    pub dropped: usize,
}

/// Walks the table slice by slice; the table may change meanwhile.
///
/// Each shard is walked from its end: an entry that goes leaves its place to the last one, so that one may be met twice,
/// and none is missed.
#[derive(Debug)]
pub struct Slices<'a> {
    node: &'a Node,
    shard: usize,
    /// Up to where the shard has still to be walked; `None`: not begun.
    end: Option<usize>,
}

impl Slices<'_> {
    /// The next slice as bytes; `None` when the whole table has been walked. One shard is locked for at most
    /// [`KEYS_MAX`] keys.
    pub fn next(&mut self, now: Now) -> Option<Vec<u8>> {
        while let Some(shard) = self.node.shards.get(self.shard) {
            // held meanwhile: a slot must not become another's
            let mut links = self.node.links.lock();
            let mut shard = shard.0.lock();
            let end = self.end.unwrap_or(usize::MAX).min(shard.len());
            let start = end.saturating_sub(KEYS_MAX);
            if start == 0 {
                (self.shard, self.end) = (self.shard + 1, None);
            } else {
                self.end = Some(start);
            }
            let slice = self.node.slice(&mut links, shard.entries_mut(start..end), now);
            if !slice.keys.is_empty() {
                return Some(encode_slice(&slice));
            }
        }
        None
    }
}

impl Node {
    /// The table, to be kept over a restart.
    #[must_use]
    pub const fn slices(&self) -> Slices<'_> {
        Slices { node: self, shard: 0, end: None }
    }

    fn slice(&self, links: &mut Links, entries: &mut [Entry], now: Now) -> Slice {
        let heard = links.outlook(now.at).heard;
        let (replicas, slots) = names(links);
        let mut slice = Slice { wall: now.wall, replicas, rules: Vec::new(), keys: Vec::new() };
        let mut rules: Vec<Arc<Rule>> = Vec::new();
        for entry in entries {
            entry.roll(now);
            let kept = entry.meter.keep(&entry.rule, now);
            if kept.is_full() {
                continue;
            }
            let known = rules.iter().rposition(|rule| *rule == entry.rule);
            let rule = known.unwrap_or_else(|| {
                rules.push(Arc::clone(&entry.rule));
                slice.rules.push(describe_rule(&entry.rule));
                rules.len() - 1
            });
            let (mut counts, mut unheard) = (Vec::new(), 0);
            if let Some(news) = &entry.news {
                unheard = news.unheard(heard);
                counts.extend(slots.iter().zip(0..).filter_map(|(slot, i)| {
                    let (granted, refunded) = match *slot {
                        Slot::OWN => (news.granted, news.refunded),
                        slot => news.counted(slot),
                    };
                    (granted > 0).then_some((i, granted, refunded))
                }));
            }
            // at most KEYS_MAX rules
            let rule = u16::try_from(rule).unwrap_or(u16::MAX);
            slice.keys.push(SavedKey { key: entry.key.to_bytes(), rule, used: kept.into(), counts, unheard });
        }
        slice
    }

    /// Takes in a slice of an earlier run's table, to be called before anything else is asked of the node. The time that
    /// passed since is told by the wall clock; one that went back since counts as none.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing was changed then.
    pub fn restore(&self, bytes: &[u8], now: Now) -> Result<Restored, DecodeError> {
        let slice = decode_slice(bytes)?;
        let mut links = self.links.lock();
        let replica =
            |(node, incarnation): &(String, u64)| ReplicaId { node: node.as_str().into(), incarnation: *incarnation };
        let slots: Vec<Option<Slot>> =
            slice.replicas.iter().map(|name| links.keep(&replica(name), true, now.at)).collect();
        drop(links);
        let passed = Nanos(now.wall.saturating_sub(slice.wall));
        let mut restored = Restored::default();
        for saved in &slice.keys {
            let rule = slice.rules.get(usize::from(saved.rule));
            if rule.and_then(|rule| self.restore_key(saved, rule, &slots, passed, now)).is_some() {
                restored.keys += 1;
            } else {
                restored.dropped += 1;
            }
        }
        Ok(restored)
    }

    fn restore_key(
        &self,
        saved: &SavedKey,
        rule: &crate::wire::Describe,
        slots: &[Option<Slot>],
        passed: Nanos,
        now: Now,
    ) -> Option<()> {
        let kept = Kept::from(saved.used);
        let key = KeyId::from_bytes(saved.key);
        let mut shard = self.shard(key).lock();
        let rule = shard.catalog.described(rule)?;
        let meter = Meter::of(kept.aged(passed), &rule, now)?;
        if meter.keep(&rule, now).is_full() {
            return None;
        }
        let totals = shard.totals();
        let entry = shard.adopt(key, rule, now);
        (entry.meter, entry.restored) = (meter, true);
        if saved.counts.is_empty() && saved.unheard == 0 {
            return Some(());
        }
        let same_window = entry.meter.window() == kept.window();
        let news = entry.news_or(now.at, totals);
        // of a window that is over, it is too late to count what others did not hear of
        news.unheard_before = if same_window { saved.unheard } else { 0 };
        for (index, granted, refunded) in &saved.counts {
            if let Some(slot) = slots.get(usize::from(*index)).copied().flatten() {
                news.learn(slot, *granted, *refunded, now.at);
                news.hear(slot, 0, Said::default(), now.at);
            }
        }
        Some(())
    }

    /// Forgets what the snapshot, and peers' tables, said of replicas that have not come in time.
    pub(super) fn let_go_of_snapshot(&self, links: &mut Links, now: Now) {
        let Some(then) = now.at.0.checked_sub(LET_GO_AFTER.0) else { return };
        for slot in links.let_go(Nanos(then)) {
            self.forget_slot(links, slot);
        }
    }
}
