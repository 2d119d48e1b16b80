//! Snapshots: the table on disk, so that quotas outlive the process. It must not know what a slice of the table says.
//!
//! A snapshot is written beside the last one and takes its place only when all of it has reached the disk. One that
//! can't be used is set aside under a name that says why, and the node starts without it. Nothing here ever stops the
//! node: a disk that is full costs the snapshot, and is told of.

mod file;
mod lock;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

pub use file::{Identity, VERSION};
pub use lock::{InUse, claim};

use file::Unusable;

/// The snapshot's name in the data directory.
pub const FILE: &str = "spillgate.snapshot";
/// A key takes less in a snapshot, unless dozens of replicas have just charged it: a snapshot that would grow beyond
/// this on average is cut off.
const KEY_BYTES_MAX: u64 = 256;
/// Beside the keys.
const BYTES_MIN: u64 = 1 << 20;

/// Where a node keeps its snapshot.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    identity: Identity,
    bytes_max: u64,
    counts: Counts,
    failing: AtomicBool,
}

/// What was written so far.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

/// What was written so far, as it is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Snapshots written.
    pub written: u64,
    /// Snapshots that could not be.
    pub failed: u64,
    /// Size of the last one, bytes.
    pub bytes: u64,
}

impl Store {
    /// Of the node that `identity` names, in `directory`, for at most `max_keys` keys.
    #[must_use]
    pub fn new(directory: &Path, identity: Identity, max_keys: usize) -> Self {
        let bytes_max = BYTES_MIN + KEY_BYTES_MAX * max_keys as u64;
        let (counts, failing) = (Counts::default(), AtomicBool::new(false));
        Self { directory: directory.to_owned(), identity, bytes_max, counts, failing }
    }

    /// Hands each slice of the last snapshot to `take`, which says how many keys it took in and how many it dropped.
    /// What can't be used is set aside; that and all else is told in the log.
    pub fn restore(&self, take: impl FnMut(&[u8]) -> Result<(usize, usize), String>) {
        let path = self.directory.join(FILE);
        let found = file::open(&path, &self.identity, self.bytes_max).and_then(|found| found.hand_out(take));
        match found {
            Ok((keys, dropped)) if keys == 0 && dropped > 0 => {
                self.set_aside("stale", &format!("none of its {dropped} keys counts any more"));
            }
            Ok((keys, dropped)) => tracing::info!(path = %path.display(), keys, dropped, "took the snapshot in"),
            Err(Unusable::Absent) => tracing::info!(path = %path.display(), "there is no snapshot: beginning empty"),
            Err(unusable) => self.set_aside(unusable.name(), &unusable.to_string()),
        }
    }

    fn set_aside(&self, name: &str, why: &str) {
        let from = self.directory.join(FILE);
        let to = self.directory.join(format!("{FILE}.{name}"));
        match fs::rename(&from, &to) {
            Ok(()) => tracing::warn!(why, kept_as = %to.display(), "the snapshot can't be used and was set aside"),
            Err(error) => {
                tracing::warn!(why, path = %from.display(), %error, "the snapshot can't be used, nor be set aside");
            }
        }
    }

    /// Writes a snapshot of these slices in the last one's place. A failure is counted, and told of when it begins and
    /// when it is over.
    pub fn write(&self, slices: impl Iterator<Item = Vec<u8>>) {
        let outcome = file::write(&self.directory, FILE, &self.identity, slices, self.bytes_max);
        let failed = outcome.is_err();
        let failed_before = self.failing.swap(failed, Relaxed);
        match outcome {
            Ok((bytes, whole)) => {
                self.counts.written.fetch_add(1, Relaxed);
                self.counts.bytes.store(bytes, Relaxed);
                if !whole {
                    tracing::warn!(bytes, "the snapshot was cut off at its largest size: some keys are not in it");
                }
                if failed_before {
                    tracing::info!(bytes, "snapshots are written again");
                }
            }
            Err(error) => {
                self.counts.failed.fetch_add(1, Relaxed);
                if !failed_before {
                    self.tell_of_failure(&error);
                }
            }
        }
    }

    fn tell_of_failure(&self, error: &io::Error) {
        let directory = self.directory.display();
        tracing::error!(%directory, %error, "no snapshot could be written; the node goes on, and tries again");
    }

    /// What was written so far.
    #[must_use]
    pub fn written(&self) -> Written {
        let Counts { written, failed, bytes } = &self.counts;
        Written { written: written.load(Relaxed), failed: failed.load(Relaxed), bytes: bytes.load(Relaxed) }
    }
}

/// What has to be known of the last snapshot before the node is made: the incarnation that wrote it, and the key of the
/// hash of keys where that is no cluster's. `None` where there is no snapshot of this node's.
#[must_use]
pub fn peek(directory: &Path, node: &str, cluster: Option<&str>) -> Option<(u64, Option<[u8; 16]>)> {
    file::peek(&directory.join(FILE), node, cluster)
}
