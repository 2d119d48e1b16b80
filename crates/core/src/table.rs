//! One shard of the table: key to entry under a hard bound, and what is done to many entries at once. It must not know
//! other shards, locks, or the links to peers.
//!
//! Entries lie in one vector, so that every walk goes in the same order in each run with the same inputs; the hash
//! index holds places in it. When the shard is full, the least informative of a few entries goes: the one whose bucket
//! is fullest, since a full bucket equals an absent one.

mod evict;

use std::hint::black_box;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::catalog::Catalog;
use crate::counter::Slot;
use crate::decision::{CheckError, LimitRef};
use crate::entry::{Entry, KeyId};
use crate::gossip::Silent;
use crate::limit::{Origin, Rule};
use crate::stability::Outlook;
use crate::time::{Nanos, Now};
use crate::view::{ReplicaId, TopBy, TopKey};
use crate::wire::Update;

/// A bucket must have been full for so long before its key goes: by then the peers' views of it are full as well, so
/// none of them will tell a history that was washed out long ago.
const FULL_KEEP: Nanos = Nanos::from_secs(1);
/// Keys that are looked at before any of them is worked on: their shards may be locked meanwhile, which checks should not
/// notice.
pub const TOGETHER: usize = 8;
/// The most distinct rules of peers that are kept apart from their entries.
const RULES_MAX: usize = 1024;

/// What was counted under one limit in one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Requests allowed.
    pub allowed: u64,
    /// Requests denied, by [`crate::decision::Reason`] in the order of `Reason::ALL`.
    pub denied: [u64; 4],
    /// Requests that a dry run would have denied.
    pub would_deny: u64,
    /// The deepest debt that news has shown: tokens over-admitted, as measured here.
    pub overshoot: f64,
    /// Keys in the table now; filled in when read.
    pub keys: u64,
}

/// A part of the table.
#[derive(Debug)]
pub struct Shard {
    index: HashTable<u32>,
    entries: Vec<Entry>,
    entries_max: usize,
    /// The state of the generator that picks whom to look at for eviction.
    dice: u64,
    /// Where anti-entropy goes on.
    walk: usize,
    /// Keys to look at in each tick.
    listed: Vec<KeyId>,
    /// Cumulative counts of all keys, those gone included: where a key's own counters begin anew.
    totals: (u64, u64),
    /// Whether they have moved since the last tick.
    moved: bool,
    /// The rules.
    pub catalog: Arc<Catalog>,
    /// Peers' rules that several entries share.
    rules: Vec<Arc<Rule>>,
    /// Counts by limit.
    pub tallies: Vec<Tally>,
    /// Entries evicted though they held information.
    pub evictions: u64,
}

