//! One HTTP connection, from its first byte to its end. It must not know any route, nor how connections come.

use std::convert::Infallible;
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
use tokio::time::{sleep, timeout};
use tower::ServiceExt;
use tracing::debug;

use super::Api;
use super::cork::{Cork, Corked, cork};
use super::listen::{Speak, wait_for_shutdown};
use super::pace::{Pace, Paced, Patience};
use super::plain;

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
        serve(answer, None, stream, shutdown, patience).await;
    }
}

/// Serves one connection; `answer` answers each request, but for [plain] ones before any other, which `api` does
/// if it is given.
pub async fn serve<S, A, F, B>(
    answer: A,
    api: Option<&Api>,
    stream: S,
    mut shutdown: watch::Receiver<bool>,
    patience: Patience,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let pace = Arc::new(Pace::default());
    let (mut corked, cork) = cork(Paced::new(stream, pace.clone()));
    // each in a box of its own: a task is as large as all that it may hold at once, and 20,000 may be idle
    if let Some(api) = api
        && !Box::pin(serve_plain(api, &mut corked, &cork, &pace, &shutdown, patience)).await
    {
        return;
    }
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
    let mut served = Box::pin(builder.serve_connection(TokioIo::new(corked), service));
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

/// Answers plain requests. Whether there is more to serve, from what is to be read on.
async fn serve_plain<S>(
    api: &Api,
    corked: &mut Corked<Paced<S>>,
    cork: &Cork<Paced<S>>,
    pace: &Arc<Pace>,
    shutdown: &watch::Receiver<bool>,
    patience: Patience,
) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut stop, mut stopped) = (shutdown.clone(), shutdown.clone());
    let grace_is_over = async {
        wait_for_shutdown(&mut stopped).await;
        sleep(patience.grace).await;
    };
    let ended = tokio::select! {
        ended = cork.run(plain::serve(api, corked, pace, &mut stop)) => ended,
        why = pace.watch(patience) => {
            debug!("closing a connection: {why}");
            return false;
        }
        () = grace_is_over => return false,
    };
    match ended {
        Ok(Some(bytes)) => {
            corked.unread(bytes);
            true
        }
        Ok(None) => false,
        Err(e) => {
            debug!("a connection ended with an error: {e}");
            false
        }
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
