//! Frames and messages as bytes: bincode under hard limits. It must not know what a peer may say, only how.
//!
//! A frame is one version byte, the bincode of a [`Header`], and the bincode of its updates (a sequence, so that one
//! encoding of a tick's updates serves every peer behind that peer's own header). Everything in a frame is state, so
//! a frame may come twice, late or never.
//!
//! **Later versions.** Nodes of two versions are in one cluster during an upgrade. One that keeps the version byte may add
//! tags to [`Header::extensions`] (up to [`EXTENSIONS_MAX`] in all), flags outside [`FLAGS_KNOWN`], algorithms and
//! accuracies of a [`Describe`], kinds of [`Message`]: whoever does not know them passes over the tag and the flag, leaves
//! the key alone, drops the message, and goes on with all else. Nothing that is there may change its meaning, get longer
//! or go. What can't keep to that takes another version byte, and another ALPN, so that the two refuse each other before a
//! frame is sent, unless the later one still speaks this one too.

pub mod slice;

use bincode::config::{Configuration, Limit};
use bincode::{Decode, Encode};

/// The version this node speaks.
pub const VERSION: u8 = 1;
/// The longest frame accepted, in bytes: above any path's datagram size in use.
pub const FRAME_BYTES_MAX: usize = 9_000;
/// The longest reliable message accepted, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The most updates in a frame.
pub const UPDATES_MAX: usize = 250;
/// The most keys whose description a frame may ask for.
pub const UNKNOWN_MAX: usize = 16;
/// The most extensions in a header.
pub const EXTENSIONS_MAX: usize = 8;

/// Confirm at once, not at the next tick.
pub const FLAG_ASK: u8 = 1;
/// This frame wants to be confirmed.
pub const FLAG_ELICIT: u8 = 2;
/// The sender counts the receiver among those that must confirm.
pub const FLAG_INCLUDED: u8 = 4;
/// The receiver has confirmed all that the sender had to say when they met, or met again.
pub const FLAG_SYNCED: u8 = 8;

/// The sender has not heard the receiver for the stale time: whoever reads this is silent to it.
pub const FLAG_DEAF: u8 = 16;
/// The sender goes on without the receiver's confirmation: its charges leave its window by time, see [`Alone::released`].
pub const FLAG_RELEASING: u8 = 32;

/// The sender has news for the receiver that no frame tells yet, or none that [`Header::needs`] could name.
pub const FLAG_BEHIND: u8 = 64;

/// Every flag of this version; the others are passed over.
pub const FLAGS_KNOWN: u8 =
    FLAG_ASK | FLAG_ELICIT | FLAG_INCLUDED | FLAG_SYNCED | FLAG_DEAF | FLAG_RELEASING | FLAG_BEHIND;

/// Extension: the sender's wall clock in microseconds since the epoch (u64, big endian), for the offset metric alone.
pub const EXTENSION_WALL_CLOCK: u8 = 1;
/// Extension: a digest of all replicas that the sender counts, itself included (u64, big endian), until the receiver has
/// confirmed it.
pub const EXTENSION_MEMBERS: u8 = 2;
/// Extension: the number of the first frame since which the sender tells all it has to say anew (u64, big endian), until
/// the receiver has confirmed one that says so. A demand that an earlier frame told, and none since, is none any more.
pub const EXTENSION_ANEW: u8 = 3;
/// Extension: what the sender had received before it told the last of what has arrived at the receiver, as [`Ack::high`]
/// and [`Ack::bits`] (two u64, big endian): confirmed with all news that the sender had then.
pub const EXTENSION_SETTLED: u8 = 4;

/// Frames older than this many behind the newest are ignored; it is the width of [`Ack::bits`].
pub const WINDOW: u64 = 64;

/// What was received on the other direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    /// The incarnation whose frames are confirmed: a restarted node must not take its forerunner's.
    pub of: u64,
    /// The highest sequence number received.
    pub high: u64,
    /// Bit i: `high - 1 - i` was received too.
    pub bits: u64,
    /// Microseconds between receiving `high` and sending this.
    pub delay_us: u64,
}

