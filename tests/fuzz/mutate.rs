//! Mutations of bytes that know nothing of a format. It must not know what is done with them.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Numbers at which arithmetic breaks, as they stand in bytes and in text.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX];
/// Bytes that mean something to a text format, or to a variable-length integer.
const MARKS: &[&[u8]] = &[
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"-",
    b".",
    b"e99",
    b"null",
    b"true",
    b"\\u0000",
    b"\n",
    b"#",
    b"=",
    b"'",
    b"\xfb",
    b"\xfc",
    b"\xfd",
    b"\xfe",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xed\xa0\x80",
    b"\0",
];
const LENGTH_MAX: usize = 9_000;

pub struct Mutator(StdRng);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// One of the pool, changed in one to six places.
    pub fn mutate(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = pool.choose(&mut self.0).cloned().unwrap_or_default();
        for _ in 0..self.0.random_range(1..=6) {
            self.change(&mut bytes, pool);
        }
        bytes.truncate(LENGTH_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let rng = &mut self.0;
        let at = rng.random_range(0..=bytes.len());
        let to = rng.random_range(at..=bytes.len().min(at + 40));
        match rng.random_range(0..9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add_signed(rng.random_range(-3..=3)),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let number = *NUMBERS.choose(rng).unwrap();
                let text = number.to_string().into_bytes();
                let raw = number.to_le_bytes()[..1 << rng.random_range(0..4)].to_vec();
                bytes.splice(at..to.min(at + 8), if rng.random() { text } else { raw });
            }
            6 => {
                bytes.splice(at..at, MARKS.choose(rng).unwrap().iter().copied());
            }
            7 => {
                // the head of this one, the tail of another
                let other = pool.choose(rng).unwrap();
                let from = rng.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let other = pool.choose(rng).unwrap();
                let from = rng.random_range(0..=other.len());
                let part = &other[from..other.len().min(from + 60)];
                bytes.splice(at..to, part.iter().copied());
            }
        }
    }
}
