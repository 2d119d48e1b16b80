//! Listeners: accepting, serving and ending connections over TCP and Unix sockets. It must not know any route.
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

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tracing::{debug, warn};

use super::pace::{Pace, Paced, Patience};

/// The most connections that one listener holds at once; further ones wait in the system's queue.
pub const CONNECTIONS_MAX: u32 = 20_000;
/// Descriptors kept for everything that is no connection of a listener.
const DESCRIPTORS_KEPT: u64 = 512;
/// How long a listener pauses when the system has no descriptor or memory for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The most bytes of a request's head: room for a key of 1024 escaped bytes, little enough for 20,000 at once.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Requests that one HTTP/2 connection may have open at once.
const STREAMS_MAX: u32 = 256;
/// How often an HTTP/2 client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);

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

/// Serves `router` on TCP until `shutdown` turns true (or its sender is gone) and what was being answered is done.
pub async fn serve_tcp(listener: TcpListener, router: Router, shutdown: watch::Receiver<bool>) {
    Server::new(router, shutdown, Patience::default(), connections_max()).tcp(listener).await;
}

/// Serves `router` on a Unix socket, as [`serve_tcp`] does, and removes the socket's file in the end.
pub async fn serve_unix(listener: UnixListener, router: Router, shutdown: watch::Receiver<bool>) {
    Server::new(router, shutdown, Patience::default(), connections_max()).unix(listener).await;
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
struct Server {
    router: Router,
    shutdown: watch::Receiver<bool>,
    patience: Patience,
    connections_max: u32,
    connections: Arc<Semaphore>,
}

impl Server {
    fn new(router: Router, shutdown: watch::Receiver<bool>, patience: Patience, connections_max: u32) -> Self {
        let connections = Arc::new(Semaphore::new(connections_max as usize));
        Self { router, shutdown, patience, connections_max, connections }
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
                    let connection = Connection {
                        router: self.router.clone(),
                        shutdown: self.shutdown.clone(),
                        patience: self.patience,
                    };
                    tokio::spawn(async move {
                        let _permit = permit;
                        connection.serve(stream).await;
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
async fn wait_for_shutdown(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|s| *s).await;
}

/// What one connection needs.
struct Connection {
    router: Router,
    shutdown: watch::Receiver<bool>,
    patience: Patience,
}

impl Connection {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut self, stream: S) {
        let pace = Arc::new(Pace::default());
        let io = TokioIo::new(Paced::new(stream, pace.clone()));
        let (router, counted) = (self.router, pace.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let answering = counted.answering(request.version());
            let answer = router.clone().oneshot(request.map(Body::new));
            async move {
                let _answering = answering;
                answer.await
            }
        });
        let builder = builder();
        let mut served = pin!(builder.serve_connection(io, service));
        let ended = tokio::select! {
            ended = served.as_mut() => Some(ended),
            why = pace.watch(self.patience) => {
                debug!("closing a connection: {why}");
                return;
            }
            () = wait_for_shutdown(&mut self.shutdown) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                served.as_mut().graceful_shutdown();
                timeout(self.patience.grace, served).await.unwrap_or(Ok(()))
            }
        };
        if let Err(e) = ended {
            debug!("a connection ended with an error: {e}");
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // not `pipeline_flush`: it holds an answer back for as long as part of a further request is in the buffer
    builder.http1().max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(Duration::from_secs(10))
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32);
    builder
}

#[cfg(test)]
mod tests;
