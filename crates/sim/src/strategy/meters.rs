//! What one node counts by limit and key: only the keys that it was asked for. It must not know the rules' making.

use std::collections::BTreeMap;

use spillgate_core::algorithm::Meter;
use spillgate_core::limit::Rule;
use spillgate_core::time::Now;

use crate::bucket;
use crate::observe::{Request, Verdict};
use crate::scenario::{KeyIndex, LimitIndex};

/// A key under its limit.
pub(super) type Key = (LimitIndex, KeyIndex);

/// The key of a request.
pub(super) const fn key_of(request: &Request) -> Key {
    (request.limit, request.key)
}

/// A bucket (or what else the limit's algorithm counts by) for each key.
#[derive(Debug, Default)]
pub(super) struct Meters(BTreeMap<Key, Meter>);

impl Meters {
    /// Decides, and charges what it grants.
    pub fn decide(&mut self, rule: &Rule, now: Now, request: &Request) -> Verdict {
        bucket::decide(self.of(key_of(request), rule, now), rule, now, request.cost)
    }

    /// The meter itself; a full one where there was none.
    pub fn of(&mut self, key: Key, rule: &Rule, now: Now) -> &mut Meter {
        self.0.entry(key).or_insert_with(|| Meter::full(rule, now))
    }
}
