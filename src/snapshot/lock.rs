//! One process a data directory. It must not know what is in it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long the process before may take to write its last snapshot and end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InUse {
    /// Another process keeps its snapshots there.
    #[error("data_dir {0:?} is in use by another process: give each node a directory of its own")]
    Taken(PathBuf),
    /// It is not there and can't be made, or can't be opened.
    #[error("data_dir {path:?} can't be used: {source}; make a directory that this user may write to")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Claims the directory for this process, as long as the returned file is open; makes it where it is not there.
///
/// # Errors
/// [`InUse`].
pub async fn claim(directory: &Path) -> Result<File, InUse> {
    let unusable = |source| InUse::Unusable { path: directory.to_owned(), source };
    // an existing directory keeps its mode
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
    // the directory itself: a file in it would need room on the disk
    let handle = File::open(directory).map_err(unusable)?;
    may_write(directory).map_err(unusable)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match handle.try_lock() {
            Ok(()) => return Ok(handle),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOOK_EVERY).await,
            Err(TryLockError::WouldBlock) => return Err(InUse::Taken(directory.to_owned())),
            // some network file systems have no locks
            Err(TryLockError::Error(error)) => {
                tracing::warn!(directory = %directory.display(), %error, "the data directory can't be locked");
                return Ok(handle);
            }
        }
    }
}

/// Whether this user may write there at all. That the disk is full now is no reason not to start.
fn may_write(directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!("{}.tmp", super::FILE));
    match File::create(&probe).and_then(|_| fs::remove_file(&probe)) {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => Err(error),
        _ => Ok(()),
    }
}
