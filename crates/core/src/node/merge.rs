//! Updates of a frame brought to their shards, several at a time. It must not know links, or what an update says.

use std::hint::black_box;

use parking_lot::MutexGuard;

use super::Node;
use crate::entry::KeyId;
use crate::table::{Shard, TOGETHER};
use crate::wire::Update;

impl Node {
    /// Has `learn` called with each of at most [`TOGETHER`] updates and its shard.
    ///
    /// The keys of a frame lie all over the memory, and waiting for one after the other is most of what news costs. So all
    /// of them are looked at before any is changed: their waits overlap.
    pub(super) fn merge(&self, updates: &[Update], mut learn: impl FnMut(&mut Shard, &Update)) {
        const NONE: usize = usize::MAX;
        let mut places = [NONE; TOGETHER];
        for (place, update) in places.iter_mut().zip(updates) {
            *place = self.shard_of(KeyId::from_bytes(update.key));
        }
        // always in one order, so that two who lock several never wait for each other
        let mut order = places;
        order.sort_unstable();
        let mut locked: [Option<MutexGuard<'_, Shard>>; TOGETHER] = [const { None }; TOGETHER];
        for (i, place) in order.iter().enumerate() {
            if *place != NONE && (i == 0 || order[i - 1] != *place) {
                locked[i] = Some(self.shards[*place].0.lock());
            }
        }
        let guards = places.map(|place| order.partition_point(|other| *other < place));
        let mut entries = [None; TOGETHER];
        for (i, update) in updates.iter().enumerate() {
            entries[i] = locked[guards[i]].as_ref().and_then(|shard| shard.place(KeyId::from_bytes(update.key)));
        }
        for (entry, guard) in entries.iter().zip(guards) {
            if let (Some(entry), Some(shard)) = (entry, &locked[guard]) {
                black_box(
                    shard.entries()[*entry].news.as_ref().and_then(|news| news.peers.first().map(|peer| peer.slot)),
                );
            }
        }
        for (i, update) in updates.iter().enumerate() {
            if let Some(shard) = &mut locked[guards[i]] {
                learn(shard, update);
            }
        }
    }
}
