//! A slice of a snapshot as bytes: some keys, in terms that outlive the process. It must not know files.

use bincode::config::{Configuration, Limit};
use bincode::{Decode, Encode};

use super::{COUNT_MAX, DecodeError, Describe, Used, at_most, validate_used};

/// The longest slice accepted, in bytes: [`KEYS_MAX`] keys of which a thousand replicas have counted something.
pub const SLICE_BYTES_MAX: usize = 16 << 20;
/// The most keys in a slice, so that its shard is locked only for a moment.
pub const KEYS_MAX: usize = 512;

/// Some keys of a table.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Slice {
    /// Nanoseconds since the Unix epoch when it was taken.
    pub wall: u64,
    /// (node, incarnation) of every replica that counts may name; the first is the one whose table this is.
    pub replicas: Vec<(String, u64)>,
    /// Every rule that a key of it meets.
    pub rules: Vec<Describe>,
    /// The keys.
    pub keys: Vec<SavedKey>,
}

/// One key of a slice.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct SavedKey {
    /// Hash of limit and key.
    pub key: [u8; 16],
    /// Which of the slice's rules it meets.
    pub rule: u16,
    /// What was used.
    pub used: Used,
    /// Index into the slice's replicas, cumulative granted, refunded.
    pub counts: Vec<(u16, u64, u64)>,
    /// Tokens that the table's own replica granted and that not all of its peers had confirmed hearing of.
    pub unheard: u64,
}

const SLICE: Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<SLICE_BYTES_MAX>> =
    bincode::config::standard().with_limit::<SLICE_BYTES_MAX>();

/// A slice as bytes.
#[must_use]
pub fn encode_slice(slice: &Slice) -> Vec<u8> {
    let mut out = Vec::new();
    super::append(slice, &mut out);
    out
}

/// Reads a slice.
///
/// # Errors
/// [`DecodeError`]; no input panics or allocates more than a small multiple of [`SLICE_BYTES_MAX`].
pub fn decode_slice(bytes: &[u8]) -> Result<Slice, DecodeError> {
    if bytes.is_empty() || bytes.len() > SLICE_BYTES_MAX {
        return Err(DecodeError::Length(bytes.len(), SLICE_BYTES_MAX));
    }
    let (slice, used): (Slice, usize) =
        bincode::decode_from_slice(bytes, SLICE).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    if used != bytes.len() {
        return Err(DecodeError::Trailing(bytes.len() - used));
    }
    at_most("keys", slice.keys.len(), KEYS_MAX)?;
    for key in &slice.keys {
        if key.counts.iter().any(|(_, granted, refunded)| *granted.max(refunded) > COUNT_MAX) {
            return Err(DecodeError::Value("counts"));
        }
        if key.unheard > COUNT_MAX {
            return Err(DecodeError::Value("unheard"));
        }
        validate_used(key.used)?;
    }
    Ok(slice)
}
