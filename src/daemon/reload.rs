//! When to read the configuration again: on SIGHUP, and when its file changes. It must not know what is in it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::control::Steward;
use super::told_to_stop;
use crate::api::Control as _;

/// Editors write a file in several steps: it is read when it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(200);

/// Reloads whenever there is reason to, until stopped.
pub(super) async fn watch(steward: Arc<Steward>, mut stopped: watch::Receiver<bool>) {
    let (changed, mut changes) = mpsc::channel(1);
    let _watcher = steward.file().and_then(|file| watch_file(file, changed));
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::warn!("SIGHUP can't be heard: only POST /v1/reload reloads");
        return;
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(&steward, "SIGHUP").await,
            Some(()) = changes.recv() => {
                while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|change| change.is_some()) {}
                reload(&steward, "its file changed").await;
            }
            () = told_to_stop(&mut stopped) => return,
        }
    }
}

async fn reload(steward: &Arc<Steward>, why: &str) {
    let steward = steward.clone();
    // a panic there would be a bug, and is no reason to stop
    match tokio::task::spawn_blocking(move || steward.reload()).await {
        Ok(Ok(report)) => tracing::info!(why, report, "configuration reloaded"),
        Ok(Err(error)) => tracing::error!(why, error, "the new configuration is bad, the old one stays"),
        Err(error) => tracing::error!(why, %error, "reloading broke off"),
    }
}

/// Watches the file's directory: a file that is replaced by renaming is another file.
fn watch_file(file: &Path, changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let name: OsString = file.file_name()?.to_owned();
    let directory = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned();
    let on_event = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        // Kubernetes swaps a link beside the file, named with dots
        let ours = event.paths.iter().any(|p| p.file_name().is_some_and(|n| n == name || n == "..data"));
        if ours && !event.kind.is_access() {
            // full: a reload is due already
            let _ = changed.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "the file can't be watched: reload by SIGHUP or POST /v1/reload");
            None
        }
    }
}
