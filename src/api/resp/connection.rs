//! One connection of the Redis protocol: reading, answering a batch with one write, holding, ending. It must not know
//! commands.
//!
//! A batch is what one read brings. Its commands are decided one after the other; those whose answers are held, or that
//! another than this node is to decide, wait together, and the whole batch is written once all are answered, in order.
//! Nothing of it is read ahead, so a client that does not take its answers can't make more of them.

use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::{io, mem};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use super::Resp;
use super::check;
use super::reply::Reply;
use super::session::{Session, Then, Waiting};
use super::wire::{Args, COMMAND_BYTES_MAX};
use crate::api::ask::draining;
use crate::api::listen::wait_for_shutdown;
use crate::api::pace::Patience;
use crate::driver::Held;

/// What is read into at first; it grows up to one whole command.
const INPUT_BYTES: usize = 4 << 10;
/// Answers are sent once there are so many bytes of them, though the batch has more commands.
const OUTPUT_BYTES: usize = 64 << 10;
/// The most answers that are held at once.
const WAITING_MAX: usize = 1000;
/// How long, and how many times, what comes after the last answer is read and thrown away.
const PARTING: Duration = Duration::from_secs(2);
const PARTING_READS_MAX: usize = 1000;

/// Serves one client until it leaves, breaks the protocol or the patience, or the daemon stops.
pub async fn serve<S>(resp: Arc<Resp>, stream: S, mut shutdown: watch::Receiver<bool>, patience: Patience)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _open = Open::new(&resp);
    let mut connection = Connection {
        stream,
        session: Session::new(resp),
        patience,
        input: vec![0; INPUT_BYTES],
        read: 0..0,
        args: Args::default(),
        output: Vec::new(),
        waiting: Vec::new(),
        owed_since: None,
        asked: false,
        stopping: false,
    };
    let stop = pin!(wait_for_shutdown(&mut shutdown));
    if let Err(e) = connection.run(stop).await {
        debug!("closing a connection of the Redis protocol: {e}");
    }
}

/// Counts a connection as long as it lives.
struct Open(Arc<Resp>);

impl Open {
    fn new(resp: &Arc<Resp>) -> Self {
        resp.counts.open.fetch_add(1, Relaxed);
        Self(Arc::clone(resp))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts.open.fetch_sub(1, Relaxed);
    }
}

struct Connection<S> {
    stream: S,
    session: Session,
    patience: Patience,
    input: Vec<u8>,
    /// Where in `input` stands what was read and not run yet.
    read: Range<usize>,
    args: Args,
    output: Vec<u8>,
    waiting: Vec<Waiting>,
    /// Since when the client owes the rest of a command, or its first one.
    owed_since: Option<Instant>,
    /// Whether the client has sent a whole command.
    asked: bool,
    /// Whether the daemon is to stop.
    stopping: bool,
}

