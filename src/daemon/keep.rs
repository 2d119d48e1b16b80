//! When the table goes to disk and when it comes back. It must not know how a snapshot looks.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::told_to_stop;
use crate::driver::Driver;
use crate::snapshot::Store;

/// The node's place on disk, claimed for this process.
pub(super) struct Keeper {
    pub(super) store: Arc<Store>,
    pub(super) driver: Driver,
    pub(super) every: Duration,
    /// Holds the claim.
    pub(super) _claim: File,
}

impl Keeper {
    /// Takes the last snapshot in.
    pub(super) fn restore(&self) {
        self.store.restore(|slice| {
            let restored = self.driver.restore(slice).map_err(|e| format!("a slice of it: {e}"))?;
            Ok((restored.keys, restored.dropped))
        });
    }

    /// Writes a snapshot every so often, until stopped.
    pub(super) async fn run(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = told_to_stop(&mut stopped) => return,
            }
            self.write().await;
        }
    }

    /// Writes a snapshot now; files may keep their writer waiting, the node's tasks must not wait with it.
    pub(super) async fn write(self: &Arc<Self>) {
        let keeper = self.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut slices = keeper.driver.node().slices();
            keeper.store.write(std::iter::from_fn(|| slices.next(keeper.driver.now())));
        });
        if let Err(error) = writing.await {
            tracing::error!(%error, "writing a snapshot broke off");
        }
    }
}
