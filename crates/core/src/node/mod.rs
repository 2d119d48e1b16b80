//! The node: the one face of the core. It owns the shards, the links and their locks, and puts calls together from
//! them. It must not know a clock, a socket, or who drives it.
//!
//! Every method takes `&self`: a check locks one shard and nothing else, gossip locks the links and then one shard after
//! the other. No lock is held while anything waits.

mod batch;
mod central;
mod cluster;
mod keep;
mod merge;
mod requests;
mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::catalog::Catalog;
use crate::decision::LimitRef;
use crate::entry::KeyId;
use crate::gossip::{Links, Pace};
use crate::limit::Limits;
use crate::stability::{self, Outlook, SharedOutlook};
use crate::table::{Shard, Tally};
use crate::time::{Nanos, Now};
use crate::view::{PeerView, ReplicaId, TopBy, TopKey};

pub use cluster::{FrameError, Heard, Outbox};
pub use keep::{Restored, Slices};
pub use requests::Attempt;
pub use transfer::Told;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Which replica this is.
    pub replica: ReplicaId,
    /// Keys the hash of keys: the same on all nodes, and unknown to callers.
    pub hash_key: [u8; 16],
    /// The most keys in the table.
    pub max_keys: usize,
    /// The most shards; fewer are made where each would hold only a few keys.
    pub shards_max: usize,
    /// Whether there are peers to expect: then the node has no weight until they count it in.
    pub clustered: bool,
    /// Times that rule the links.
    pub pace: Pace,
}

/// On a cache line of its own, so that neighbours' locks do not slow it.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(Mutex<Shard>);

/// One node's whole state.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    shards: Box<[Padded]>,
    links: Mutex<Links>,
    outlook: SharedOutlook,
    catalog: RwLock<Arc<Catalog>>,
    /// A request was refused only because peers have not confirmed: they should be asked at once.
    pressed: AtomicBool,
    /// When they were asked last.
    pressed_at: AtomicU64,
    /// When time was last let pass for silent peers; 0 while nobody is silent.
    assumed_at: AtomicU64,
}

/// Keys a shard should have room for: with fewer, unevenness would evict keys long before the table is full.
const SHARD_KEYS_MIN: usize = 256;

impl Node {
    /// A node with these limits and nothing else.
    #[must_use]
    pub fn new(config: NodeConfig, limits: Limits) -> Self {
        let catalog = Arc::new(Catalog::new(limits));
        let shards = (config.max_keys / SHARD_KEYS_MIN).clamp(1, config.shards_max.max(1));
        // rounded down: the sum is the bound
        let keys = config.max_keys / shards;
        let shards = (0..shards).map(|_| Padded(Mutex::new(Shard::new(Arc::clone(&catalog), keys)))).collect();
        let links = Links::new(config.replica.clone(), config.pace, !config.clustered);
        Self {
            shards,
            links: Mutex::new(links),
            outlook: SharedOutlook::new(!config.clustered),
            catalog: RwLock::new(catalog),
            pressed: AtomicBool::new(false),
            pressed_at: AtomicU64::new(0),
            assumed_at: AtomicU64::new(0),
            config,
        }
    }

    /// Which replica this is.
    #[must_use]
    pub const fn replica(&self) -> &ReplicaId {
        &self.config.replica
    }

    /// The hash under which a key's state is kept.
    #[must_use]
    pub fn key_id(&self, limit: LimitRef<'_>, key: &str) -> KeyId {
        use std::hash::Hasher;
        let mut hasher = SipHasher13::new_with_key(&self.config.hash_key);
        let name = limit.name();
        // the two name spaces and all pairs of texts stay apart: a tag, a length, then both
        hasher.write_u8(u8::from(matches!(limit, LimitRef::Inline(_))));
        hasher.write_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
        hasher.write(name.as_bytes());
        hasher.write(key.as_bytes());
        KeyId(hasher.finish128().as_u128())
    }

    fn shard_of(&self, key: KeyId) -> usize {
        ((key.0 >> 64) as usize) % self.shards.len()
    }

    fn shard(&self, key: KeyId) -> &Mutex<Shard> {
        &self.shards[self.shard_of(key)].0
    }

