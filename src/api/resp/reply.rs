//! Replies, in either version of the protocol. It must not know what they mean.

use std::io::Write as _;

/// Writes replies behind one another.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    /// Whether the client speaks RESP3; without it maps are arrays, and yes and no are numbers.
    three: bool,
}

impl<'a> Reply<'a> {
    /// Writes to the end of `out`.
    pub fn new(out: &'a mut Vec<u8>, three: bool) -> Self {
        Self { out, three }
    }

    fn head(&mut self, kind: u8, number: i64) {
        self.out.push(kind);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn count(&mut self, kind: u8, count: usize) {
        self.head(kind, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A short text of no more than one line, such as `OK`.
    pub fn simple(&mut self, text: &'static str) {
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// An error: a word in capitals that tells programs what kind it is, and text for people.
    pub fn error(&mut self, code: &str, text: impl std::fmt::Display) {
        let start = self.out.len();
        // writing to memory does not fail
        let _ = write!(self.out, "-{code} {text}");
        for byte in &mut self.out[start..] {
            if byte.is_ascii_control() {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// A number.
    pub fn number(&mut self, number: i64) {
        self.head(b':', number);
    }

    /// A number; what is beyond the protocol's is its largest.
    pub fn unsigned(&mut self, number: u64) {
        self.number(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Yes or no.
    pub fn flag(&mut self, flag: bool) {
        match (self.three, flag) {
            (true, true) => self.out.extend_from_slice(b"#t\r\n"),
            (true, false) => self.out.extend_from_slice(b"#f\r\n"),
            (false, flag) => self.number(i64::from(flag)),
        }
    }

    /// Bytes of any kind.
    pub fn bulk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.count(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Nothing.
    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.three { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// An array of `count` replies, which follow.
    pub fn array(&mut self, count: usize) {
        self.count(b'*', count);
    }

    /// A map of `count` pairs, which follow.
    pub fn map(&mut self, count: usize) {
        if self.three {
            self.count(b'%', count);
        } else {
            self.count(b'*', count * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(three: bool, write: impl FnOnce(&mut Reply<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Reply::new(&mut out, three));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_has_its_form_in_either_version() {
        let all = |reply: &mut Reply<'_>| {
            reply.map(1);
            reply.bulk("k");
            reply.flag(true);
            reply.flag(false);
            reply.null();
            reply.unsigned(u64::MAX);
            reply.number(-1);
            reply.simple("OK");
            reply.array(0);
        };
        let same = ":9223372036854775807\r\n:-1\r\n+OK\r\n*0\r\n";
        assert_eq!(written(false, all), format!("*2\r\n$1\r\nk\r\n:1\r\n:0\r\n$-1\r\n{same}"));
        assert_eq!(written(true, all), format!("%1\r\n$1\r\nk\r\n#t\r\n#f\r\n_\r\n{same}"));
    }

    #[test]
    fn an_error_can_not_smuggle_a_reply() {
        assert_eq!(written(false, |r| r.error("ERR", "a\r\n+OK\r\nb\0")), "-ERR a  +OK  b \r\n");
    }
}
