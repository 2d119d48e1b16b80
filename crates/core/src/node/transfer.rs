//! State transfer: a joiner asks peers for their tables, and takes, key by key, the lowest level that any reports.
//!
//! A reporter tells the level as it sees it, and which counters that level holds. The joiner charges what it has heard
//! since beyond those, and never a whole history. It must not know how messages travel.

use std::sync::Arc;

use super::Node;
use crate::algorithm::Meter;
use crate::counter::Slot;
use crate::entry::{Entry, KeyId, Reporter, describe_rule};
use crate::gossip::Links;
use crate::time::Now;
use crate::view::ReplicaId;
use crate::wire::{DecodeError, MESSAGE_BYTES_MAX, Message, StateCount, StateItem, decode_message, encode_message};

/// Keys in a chunk: each takes at most about 200 bytes and 20 a replica, so that a chunk stays below the message limit.
const CHUNK_BYTES: usize = MESSAGE_BYTES_MAX / 4;

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The peer asks for the table: send it all of [`Node::state_chunks`].
    WantsState,
    /// A part of a table that nobody asked for; it was dropped.
    Unasked,
    /// A part of the peer's table was taken in.
    State {
        /// Whether it was the last part.
        last: bool,
        /// Keys in it.
        keys: usize,
    },
}

impl Node {
    /// The message that asks a peer for its table.
    #[must_use]
    pub fn state_request() -> Vec<u8> {
        encode_message(&Message::StateRequest)
    }

    /// The table as messages, shard by shard; at least one, and the last one says so.
    pub fn state_chunks(&self, now: Now) -> impl Iterator<Item = Vec<u8>> + '_ {
        let links = self.links.lock();
        let (replicas, slots) = names(&links);
        let own_before = links.own_before();
        // this node and its peers come first
        let members = u16::try_from(1 + links.peers.len()).unwrap_or(u16::MAX);
        drop(links);
        let joining = !self.outlook.load().admitted;
        let count = self.shards.len();
        (0..count).flat_map(move |i| {
            let mut items: Vec<StateItem> = Vec::new();
            for entry in self.shards[i].0.lock().entries() {
                items.extend(state_item(entry, &slots, own_before, now));
            }
            let mut chunks = Vec::new();
            // by size, not by number: a chunk of keys with many replicas is short
            let mut size = 0;
            let mut part = Vec::new();
            for item in items {
                size += 220 + 20 * item.counts.len();
                part.push(item);
                if size >= CHUNK_BYTES {
                    chunks.push(std::mem::take(&mut part));
                    size = 0;
                }
            }
            let last = i + 1 == count;
            if !part.is_empty() || last {
                chunks.push(part);
            }
            let total = chunks.len();
            let replicas = replicas.clone();
            chunks.into_iter().enumerate().map(move |(k, items)| {
                let last = last && k + 1 == total;
                encode_message(&Message::StateChunk { last, replicas: replicas.clone(), members, joining, items })
            })
        })
    }

    /// Takes in a reliable message of a peer, who was `asked` for its table or was not: a table speaks for others too, so
    /// it is believed only while this node joins.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing was changed then.
    pub fn handle_message(&self, bytes: &[u8], asked: bool, now: Now) -> Result<Told, DecodeError> {
        match decode_message(bytes)? {
            Message::StateRequest => Ok(Told::WantsState),
            Message::StateChunk { .. } if !asked => Ok(Told::Unasked),
            Message::StateChunk { last, replicas, members, joining, items } => {
                let (slots, named, own_before) = self.slots_of(&replicas, members.into(), now);
                let from = Reporter { slots: &slots, witness: named && !joining, joining, own_before };
                let keys = items.len();
                for item in items {
                    self.adopt(&item, from, now);
                }
                Ok(Told::State { last, keys })
            }
        }
    }

    /// See [`Reporter`]; the reporter is the first of its replicas, and the first `members` are those that it counts. One
    /// that was not met yet gets a slot all the same: what it tells when it is met is set against what the table has of it.
    fn slots_of(
        &self,
        replicas: &[(String, u64)],
        members: usize,
        now: Now,
    ) -> (Vec<Option<Slot>>, bool, Option<Slot>) {
        let mut links = self.links.lock();
        let named =
            |(node, incarnation): &(String, u64)| ReplicaId { node: node.as_str().into(), incarnation: *incarnation };
        let replicas: Vec<ReplicaId> = replicas.iter().map(named).collect();
        links.learn_of(now.at, &replicas[..members.min(replicas.len())]);
        self.publish(links.outlook(now.at));
        let slots = replicas.iter().map(|replica| links.keep(replica, false, now.at)).collect();
        let named = replicas.first().is_some_and(|reporter| links.is_restored(reporter));
        (slots, named, links.own_before())
    }

    fn adopt(&self, item: &StateItem, from: Reporter<'_>, now: Now) {
        let key = KeyId::from_bytes(item.key);
        let mut shard = self.shard(key).lock();
        let Some(rule) = shard.catalog.described(&item.describe) else { return };
        let Some(mut reported) = Meter::of(item.used.into(), &rule, now) else { return };
        let totals = shard.totals();
        let entry = shard.adopt(key, Arc::clone(&rule), now);
        // a key that is known here may meet another rule
        if *entry.rule != *rule {
            reported.rescale(&rule, &entry.rule, now);
        }
        entry.adopt(reported, &item.counts, from, now, totals);
    }
}

/// Every replica that counts may name, for the wire and as it is called here; this node comes first.
pub(super) fn names(links: &Links) -> (Vec<(String, u64)>, Vec<Slot>) {
    links.replicas().map(|(r, slot)| ((r.node.as_ref().to_owned(), r.incarnation), slot)).unzip()
}

/// What there is to report of a key; nothing of a full one.
fn state_item(entry: &Entry, slots: &[Slot], own_before: Option<Slot>, now: Now) -> Option<StateItem> {
    let mut entry = entry.clone();
    entry.roll(now);
    let used = entry.meter.keep(&entry.rule, now);
    let counts = slots.iter().enumerate().filter_map(|(i, slot)| {
        let news = entry.news.as_ref()?;
        let (granted, refunded) = match *slot {
            Slot::OWN => (news.granted, news.refunded),
            slot => news.counted(slot),
        };
        let unheard = if own_before == Some(*slot) { news.unheard_before.min(granted) } else { 0 };
        let replica = u16::try_from(i).unwrap_or(u16::MAX);
        (granted > 0).then_some(StateCount { replica, granted, refunded, unheard })
    });
    let counts: Vec<_> = counts.collect();
    if used.is_full() && counts.is_empty() {
        return None;
    }
    Some(StateItem { key: entry.key.to_bytes(), describe: describe_rule(&entry.rule), used: used.into(), counts })
}
