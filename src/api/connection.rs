//! One HTTP connection, from its first byte to its end. It must not know any route, nor how connections come.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;
use tracing::debug;

use super::cork::cork;
use super::listen::{Speak, wait_for_shutdown};
use super::pace::{Pace, Paced, Patience};

/// The most bytes of a request's head: room for a key of 1024 escaped bytes, little enough for 20,000 at once.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Requests that one HTTP/2 connection may have open at once.
const STREAMS_MAX: u32 = 256;
/// How often an HTTP/2 client is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);

impl Speak for Router {
    async fn serve<S>(self, stream: S, shutdown: watch::Receiver<bool>, patience: Patience)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = move |request: Request<Incoming>| {
            let answer = self.clone().oneshot(request.map(Body::new));
            async move { answer.await.unwrap_or_else(|never| match never {}) }
        };
        serve(answer, stream, shutdown, patience).await;
    }
}

/// Serves one connection; `answer` answers each request.
pub async fn serve<S, A, F, B>(answer: A, stream: S, mut shutdown: watch::Receiver<bool>, patience: Patience)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let pace = Arc::new(Pace::default());
    let (corked, cork) = cork(Paced::new(stream, pace.clone()));
    let counted = pace.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let answering = counted.answering(request.version());
        let answer = answer(request);
        async move {
            let _answering = answering;
            Ok::<_, Infallible>(answer.await)
        }
    });
    let builder = builder();
    let mut served = pin!(builder.serve_connection(TokioIo::new(corked), service));
    let ended = tokio::select! {
        ended = cork.run(served.as_mut()) => Some(ended),
        why = pace.watch(patience) => {
            debug!("closing a connection: {why}");
            return;
        }
        () = wait_for_shutdown(&mut shutdown) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            timeout(patience.grace, cork.run(served)).await.unwrap_or(Ok(()))
        }
    };
    if let Err(e) = ended {
        debug!("a connection ended with an error: {e}");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
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