impl Ack {
    /// Whether it names frame `seq`.
    #[must_use]
    pub const fn names(&self, seq: u64) -> bool {
        seq == self.high
            || (seq < self.high && self.high - seq <= WINDOW && self.bits >> (self.high - seq - 1) & 1 == 1)
    }

    /// Whether frame `seq`, which was received, had been when this was said: one too old to be named would have been
    /// ignored later.
    #[must_use]
    pub const fn follows(&self, seq: u64) -> bool {
        self.names(seq) || (seq < self.high && self.high - seq > WINDOW)
    }
}

/// The head of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// Which run of the sender speaks.
    pub incarnation: u64,
    /// Numbers the sender's frames to this receiver, from 1.
    pub seq: u64,
    /// What the sender has received of the receiver.
    pub ack: Option<Ack>,
    /// The newest of the sender's ticks that all its live peers have confirmed.
    pub stable: u64,
    /// `FLAG_*`.
    pub flags: u8,
    /// Bit i: frame `seq - 1 - i` told news that the receiver has not confirmed and that this frame does not tell again.
    /// Only with all of it does the receiver know what the sender had spent when it heard what `ack` confirms.
    pub needs: u64,
    /// Keys of earlier updates that the sender can't place without a description.
    pub unknown: Vec<[u8; 16]>,
    /// Tag and content; unknown tags are passed over.
    pub extensions: Vec<(u8, Vec<u8>)>,
}

impl Header {
    /// The content of an extension, where it is there and has that length.
    #[must_use]
    pub fn extension<const N: usize>(&self, tag: u8) -> Option<[u8; N]> {
        let (_, bytes) = self.extensions.iter().find(|(of, _)| *of == tag)?;
        bytes.as_slice().try_into().ok()
    }
}

/// Refunds of a key, where there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refunds {
    /// Cumulative tokens refunded.
    pub refunded: u64,
    /// How many of them are newer than the baseline.
    pub fresh: u64,
}

/// How a node goes on under a key while a peer is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Alone {
    /// Cumulative tokens, since the silence began, that left the sender's window by time and not by confirmation. Whoever
    /// assumes the sender's spending meanwhile has charged them already.
    pub released: u64,
    /// Whether the sender claims no weight by its demand, since the silent had not heard of any.
    pub unclaimed: bool,
}

/// What a peer needs to know of a key that it has never seen.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Describe {
    /// The limit's name.
    pub limit: String,
    /// Whether a caller brought the rule itself.
    pub inline: bool,
    /// 0 token bucket, 1 leaky bucket, 2 fixed window, 3 sliding window.
    pub algorithm: u8,
    /// Tokens a period.
    pub tokens: u64,
    /// Nanoseconds a period.
    pub period: u64,
    /// Capacity in tokens.
    pub capacity: u64,
    /// 0 strict, 1 bounded, 2 gossip.
    pub accuracy: u8,
    /// Bounded: millionths of the capacity that may be overshot.
    pub overshoot_ppm: u32,
}

/// One replica's own state of one key.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Update {
    /// Hash of limit and key.
    pub key: [u8; 16],
    /// Cumulative tokens granted, from an arbitrary start above 0.
    pub granted: u64,
    /// How many of them are newer than the baseline: the last point where this replica's charges were common
    /// knowledge, or the present window's start.
    pub fresh: u64,
    /// Refunds, where there are any since the baseline.
    pub refunds: Option<Refunds>,
    /// Windowed limits: the number of the window that `fresh` belongs to.
    pub window: Option<u64>,
    /// Sliding windows: how many were granted in the window before and are newer than the baseline that it had then.
    pub previous: Option<u64>,
    /// Smoothed offered load, tokens a second. Negative zero: the sender stands aside, it has no part in the key until it
    /// says otherwise; to a reader that does not know that it is no demand.
    pub demand: f32,
    /// While a peer is silent: how the sender goes on without it.
    pub alone: Option<Alone>,
    /// For peers that have not confirmed one yet.
    pub describe: Option<Describe>,
}

/// A whole frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The head.
    pub header: Header,
    /// The news.
    pub updates: Vec<Update>,
}