/// How a batch ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    /// Everything that was read is run.
    Done,
    /// There may be more to run.
    More,
    /// The connection ends once it is answered.
    Last,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> io::Result<()> {
        loop {
            let batch = match self.run_batch() {
                // while answers were held, more may have come
                Batch::Done if !self.waiting.is_empty() => Batch::More,
                batch => batch,
            };
            let gone = self.hold(stop.as_mut()).await?;
            self.send().await?;
            if batch == Batch::Last {
                return self.part().await;
            }
            if gone || (batch == Batch::Done && !self.read_more(stop.as_mut()).await?) {
                return Ok(());
            }
            // whoever sends more than fits at once takes turns with the others
            if batch == Batch::More || self.read.end == self.input.len() {
                yield_now().await;
            }
        }
    }

    /// Runs what has been read, as far as answers have room.
    fn run_batch(&mut self) -> Batch {
        let batch = loop {
            if self.output.len() >= OUTPUT_BYTES || self.waiting.len() >= WAITING_MAX {
                break Batch::More;
            }
            let bytes = &self.input[self.read.clone()];
            let length = match self.args.read(bytes) {
                Ok(None) => break Batch::Done,
                Ok(Some(length)) => length,
                Err(error) => {
                    Reply::new(&mut self.output, false).error("ERR", error);
                    self.session.counts.errors += 1;
                    break Batch::Last;
                }
            };
            let then = match self.args.len() {
                0 => Then::Next,
                _ => self.session.run(&self.args, bytes, &mut self.output),
            };
            self.read.start += length;
            (self.owed_since, self.asked) = (None, true);
            match then {
                Then::Next => {}
                Then::Hold(waiting) => self.waiting.push(waiting),
                Then::Close => break Batch::Last,
            }
        };
        let Session { resp, counts, .. } = &mut self.session;
        resp.counts.add(counts);
        batch
    }

    /// Holds what is to be held, then puts the answers in their places. True when the client has gone meanwhile, or the
    /// daemon could wait no longer: the answers are what they were by then.
    async fn hold(&mut self, stop: Pin<&mut impl Future<Output = ()>>) -> io::Result<bool> {
        if self.waiting.is_empty() {
            return Ok(false);
        }
        let waiting = mem::take(&mut self.waiting);
        let resp = Arc::clone(&self.session.resp);
        let mut held: Vec<_> = (waiting.iter())
            .map(|w| Held { check: w.wanted.check(), wait: w.wanted.wait, outcome: w.decision.map(Ok) })
            .collect();
        let (stopping, grace) = (&mut self.stopping, self.patience.grace);
        let stopped = async move {
            if !*stopping {
                stop.await;
                *stopping = true;
            }
            sleep(grace).await;
        };
        let gone = tokio::select! {
            biased;
            () = resp.api.driver.hold_all(&mut held) => false,
            gone = read_to_end(&mut self.stream, &mut self.input, &mut self.read) => { gone?; true }
            () = stopped => true,
        };
        let answered = mem::take(&mut self.output);
        let mut done = 0;
        for (waiting, held) in waiting.iter().zip(held) {
            self.output.extend_from_slice(&answered[done..waiting.at]);
            done = waiting.at;
            let decided = match held.outcome {
                Some(outcome) => outcome.map_err(|e| resp.api.problem(&e)),
                // the daemon can wait no longer for who was to decide
                None => Err(draining()),
            };
            check::answer(waiting.form, &waiting.wanted, &decided, &mut Reply::new(&mut self.output, waiting.three));
        }
        self.output.extend_from_slice(&answered[done..]);
        Ok(gone)
    }

    /// Sends what is answered, all of it with one write.
    async fn send(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let sent = timeout(self.patience.idle, self.stream.write_all(&self.output)).await;
        sent.map_err(|_| late("it does not take its answers"))??;
        self.output.clear();
        // one large batch is no reason to keep its memory for the life of the connection
        self.output.shrink_to(OUTPUT_BYTES);
        Ok(())
    }

    /// Reads once. False when the client has closed, or the daemon is to stop.
    ///
    /// Idle clients stay, as they do with Redis: pools count on it, and some libraries end their program when a connection
    /// ends. The system's keep-alive finds those that are gone. Who owes the rest of a command does not stay.
    async fn read_more(&mut self, stop: Pin<&mut impl Future<Output = ()>>) -> io::Result<bool> {
        if self.stopping {
            return Ok(false);
        }
        make_room(&mut self.input, &mut self.read);
        let patience = match (self.read.is_empty(), self.asked) {
            (false, _) => Some(self.patience.head),
            (true, false) => Some(self.patience.idle),
            (true, true) => None,
        };
        let since = patience.map(|_| *self.owed_since.get_or_insert_with(Instant::now));
        let reading = self.stream.read(&mut self.input[self.read.end..]);
        let reading = async {
            match patience.zip(since) {
                None => reading.await,
                Some((patience, since)) => {
                    timeout_at(since + patience, reading).await.map_err(|_| late("a command does not come"))?
                }
            }
        };
        let n = tokio::select! {
            biased;
            () = stop => {
                self.stopping = true;
                return Ok(false);
            }
            n = reading => n?,
        };
        self.read.end += n;
        Ok(n > 0)
    }

    /// Takes leave: a client that is still sending would meet a reset connection instead of the last answer.
    async fn part(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let discard = async {
            for _ in 0..PARTING_READS_MAX {
                if self.stream.read(&mut self.input).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        // whether the rest came is of no interest
        let _ = timeout(PARTING, discard).await;
        Ok(())
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// Reads on while answers are held, as far as there is room; ready once the client has closed.
async fn read_to_end<S>(stream: &mut S, input: &mut Vec<u8>, read: &mut Range<usize>) -> io::Result<()>
where
    S: AsyncRead + Unpin,
{
    loop {
        make_room(input, read);
        if read.end == input.len() {
            return std::future::pending().await;
        }
        match stream.read(&mut input[read.end..]).await? {
            0 => return Ok(()),
            n => read.end += n,
        }
    }
}

/// Makes room behind what was read, where there may be any: a whole command always has it.
fn make_room(input: &mut Vec<u8>, read: &mut Range<usize>) {
    if read.end == input.len() && input.len() < COMMAND_BYTES_MAX {
        // it was filled, so the client sends much at once
        input.resize(input.len() * 2, 0);
    }
    if read.start == read.end {
        *read = 0..0;
    } else if read.end == input.len() && read.start > 0 {
        input.copy_within(read.clone(), 0);
        *read = 0..read.len();
    }
}
