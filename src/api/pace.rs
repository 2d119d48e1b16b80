//! How long a connection may keep the daemon waiting. It must not know what is asked or answered.
//!
//! hyper's own time for a request's head also runs while a connection is idle, and it has none for the bytes by which
//! the protocol is told: one value would either cut off pooled connections or let slow senders stay. So the stream is
//! watched here: it only counts, and a task looks at the counts now and then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

/// How long a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request's head to come, from its first byte; for the first one, from the start of the connection.
    pub head: Duration,
    /// Without any byte between two requests, or while an answer is not being taken.
    pub idle: Duration,
    /// For what is being answered when the listener shuts down.
    pub grace: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        // longer than the minute that most clients and proxies keep idle connections: they should end it, not us
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(75), grace: Duration::from_secs(10) }
    }
}

impl Patience {
    /// How often to look: a connection ends at most this much late.
    fn step(self) -> Duration {
        self.head / 4
    }
}

/// What happened on one connection so far.
#[derive(Debug, Default)]
pub struct Pace {
    /// Reads and writes that moved bytes.
    moves: AtomicU64,
    /// Requests whose head has come.
    requests: AtomicU64,
    /// Requests that are being answered.
    answering: AtomicU64,
    /// Whether bytes came of which no request is known yet.
    partial: AtomicBool,
    /// Whether it speaks HTTP/2, where bytes may come without a request, and pings find the dead.
    multiplexed: AtomicBool,
}

/// A request is being answered as long as this lives.
#[derive(Debug)]
pub struct Answering(Arc<Pace>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Relaxed);
    }
}

impl Pace {
    /// Notes that a request's head has come.
    pub fn answering(self: &Arc<Self>, version: Version) -> Answering {
        if version == Version::HTTP_2 {
            self.multiplexed.store(true, Relaxed);
        }
        self.answering.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.partial.store(false, Relaxed);
        Answering(self.clone())
    }

    fn moved(&self, read: bool) {
        self.moves.fetch_add(1, Relaxed);
        if read && self.answering.load(Relaxed) == 0 {
            self.partial.store(true, Relaxed);
        }
    }

    /// Ready with the reason when the connection took longer than `patience`.
    pub async fn watch(&self, patience: Patience) -> &'static str {
        let start = Instant::now();
        let (mut moves, mut moved_at) = (0, start);
        let (mut requests, mut partial_since) = (0, None);
        loop {
            sleep(patience.step()).await;
            let now = Instant::now();
            if self.answering.load(Relaxed) > 0 {
                // the body and the wait have their own limits
                (moved_at, partial_since) = (now, None);
                continue;
            }
            let seen = (self.moves.load(Relaxed), self.requests.load(Relaxed));
            if seen.0 != moves {
                (moves, moved_at) = (seen.0, now);
            }
            if seen.1 == 0 && now - start >= patience.head {
                return "no request came";
            }
            if seen.1 != requests || !self.partial.load(Relaxed) || self.multiplexed.load(Relaxed) {
                (requests, partial_since) = (seen.1, None);
            }
            if seen.1 > 0 && self.partial.load(Relaxed) && !self.multiplexed.load(Relaxed) {
                let since = *partial_since.get_or_insert(now);
                if now - since >= patience.head {
                    return "a request came too slowly";
                }
            }
            if now - moved_at >= patience.idle {
                return "it was idle";
            }
        }
    }
}

/// A stream that tells its [`Pace`] what moves.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
}

impl<S> Paced<S> {
    /// Watches `stream`.
    pub fn new(stream: S, pace: Arc<Pace>) -> Self {
        Self { stream, pace }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.pace.moved(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.pace.moved(false);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.pace.moved(false);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75), grace: Duration::from_secs(10) };

    /// Runs `life` beside the watch; how long the connection lived, and why it ended.
    async fn lived(pace: Arc<Pace>, life: impl Future<Output = ()>) -> (u64, &'static str) {
        let start = Instant::now();
        let watch = pace.watch(PATIENCE);
        let (why, ()) = tokio::join!(async { (watch.await, start.elapsed().as_secs()) }, life);
        (why.1, why.0)
    }

    async fn request(pace: &Arc<Pace>, version: Version, takes: Duration) {
        pace.moved(true);
        let answering = pace.answering(version);
        sleep(takes).await;
        drop(answering);
        pace.moved(false);
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_asks_is_closed_even_while_trickling() {
        let pace = Arc::new(Pace::default());
        assert_eq!(lived(pace.clone(), async {}).await, (10, "no request came"));
        let trickle = async {
            for _ in 0..30 {
                pace.moved(true);
                sleep(Duration::from_millis(300)).await;
            }
        };
        assert_eq!(lived(pace.clone(), trickle).await, (10, "no request came"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_outlives_a_slow_head() {
        let pace = Arc::new(Pace::default());
        let (secs, why) = lived(pace.clone(), request(&pace, Version::HTTP_11, Duration::ZERO)).await;
        assert!((75..=78).contains(&secs) && why == "it was idle", "{secs} s, {why}");
        let pace = Arc::new(Pace::default());
        let slow_second = async {
            request(&pace, Version::HTTP_11, Duration::ZERO).await;
            for _ in 0..60 {
                sleep(Duration::from_secs(1)).await;
                pace.moved(true);
            }
        };
        let (_, why) = lived(pace.clone(), slow_second).await;
        assert_eq!(why, "a request came too slowly");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_is_waited_for() {
        let pace = Arc::new(Pace::default());
        let (secs, why) = lived(pace.clone(), request(&pace, Version::HTTP_11, Duration::from_secs(300))).await;
        assert!((375..=380).contains(&secs) && why == "it was idle", "{secs} s, {why}");
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_http_2_are_no_slow_request() {
        let pace = Arc::new(Pace::default());
        let pings = async {
            request(&pace, Version::HTTP_2, Duration::ZERO).await;
            for _ in 0..10 {
                sleep(Duration::from_secs(20)).await;
                pace.moved(true);
            }
        };
        let (secs, why) = lived(pace.clone(), pings).await;
        assert!((275..=280).contains(&secs) && why == "it was idle", "{secs} s, {why}");
    }
}