impl Shard {
    /// Empty, for at most `entries_max` keys.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, entries_max: usize) -> Self {
        let tallies = vec![Tally::default(); catalog.tally_names().len()];
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            entries_max: entries_max.max(1),
            dice: 0,
            walk: 0,
            listed: Vec::new(),
            // from 1, since a count of 0 stands for "unknown"
            totals: (1, 1),
            moved: false,
            catalog,
            rules: Vec::new(),
            tallies,
            evictions: 0,
        }
    }

    fn hash(key: KeyId) -> u64 {
        // the id is a keyed hash itself; the shard is picked by its other half
        key.0 as u64
    }

    /// Where the key's entry stands, until the next entry comes or goes.
    #[must_use]
    pub fn place(&self, key: KeyId) -> Option<usize> {
        self.index.find(Self::hash(key), |i| self.entries[*i as usize].key == key).map(|i| *i as usize)
    }

    /// The key's entry.
    pub fn find(&mut self, key: KeyId) -> Option<&mut Entry> {
        let place = self.place(key)?;
        self.entries.get_mut(place)
    }

    /// Entries in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Some of the entries, by their places.
    pub fn entries_mut(&mut self, places: std::ops::Range<usize>) -> &mut [Entry] {
        self.entries.get_mut(places).unwrap_or_default()
    }

    /// The entry of a key that a local caller names, made if need be; its rule is the caller's or the configured one.
    /// `known` is where the key [stands](Self::place).
    ///
    /// # Errors
    /// [`CheckError::UnknownLimit`].
    pub fn locate(
        &mut self,
        known: Option<usize>,
        id: KeyId,
        limit: LimitRef<'_>,
        key: &str,
        now: Now,
    ) -> Result<&mut Entry, CheckError> {
        let place = match known {
            Some(place) => {
                let entry = &self.entries[place];
                let rule = match limit {
                    LimitRef::Inline(rule) if *entry.rule != **rule => Some(Arc::clone(rule)),
                    _ if entry.text.is_none() => Some(self.catalog.rule(limit, key)?),
                    _ => None,
                };
                if let Some(rule) = rule {
                    let tally = self.catalog.tally(&rule);
                    let entry = &mut self.entries[place];
                    entry.set_rule(rule, now);
                    entry.text = Some(key.into());
                    entry.tally = tally;
                }
                place
            }
            None => {
                let rule = self.catalog.rule(limit, key)?;
                self.insert(id, rule, Some(key.into()), now)
            }
        };
        Ok(&mut self.entries[place])
    }

    fn insert(&mut self, key: KeyId, rule: Arc<Rule>, text: Option<Box<str>>, now: Now) -> usize {
        if self.entries.len() >= self.entries_max {
            self.evict(now);
        }
        let place = self.entries.len();
        if place == self.entries.capacity() {
            // by an eighth: a vector that doubles is a quarter empty on the average, and entries are most of a table
            self.entries.reserve_exact((place / 8).max(4));
        }
        let tally = self.catalog.tally(&rule);
        self.entries.push(Entry { text, tally, ..Entry::full(key, rule, now) });
        let entries = &self.entries;
        self.index.insert_unique(Self::hash(key), u32::try_from(place).unwrap_or(u32::MAX), |i| {
            Self::hash(entries[*i as usize].key)
        });
        place
    }

    fn remove(&mut self, place: usize) {
        let key = self.entries[place].key;
        if let Ok(found) = self.index.find_entry(Self::hash(key), |i| *i as usize == place) {
            found.remove();
        }
        self.entries.swap_remove(place);
        if let Some(moved) = self.entries.get(place) {
            let last = self.entries.len();
            if let Some(i) = self.index.find_mut(Self::hash(moved.key), |i| *i as usize == last) {
                *i = u32::try_from(place).unwrap_or(u32::MAX);
            }
        }
    }

    /// Looks at an entry in each tick from now on, as long as it is restless.
    pub fn list(&mut self, key: KeyId) {
        // a key that was evicted stays on the list until a tick finds it gone, and may stand on it twice if it came
        // back before: between two ticks the list must not grow without bound either
        if self.listed.len() >= 2 * self.entries_max {
            let mut listed = std::mem::take(&mut self.listed);
            listed.sort_unstable();
            listed.dedup();
            listed.retain(|key| self.place(*key).is_some());
            self.listed = listed;
        }
        self.listed.push(key);
    }

    /// Cumulative counts above any that this replica ever told of any key of this shard.
    #[must_use]
    pub const fn totals(&self) -> (u64, u64) {
        self.totals
    }

    /// Notes that so much was granted and refunded under some key.
    pub const fn total(&mut self, granted: u64, refunded: u64) {
        self.totals = (self.totals.0.saturating_add(granted), self.totals.1.saturating_add(refunded));
        self.moved |= granted > 0 || refunded > 0;
    }

    /// Looks at keys that are about to be worked on, at most [`TOGETHER`] of them.
    ///
    /// They lie all over the memory, and waiting for one after the other is most of what news costs. When all are looked
    /// at before any is changed, their waits overlap.
    fn fetch(&self, keys: &[KeyId]) {
        let mut places = [None; TOGETHER];
        for (place, key) in places.iter_mut().zip(keys) {
            *place = self.place(*key);
        }
        for place in places.iter().flatten() {
            black_box(self.entries[*place].news.as_ref().map(|news| news.granted));
        }
    }

    /// Hands out what there is to tell of every key that has something to tell.
    pub fn drain(&mut self, now: Now, tick: u64, outlook: &Outlook, sink: &mut impl FnMut(KeyId, Update)) {
        let mut listed = std::mem::take(&mut self.listed);
        listed.chunks(TOGETHER).for_each(|keys| self.fetch(keys));
        listed.retain(|key| {
            let Some(entry) = self.find(*key) else { return false };
            let common = entry.common(outlook);
            entry.settle_turn(now, outlook);
            let Some(news) = &mut entry.news else { return false };
            let moved = news.untold(now.at) || news.unsettled(now.at, common);
            if moved && let Some(update) = entry.tell(now, tick, outlook) {
                sink(*key, update);
            }
            entry.news.as_mut().is_some_and(|news| {
                // pruned here as well, so that a key nobody asks for comes to rest
                news.unacked(now.at, common);
                news.listed = news.restless();
                news.listed
            })
        });
        if listed.capacity() > 64 && listed.len() < listed.capacity() / 4 {
            listed.shrink_to(listed.len() * 2);
        }
        // nothing is listed meanwhile: the shard is locked
        self.listed = listed;
        self.moved = false;
    }

    /// The peer `theirs` of this node `own` asks for its turn at the key, see [`Entry::give_way`].
    pub fn give_way(&mut self, key: KeyId, now: Now, outlook: &Outlook, own: &ReplicaId, theirs: &ReplicaId) -> bool {
        let gave_way = self.find(key).is_some_and(|entry| entry.give_way(now, outlook, own, theirs));
        self.moved |= gave_way;
        gave_way
    }

    /// Hands out the state of every key that was charged, refunded or given way at since the last tick, until `sink` takes
    /// no more; says whether it took all.
    pub fn untold(&mut self, now: Now, sink: &mut impl FnMut(&Update) -> bool) -> bool {
        if !self.moved {
            return true;
        }
        let listed = std::mem::take(&mut self.listed);
        let all = listed.iter().all(|key| {
            let untold = |entry: &&mut Entry| entry.news.as_ref().is_some_and(|n| n.moved() || n.stepped_aside());
            let entry = self.find(*key).filter(untold);
            entry.and_then(|entry| entry.tell_again(now)).is_none_or(|update| sink(&update))
        });
        self.listed = listed;
        all
    }

    /// A few keys that have news which may be confirmed already, told once more: nothing hangs on any one frame.
    pub fn remind(&mut self, now: Now, most: usize, sink: &mut impl FnMut(KeyId, Update)) {
        for _ in 0..self.entries.len().min(most * 4) {
            self.walk = (self.walk + 1) % self.entries.len();
            let entry = &mut self.entries[self.walk];
            if entry.news.as_ref().is_some_and(|n| n.fresh() > 0 && !n.listed)
                && let Some(update) = entry.tell_again(now)
            {
                sink(entry.key, update);
            }
        }
    }

    /// Takes in an update from a peer's frame number `seq`. False when the key is unknown here and the update does not describe it.
    ///
    pub fn learn(&mut self, slot: Slot, seq: u64, update: &Update, now: Now) -> bool {
        let key = KeyId::from_bytes(update.key);
        let place = match self.place(key) {
            Some(place) => place,
            // nothing is owed and nothing asked for: a full bucket stays an absent one
            None if update.fresh == 0 && update.refunds.is_none() && update.demand == 0.0 => return true,
            None => {
                let Some(rule) = update.describe.as_ref().and_then(|d| self.catalog.described(d)) else {
                    return false;
                };
                let rule = self.shared_rule(rule);
                self.insert(key, rule, None, now)
            }
        };
        if self.entries[place].text.is_none()
            && let Some(rule) = update.describe.as_ref().and_then(|d| self.catalog.described(d))
        {
            self.entries[place].set_rule(rule, now);
        }
        let totals = self.totals;
        let entry = &mut self.entries[place];
        entry.learn(slot, seq, update, now, totals);
        let debt = -entry.meter.level(&entry.rule, now).tokens();
        let tally = entry.tally;
        self.tallies[usize::from(tally)].overshoot = self.tallies[usize::from(tally)].overshoot.max(debt);
        true
    }

    /// A peer that asks to be confirmed may be short of this key.
    pub fn give_up_demand(&mut self, key: KeyId, now: Now) {
        if let Some(news) = self.find(key).and_then(|entry| entry.news.as_mut()) {
            news.demand.give_up(now.at);
        }
    }

    /// One allocation for a rule that many of a peer's keys share.
    pub fn shared_rule(&mut self, rule: Arc<Rule>) -> Arc<Rule> {
        // the newest are the likeliest
        if let Some(known) = self.rules.iter().rev().take(16).find(|r| **r == rule) {
            return Arc::clone(known);
        }
        if self.rules.len() >= RULES_MAX {
            self.rules.clear();
        }
        self.rules.push(Arc::clone(&rule));
        rule
    }

    /// The entry of a key that a peer reports, made if need be.
    pub fn adopt(&mut self, key: KeyId, rule: Arc<Rule>, now: Now) -> &mut Entry {
        let place = match self.place(key) {
            Some(place) => place,
            None => {
                let rule = self.shared_rule(rule);
                self.insert(key, rule, None, now)
            }
        };
        &mut self.entries[place]
    }

    /// Drops what holds no information any more: gossip that has settled, then keys whose bucket is full.
    pub fn sweep(&mut self, now: Now) {
        let mut place = 0;
        while place < self.entries.len() {
            let entry = &mut self.entries[place];
            if entry.news.as_ref().is_some_and(|n| n.droppable(now.at)) {
                entry.news = None;
            }
            let full = entry.news.is_none() && {
                let before = Now { at: Nanos(now.at.0.saturating_sub(FULL_KEEP.0)), ..now };
                entry.meter.full_in(&entry.rule, before) == Nanos::ZERO
            };
            if full {
                self.remove(place);
            } else {
                place += 1;
            }
        }
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
            let entries = &self.entries;
            self.index.shrink_to(entries.len() * 2, |i| Self::hash(entries[*i as usize].key));
        }
    }

    /// Lets time pass for silent peers in every key that has gossip, see [`Entry::assume`].
    pub fn assume(&mut self, now: Now, outlook: &Outlook, silent: &[Silent]) {
        for entry in &mut self.entries {
            entry.roll(now);
            entry.assume(now, outlook, silent);
        }
    }

    /// Trusts no level until a peer has reported it: this node has heard nobody for a while, though they went on.
    pub fn doubt(&mut self) {
        // a central store's word on the silent was heard by itself, and stands
        for entry in self.entries.iter_mut().filter(|e| !e.news.as_ref().is_some_and(|news| news.has_stored())) {
            (entry.guessed, entry.restored) = (true, false);
        }
    }

    /// A peer has spoken, from its frame number `anew_from` on, of all keys that it has any demand for.
    pub fn take_back_demand(&mut self, slot: Slot, anew_from: u64) {
        for news in self.entries.iter_mut().filter_map(|e| e.news.as_mut()) {
            news.take_back_demand(slot, anew_from);
        }
    }

    /// A replica is gone without a last word, see [`Entry::lose`].
    pub fn lose(&mut self, slot: Slot, now: Now, outlook: &Outlook) {
        for entry in &mut self.entries {
            entry.lose(now, slot, outlook);
        }
    }

    /// Drops all that is known of a replica that is gone for good.
    pub fn forget(&mut self, slot: Slot) {
        for news in self.entries.iter_mut().filter_map(|e| e.news.as_mut()) {
            news.forget(slot);
        }
    }

    /// Keys that have something to say which a new peer can't know.
    pub fn talkative(&self) -> impl Iterator<Item = KeyId> {
        let talks = |e: &&Entry| e.news.as_ref().is_some_and(|n| n.has_counted() || n.listed);
        self.entries.iter().filter(talks).map(|e| e.key)
    }

    /// Goes over to other limits. What was used stays used; keys of limits that are no more go.
    pub fn set_catalog(&mut self, catalog: Arc<Catalog>, now: Now) {
        self.tallies.resize(catalog.tally_names().len(), Tally::default());
        self.catalog = Arc::clone(&catalog);
        self.rules.clear();
        let mut place = 0;
        while place < self.entries.len() {
            let entry = &mut self.entries[place];
            let configured = entry.rule.origin() == Origin::Configured;
            match (catalog.limits.find(entry.rule.limit()), &entry.text) {
                (Some(limit), Some(text)) if configured => {
                    let rule = Arc::clone(limit.rule_for(text));
                    entry.roll(now);
                    entry.set_rule(rule, now);
                }
                (None, Some(_)) if configured => {
                    self.remove(place);
                    continue;
                }
                _ => {}
            }
            let entry = &mut self.entries[place];
            entry.tally = catalog.tally(&entry.rule);
            // a changed rule is told with the next news; a key at rest is described when it has some
            if entry.news.as_ref().is_some_and(|n| n.described == 0 && !n.listed) {
                let key = entry.key;
                if let Some(news) = &mut entry.news {
                    news.listed = true;
                }
                self.listed.push(key);
            }
            place += 1;
        }
    }

    /// Adds this shard's `n` busiest keys of `by` to `top`.
    pub fn top(&self, by: TopBy, n: usize, top: &mut Vec<TopKey>) {
        let count = |e: &Entry| match by {
            TopBy::Granted => e.granted,
            TopBy::Denied => e.denied,
        };
        let mut named: Vec<&Entry> = self.entries.iter().filter(|e| e.text.is_some() && count(e) > 0).collect();
        named.sort_by_key(|e| std::cmp::Reverse(count(e)));
        top.extend(named.into_iter().take(n).map(|e| TopKey {
            limit: e.rule.limit().to_owned(),
            key: e.text.as_deref().unwrap_or_default().to_owned(),
            granted: e.granted,
            denied: e.denied,
        }));
    }
}
