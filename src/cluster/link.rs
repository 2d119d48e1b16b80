//! One connection at work: what arrives on it, sorted by tag, and messages sent on it. It knows no other connection.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ReadToEndError, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::Inbox;
use super::endpoint::STREAMS_MAX;
use super::quic::{LinkEvent, MEMBERSHIP_BYTES_MAX, Mesh, code};
use super::registry::Link;

/// A message that comes before membership has called its sender alive waits so long.
const UNHEARD: Duration = Duration::from_secs(5);
/// A goodbye waits so long for the messages that were sent before it.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// What a datagram (its last byte) or a stream (its first) carries.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Tag {
    Frame = 0,
    Membership = 1,
    Message = 2,
    Goodbye = 3,
}

impl Tag {
    fn of(byte: u8) -> Option<Self> {
        [Self::Frame, Self::Membership, Self::Message, Self::Goodbye].into_iter().find(|tag| *tag as u8 == byte)
    }
}

/// Reads the connection until it ends.
pub(super) async fn serve(mesh: Arc<Mesh>, link: Link, heard: watch::Receiver<bool>) {
    let Some(inbox) = mesh.inbox.get().cloned() else { return };
    tokio::select! {
        () = read_datagrams(&mesh, &link, &heard, &*inbox) => {}
        () = read_streams(&mesh, &link, &heard, &inbox) => {}
    }
    let reason = link.connection.closed().await;
    mesh.part(&link, &reason).await;
}

async fn read_datagrams(mesh: &Mesh, link: &Link, heard: &watch::Receiver<bool>, inbox: &dyn Inbox) {
    while let Ok(bytes) = link.connection.read_datagram().await {
        let Some((tag, bytes)) = bytes.split_last() else { continue };
        match Tag::of(*tag) {
            Some(Tag::Frame) => {
                let open = heard.borrow();
                if *open {
                    inbox.frame(&link.peer, bytes);
                }
            }
            // membership repeats itself: what finds no room is not missed
            Some(Tag::Membership) => _ = mesh.membership.try_send((link.address, bytes.to_vec())),
            _ => tracing::debug!(peer = %link.peer, tag, "datagram of an unknown kind dropped"),
        }
    }
}

async fn read_streams(mesh: &Arc<Mesh>, link: &Link, heard: &watch::Receiver<bool>, inbox: &Arc<dyn Inbox>) {
    let slots = Arc::new(Semaphore::new(STREAMS_MAX as usize));
    while let Ok(stream) = link.connection.accept_uni().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let reader = Reader {
            mesh: mesh.clone(),
            link: link.clone(),
            heard: heard.clone(),
            inbox: inbox.clone(),
            slots: slots.clone(),
        };
        tokio::spawn(reader.read(stream, slot));
    }
}

/// Reads one stream.
struct Reader {
    mesh: Arc<Mesh>,
    link: Link,
    heard: watch::Receiver<bool>,
    inbox: Arc<dyn Inbox>,
    slots: Arc<Semaphore>,
}

impl Reader {
    async fn read(mut self, mut stream: RecvStream, slot: OwnedSemaphorePermit) {
        let mut tag = [0];
        if stream.read_exact(&mut tag).await.is_err() {
            return;
        }
        match Tag::of(tag[0]) {
            Some(Tag::Message) => self.message(&mut stream).await,
            Some(Tag::Membership) => {
                if let Some(bytes) = self.to_end(&mut stream, MEMBERSHIP_BYTES_MAX).await {
                    let _ = self.mesh.membership.try_send((self.link.address, bytes));
                }
            }
            Some(Tag::Goodbye) => {
                drop(slot);
                let _ = timeout(OVERTAKEN, self.slots.acquire_many(STREAMS_MAX)).await;
                let _ = self.mesh.events.send(LinkEvent::Goodbye(self.link.peer.clone())).await;
            }
            Some(Tag::Frame) | None => {
                tracing::debug!(peer = %self.link.peer, tag = tag[0], "stream of an unknown kind refused");
                let _ = stream.stop(code::REFUSED);
            }
        }
    }

    async fn message(&mut self, stream: &mut RecvStream) {
        // not read before the sender may be heard: until then flow control keeps most of it at the sender
        if !matches!(timeout(UNHEARD, self.heard.wait_for(|open| *open)).await, Ok(Ok(_))) {
            tracing::debug!(peer = %self.link.peer, "message of a peer that is not up refused");
            let _ = stream.stop(code::REFUSED);
            return;
        }
        let Some(bytes) = self.to_end(stream, self.mesh.message_bytes_max).await else { return };
        let open = self.heard.borrow();
        if *open {
            self.inbox.message(&self.link.peer, bytes);
        }
    }

    async fn to_end(&self, stream: &mut RecvStream, bytes_max: usize) -> Option<Vec<u8>> {
        match stream.read_to_end(bytes_max).await {
            Ok(bytes) => Some(bytes),
            Err(ReadToEndError::TooLong) => {
                tracing::warn!(peer = %self.link.peer, bytes_max, "a message over the limit was refused");
                let _ = stream.stop(code::REFUSED);
                None
            }
            Err(ReadToEndError::Read(error)) => {
                tracing::debug!(peer = %self.link.peer, %error, "message broken off");
                None
            }
        }
    }
}

/// Sends one message on a stream of its own and waits until the peer's end has all of it. Dropped midway, the message
/// is taken back.
///
/// # Errors
/// The connection broke, or the peer refused the message; the text says which.
pub(super) async fn send(link: &Link, tag: Tag, bytes: &[u8]) -> Result<(), String> {
    let stream = link.connection.open_uni().await.map_err(|error| error.to_string())?;
    if !matches!(tag, Tag::Message) {
        // small, and what liveness hangs on: ahead of bulk
        let _ = stream.set_priority(1);
    }
    let mut sending = Sending { stream, complete: false };
    sending.stream.write_all(&[tag as u8]).await.map_err(|error| error.to_string())?;
    sending.stream.write_all(bytes).await.map_err(|error| error.to_string())?;
    sending.stream.finish().map_err(|error| error.to_string())?;
    sending.complete = true;
    match sending.stream.stopped().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err("the peer refused it".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Quinn finishes a stream that is dropped, so that what was sent of it would pass for the whole message.
struct Sending {
    stream: SendStream,
    complete: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.complete {
            let _ = self.stream.reset(code::REFUSED);
        }
    }
}