/// One key of a state transfer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct StateItem {
    /// Hash of limit and key.
    pub key: [u8; 16],
    /// Its rule.
    pub describe: Describe,
    /// What was used of it.
    pub used: Used,
    /// What the reporter knows.
    pub counts: Vec<StateCount>,
}

/// What was used of one key, in terms that mean the same at any time and at any node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Used {
    /// Of a bucket: nanoseconds until it is full again. Exact, which whole tokens would not be.
    Bucket(u64),
    /// Of a window: its number, the tokens used in it, and in the one before.
    Window(u64, u64, u64),
}

/// What a reporter knows of one replica's counters under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StateCount {
    /// Index into the chunk's replicas.
    pub replica: u16,
    /// Cumulative tokens granted.
    pub granted: u64,
    /// Cumulative tokens refunded.
    pub refunded: u64,
    /// How many of the granted may be unknown to everybody but the reporter: only of its own earlier run, whose last
    /// charges it has from its snapshot.
    pub unheard: u64,
}

/// A reliable message.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Message {
    /// "Bring me your table."
    StateRequest,
    /// A part of the table.
    StateChunk {
        /// Whether it is the last one.
        last: bool,
        /// (node, incarnation) of every replica that `counts` may name; the reporter comes first.
        replicas: Vec<(String, u64)>,
        /// So many of them, from the first on, are members of the cluster as the reporter sees it.
        members: u16,
        /// Whether the reporter grants nothing yet: what its peers have charged may still be on its way to it.
        joining: bool,
        /// The keys.
        items: Vec<StateItem>,
    },
}

/// Why bytes are not a frame or a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Empty, or longer than allowed.
    #[error("{0} bytes are not from 1 to {1}")]
    Length(usize, usize),
    /// Another version of the protocol.
    #[error("version {0} is not {VERSION}")]
    Version(u8),
    /// Not what bincode expects.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Bytes are left over.
    #[error("{0} bytes left over")]
    Trailing(usize),
    /// A list is longer than allowed.
    #[error("{1} {0}, at most {2} are allowed")]
    TooMany(&'static str, usize, usize),
    /// A value that no honest peer sends.
    #[error("{0} is out of range")]
    Value(&'static str),
}

/// bincode counts the elements of a list by their size in memory until each is read, so its limit must have room for a
/// full frame's updates beside the bytes: with that of the bytes alone, 60 small updates were too many.
const FRAME_LIMIT: usize = FRAME_BYTES_MAX + UPDATES_MAX * size_of::<Update>();
/// Far above any life's sum, far below where a counter could no longer grow.
const COUNT_MAX: u64 = 1 << 62;

const FRAME: Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<FRAME_LIMIT>> =
    bincode::config::standard().with_limit::<FRAME_LIMIT>();
const MESSAGE: Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<MESSAGE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<MESSAGE_BYTES_MAX>();

/// Appends the bincode of `value`; encoding into memory can't fail for these types.
fn append(value: &impl Encode, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, out, bincode::config::standard())
        .expect("encoding plain values into memory has no way to fail");
}

/// Starts a frame: the version byte and the header.
pub fn encode_header(header: &Header, out: &mut Vec<u8>) {
    out.push(VERSION);
    append(header, out);
}

/// A run of updates being packed: what follows a header.
#[derive(Debug, Default)]
pub struct Packer {
    /// Nothing at all until something is pushed: most frames carry no news. Then their count leads.
    bytes: Vec<u8>,
    count: u8,
}

impl Packer {
    /// Adds `update` unless the run would get longer than `bytes_max`; says whether it did.
    pub fn push(&mut self, update: &Update, bytes_max: usize) -> bool {
        if self.bytes.is_empty() {
            self.bytes.push(0);
        }
        let before = self.bytes.len();
        append(update, &mut self.bytes);
        let fits = self.bytes.len() <= bytes_max || self.count == 0;
        if usize::from(self.count) < UPDATES_MAX && fits {
            self.count += 1;
            return true;
        }
        self.bytes.truncate(before);
        false
    }

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes that follow a header. A count of at most 250 is one byte of bincode's varint.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        match self.bytes.first_mut() {
            Some(count) => *count = self.count,
            None => self.bytes.push(0),
        }
        self.bytes
    }
}

