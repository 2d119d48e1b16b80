//! Listeners: accepting and ending connections over TCP and Unix sockets. It must not know what is spoken on them.
//!
//! A listener outlives every error of its connections, and of the system's table of descriptors.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::pace::Patience;

/// The most connections that one listener holds at once; further ones wait in the system's queue.
pub const CONNECTIONS_MAX: u32 = 20_000;
/// Descriptors kept for everything that is no connection of a listener.
const DESCRIPTORS_KEPT: u64 = 512;
/// How long a listener pauses when the system has no descriptor or memory for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is spoken on a listener's connections.
pub trait Speak: Clone + Send + Sync + 'static {
    /// Serves one connection until it ends, or until `shutdown` turns true and what was being answered is done.
    fn serve<S>(
        self,
        stream: S,
        shutdown: watch::Receiver<bool>,
        patience: Patience,
    ) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// Raises this process' limit of open files to what the system allows it, and tells how many that is.
///
/// # Errors
/// That of the system.
pub fn raise_file_limit() -> io::Result<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// A Unix socket at `path` that its owner and group may use. A socket that nobody listens on any more is replaced.
///
/// # Errors
/// That of the system; `AddrInUse` when somebody listens there, or when `path` is something else than a socket.
pub async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) && is_abandoned(path).await {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn is_abandoned(socket: &Path) -> bool {
    UnixStream::connect(socket).await.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Serves on TCP until `shutdown` turns true (or its sender is gone) and what was being answered is done.
pub async fn serve_tcp(listener: TcpListener, speaker: impl Speak, shutdown: watch::Receiver<bool>) {
    Server::new(speaker, shutdown, Patience::default(), connections_max()).tcp(listener).await;
}

/// Serves on a Unix socket, as [`serve_tcp`] does, and removes the socket's file in the end.
pub async fn serve_unix(listener: UnixListener, speaker: impl Speak, shutdown: watch::Receiver<bool>) {
    Server::new(speaker, shutdown, Patience::default(), connections_max()).unix(listener).await;
}

/// [`CONNECTIONS_MAX`], or what the limit of open files leaves for it.
fn connections_max() -> u32 {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let free = files.saturating_sub(DESCRIPTORS_KEPT).max(16);
    u32::try_from(free).map_or(CONNECTIONS_MAX, |free| free.min(CONNECTIONS_MAX))
}

fn remove_socket(listener: &UnixListener) {
    let Ok(address) = listener.local_addr() else { return };
    let Some(path) = address.as_pathname() else { return };
    if let Err(e) = fs::remove_file(path) {
        debug!(?path, "the socket's file is gone already: {e}");
    }
}

/// What all connections of one listener share.
struct Server<H> {
    speaker: H,
    shutdown: watch::Receiver<bool>,
    patience: Patience,
    connections_max: u32,
    connections: Arc<Semaphore>,
}

impl<H: Speak> Server<H> {
    fn new(speaker: H, shutdown: watch::Receiver<bool>, patience: Patience, connections_max: u32) -> Self {
        let connections = Arc::new(Semaphore::new(connections_max as usize));
        Self { speaker, shutdown, patience, connections_max, connections }
    }

    async fn tcp(self, listener: TcpListener) {
        let accept = |cx: &mut Context<'_>| {
            let (stream, _) = ready!(listener.poll_accept(cx))?;
            // answers are single small writes: waiting for more to send would only delay them
            if let Err(e) = stream.set_nodelay(true) {
                debug!("TCP_NODELAY is refused, the peer is probably gone: {e}");
            }
            Poll::Ready(Ok(stream))
        };
        self.accept_all(accept).await;
        drop(listener);
        self.finish().await;
    }

    async fn unix(self, listener: UnixListener) {
        self.accept_all(|cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(stream, _)| stream)).await;
        remove_socket(&listener);
        drop(listener);
        self.finish().await;
    }

    /// Accepts until the shutdown; each connection is a task of its own.
    async fn accept_all<S, A>(&self, mut accept: A)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: FnMut(&mut Context<'_>) -> Poll<io::Result<S>>,
    {
        let mut shutdown = self.shutdown.clone();
        let mut ended = pin!(wait_for_shutdown(&mut shutdown));
        let mut complained = false;
        loop {
            let next = async {
                let permit = self.connections.clone().acquire_owned().await;
                (permit, poll_fn(&mut accept).await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = &mut ended => return,
                next = next => next,
            };
            match accepted {
                Ok(stream) => {
                    complained = false;
                    let (speaker, shutdown) = (self.speaker.clone(), self.shutdown.clone());
                    let served = speaker.serve(stream, shutdown, self.patience);
                    tokio::spawn(async move {
                        let _permit = permit;
                        served.await;
                    });
                }
                Err(e) if is_of_one_connection(&e) => debug!("a connection broke off before it was accepted: {e}"),
                Err(e) => {
                    if !complained {
                        warn!("cannot accept connections for the moment: {e}");
                        complained = true;
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until every connection has ended; each sees the shutdown by itself, and ends within its grace.
    async fn finish(&self) {
        // fails only when the semaphore is closed, which nobody does
        let _ = self.connections.acquire_many(self.connections_max).await;
    }
}

/// Errors that the next connection need not share.
fn is_of_one_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Ready once `shutdown` is true; a sender that is gone can't say so any more, and counts as if it had.
pub async fn wait_for_shutdown(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|s| *s).await;
}

#[cfg(test)]
mod tests;
