//! A stream whose writes are gathered until its task has nothing more to do. It must not know what is written.
//!
//! hyper flushes after every answer, so a pipeline would cost one system call each; its own remedy holds an answer back for
//! as long as part of a further request has come. Here answers are sent when the connection's task goes to sleep,
//! whatever it waits for: then there is nothing more to gather.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gathered bytes are sent once there are so many, whether or not there will be more.
const GATHERED_BYTES: usize = 64 << 10;

/// Writes to it are gathered, until [`Cork::run`] sees its task wait, or the end of the stream.
#[derive(Debug)]
pub struct Corked<S>(Arc<Mutex<Gathering<S>>>);

/// Sends what was gathered.
#[derive(Debug)]
pub struct Cork<S>(Arc<Mutex<Gathering<S>>>);

#[derive(Debug)]
struct Gathering<S> {
    stream: S,
    bytes: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
    /// What was read already and is to be read again, from `read_again` on.
    unread: Vec<u8>,
    read_again: usize,
}

/// Gathers what is written to `stream`.
pub fn cork<S>(stream: S) -> (Corked<S>, Cork<S>) {
    // uncontended: both are of one task
    let gathering =
        Arc::new(Mutex::new(Gathering { stream, bytes: Vec::new(), sent: 0, unread: Vec::new(), read_again: 0 }));
    (Corked(Arc::clone(&gathering)), Cork(gathering))
}

impl<S> Corked<S> {
    /// Has these bytes, which were the last to be read, read again before any further ones.
    pub fn unread(&self, mut bytes: Vec<u8>) {
        let mut gathering = self.0.lock();
        bytes.extend_from_slice(&gathering.unread[gathering.read_again..]);
        (gathering.unread, gathering.read_again) = (bytes, 0);
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.bytes[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.bytes.clear();
        self.sent = 0;
        // one long answer is no reason to keep its memory for the life of the connection
        self.bytes.shrink_to(GATHERED_BYTES);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Runs `served`, which writes to the corked stream, and sends what it wrote whenever it waits.
    pub async fn run<T>(&self, served: impl Future<Output = T>) -> T {
        let mut served = pin!(served);
        poll_fn(|cx| {
            let polled = served.as_mut().poll(cx);
            // an error shows at the next read or write of its own; unsent bytes wake this task again
            let _ = self.0.lock().send(cx);
            polled
        })
        .await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let gathering = &mut *self.0.lock();
        let rest = &gathering.unread[gathering.read_again..];
        if rest.is_empty() {
            return Pin::new(&mut gathering.stream).poll_read(cx, buf);
        }
        let taken = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..taken]);
        gathering.read_again += taken;
        if gathering.read_again == gathering.unread.len() {
            (gathering.unread, gathering.read_again) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut gathering = self.0.lock();
        if gathering.bytes.len() >= GATHERED_BYTES {
            ready!(gathering.send(cx))?;
        }
        let taken = bytes.len().min(GATHERED_BYTES);
        gathering.bytes.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock();
        ready!(gathering.send(cx))?;
        Pin::new(&mut gathering.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn what_is_written_is_sent_when_the_writer_waits() {
        let (mut near, far) = duplex(1 << 20);
        let (mut corked, cork) = cork(far);
        let (go_on, mut wait) = tokio::sync::mpsc::channel::<()>(1);
        let writing = tokio::spawn(async move {
            let writes = async {
                corked.write_all(b"one ").await.unwrap();
                corked.flush().await.unwrap();
                corked.write_all(b"two").await.unwrap();
                assert_eq!(corked.0.lock().bytes, b"one two", "nothing is sent before it waits");
                wait.recv().await;
                corked.write_all(b"!").await.unwrap();
                corked.shutdown().await.unwrap();
            };
            cork.run(writes).await;
        });
        let mut seen = [0; 64];
        let n = near.read(&mut seen).await.unwrap();
        assert_eq!(&seen[..n], b"one two");
        go_on.send(()).await.unwrap();
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "!");
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn much_is_sent_as_the_other_side_takes_it_and_in_order() {
        let (mut near, far) = duplex(1000);
        let (mut corked, cork) = cork(far);
        let sent: Vec<u8> = (0..500_000_u32).map(|i| (i / 7) as u8).collect();
        let written = sent.clone();
        let writing = tokio::spawn(async move {
            cork.run(async {
                for part in written.chunks(30_001) {
                    corked.write_all(part).await.unwrap();
                    assert!(corked.0.lock().bytes.len() <= 2 * GATHERED_BYTES);
                }
                corked.shutdown().await.unwrap();
            })
            .await;
        });
        let mut seen = Vec::new();
        near.read_to_end(&mut seen).await.unwrap();
        assert!(seen == sent);
        writing.await.unwrap();
    }
}