/// A whole frame as bytes; the updates must be at most [`UPDATES_MAX`].
#[must_use]
pub fn encode_frame(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    encode_header(&frame.header, &mut out);
    append(&frame.updates, &mut out);
    out
}

/// Reads a frame.
///
/// # Errors
/// [`DecodeError`]; no input panics or allocates more than a small multiple of [`FRAME_BYTES_MAX`].
pub fn decode_frame(bytes: &[u8]) -> Result<Frame, DecodeError> {
    let body = checked_body(bytes, FRAME_BYTES_MAX)?;
    let malformed = |e: bincode::error::DecodeError| DecodeError::Malformed(e.to_string());
    let (header, used): (Header, usize) = bincode::decode_from_slice(body, FRAME).map_err(malformed)?;
    let (updates, used_too): (Vec<Update>, usize) =
        bincode::decode_from_slice(&body[used..], FRAME).map_err(malformed)?;
    if used + used_too != body.len() {
        return Err(DecodeError::Trailing(body.len() - used - used_too));
    }
    at_most("updates", updates.len(), UPDATES_MAX)?;
    at_most("unknown keys", header.unknown.len(), UNKNOWN_MAX)?;
    at_most("extensions", header.extensions.len(), EXTENSIONS_MAX)?;
    for update in &updates {
        validate(update)?;
    }
    Ok(Frame { header, updates })
}

/// Reads a reliable message.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_message(bytes: &[u8]) -> Result<Message, DecodeError> {
    let body = checked_body(bytes, MESSAGE_BYTES_MAX)?;
    let (message, used) =
        bincode::decode_from_slice(body, MESSAGE).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    if used != body.len() {
        return Err(DecodeError::Trailing(body.len() - used));
    }
    if let Message::StateChunk { items, .. } = &message {
        for item in items {
            validate_state(item)?;
        }
    }
    Ok(message)
}

/// A message as bytes.
#[must_use]
pub fn encode_message(message: &Message) -> Vec<u8> {
    let mut out = vec![VERSION];
    append(message, &mut out);
    out
}

fn checked_body(bytes: &[u8], bytes_max: usize) -> Result<&[u8], DecodeError> {
    match bytes.split_first() {
        Some((version, body)) if bytes.len() <= bytes_max => {
            if *version == VERSION {
                Ok(body)
            } else {
                Err(DecodeError::Version(*version))
            }
        }
        _ => Err(DecodeError::Length(bytes.len(), bytes_max)),
    }
}

const fn at_most(what: &'static str, found: usize, most: usize) -> Result<(), DecodeError> {
    if found > most { Err(DecodeError::TooMany(what, found, most)) } else { Ok(()) }
}

/// What holds of any honest update, whatever its key.
fn validate(update: &Update) -> Result<(), DecodeError> {
    if update.granted == 0 || update.granted > COUNT_MAX || update.fresh > update.granted {
        return Err(DecodeError::Value("granted"));
    }
    if let Some(r) = update.refunds
        && (r.refunded > COUNT_MAX || r.fresh > r.refunded)
    {
        return Err(DecodeError::Value("refunded"));
    }
    if !(update.demand.is_finite() && update.demand >= 0.0) {
        return Err(DecodeError::Value("demand"));
    }
    Ok(())
}

/// What holds of any honest report, whatever its key: one absurd count would make a peer's honest ones look old for good.
fn validate_state(item: &StateItem) -> Result<(), DecodeError> {
    if item.counts.iter().any(|c| c.granted > COUNT_MAX || c.unheard > c.granted) {
        return Err(DecodeError::Value("granted"));
    }
    if item.counts.iter().any(|c| c.refunded > COUNT_MAX) {
        return Err(DecodeError::Value("refunded"));
    }
    validate_used(item.used)
}

fn validate_used(used: Used) -> Result<(), DecodeError> {
    match used {
        Used::Window(_, used, previous) if used.max(previous) > COUNT_MAX => Err(DecodeError::Value("used")),
        Used::Bucket(_) | Used::Window(..) => Ok(()),
    }
}