    /// The configured limits.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.catalog.read().limits)
    }

    /// Goes over to other limits without losing counts.
    pub fn set_limits(&self, limits: Limits, now: Now) {
        let catalog = {
            let mut catalog = self.catalog.write();
            *catalog = Arc::new(catalog.replaced(limits));
            Arc::clone(&catalog)
        };
        for shard in &self.shards {
            shard.0.lock().set_catalog(Arc::clone(&catalog), now);
        }
    }

    /// What decisions know of the cluster now.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        self.outlook.load()
    }

    /// Rounds of news so far.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.links.lock().tick
    }

    /// Keys in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.0.lock().len()).sum()
    }

    /// Whether no key is in the table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys evicted though they held information.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.shards.iter().map(|s| s.0.lock().evictions).sum()
    }

    /// Counts by limit, each with the bound that its rule states now: name, tally, bound in tokens; not a number where the
    /// limit is not configured (any more).
    #[must_use]
    pub fn tallies(&self, now: Nanos) -> Vec<(String, Tally, f64)> {
        let catalog = Arc::clone(&self.catalog.read());
        let mut sums = vec![Tally::default(); catalog.tally_names().len()];
        for shard in &self.shards {
            let shard = shard.0.lock();
            for (sum, tally) in sums.iter_mut().zip(&shard.tallies) {
                sum.allowed += tally.allowed;
                sum.would_deny += tally.would_deny;
                sum.overshoot = sum.overshoot.max(tally.overshoot);
                for (sum, denied) in sum.denied.iter_mut().zip(tally.denied) {
                    *sum += denied;
                }
            }
            for entry in shard.entries() {
                if let Some(sum) = sums.get_mut(usize::from(entry.tally)) {
                    sum.keys += 1;
                }
            }
        }
        let outlook = self.outlook.load();
        let bound =
            |name: &str| catalog.limits.find(name).map_or(f64::NAN, |l| stability::bound(l.rule(), &outlook, now));
        let names = catalog.tally_names();
        names.iter().zip(sums).map(|(name, sum)| (name.clone(), sum, bound(name))).collect()
    }

    /// The `n` busiest keys that callers of this node have named.
    #[must_use]
    pub fn top(&self, by: TopBy, n: usize) -> Vec<TopKey> {
        let mut top = Vec::new();
        for shard in &self.shards {
            shard.0.lock().top(by, n, &mut top);
        }
        top.sort_by(|a, b| match by {
            TopBy::Granted => b.granted.cmp(&a.granted),
            TopBy::Denied => b.denied.cmp(&a.denied),
        });
        top.truncate(n);
        top
    }

    /// The peers as this node sees them.
    #[must_use]
    pub fn peers(&self, now: Nanos) -> Vec<PeerView> {
        let links = self.links.lock();
        let view = |p: &crate::gossip::Peer| PeerView {
            replica: p.replica.clone(),
            state: p.state,
            round_trip: p.round_trip,
            news_age: p.spoke.then(|| now.since(p.heard)),
            clock_offset: p.clock_offset,
            frames_sent: p.frames.0,
            frames_received: p.frames.1,
            frames_lost: p.frames.2,
        };
        links.peers.iter().map(view).collect()
    }

    /// Times from a charge's tick to its being confirmed by all peers, since the last call.
    #[must_use]
    pub fn take_converged(&self) -> Vec<Nanos> {
        self.links.lock().take_converged()
    }

    /// When the peers should be asked at once, since a request was refused only for want of their confirmation; `None`
    /// when none was. At most once a round trip, and at most once in [`PRESS_MIN`].
    #[must_use]
    pub fn press_at(&self) -> Option<Nanos> {
        if !self.pressed.load(Relaxed) {
            return None;
        }
        let round_trip = self.outlook.load().settle.since(self.config.pace.interval.times(2));
        Some(Nanos(self.pressed_at.load(Relaxed)).plus(round_trip.max(PRESS_MIN)))
    }
}

/// The shortest time between two urgent exchanges: a quick network must not turn refusals into a flood of frames.
pub const PRESS_MIN: Nanos = Nanos::from_millis(1);
