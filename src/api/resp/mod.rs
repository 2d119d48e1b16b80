//! The Redis protocol: RESP2 and RESP3, for any Redis client. It must not know how to decide.

mod about;
mod check;
mod connection;
mod counts;
mod reply;
mod session;
mod wire;

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use self::check::Rules;
use super::Api;
use super::listen::Speak;
use super::pace::Patience;

pub use self::counts::RespCounts;

/// What all connections of the Redis protocol share.
pub struct Resp {
    api: Arc<Api>,
    rules: Arc<Rules>,
    counts: Arc<RespCounts>,
}

impl std::fmt::Debug for Resp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resp").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Resp {
    /// Answers from `api`, and counts in `counts`.
    #[must_use]
    pub fn new(api: Arc<Api>, counts: Arc<RespCounts>) -> Arc<Self> {
        Arc::new(Self { api, rules: Arc::default(), counts })
    }
}

impl Speak for Arc<Resp> {
    async fn serve<S>(self, stream: S, shutdown: watch::Receiver<bool>, patience: Patience)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::serve(self, stream, shutdown, patience).await;
    }
}

#[cfg(test)]
mod tests;
