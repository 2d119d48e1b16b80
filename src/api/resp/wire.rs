//! What a client's bytes say: commands, each a list of arguments. It must not know any command.
//!
//! A request is an array of bulk strings and nothing else (or one line of words, for people at a terminal), so this is
//! the whole grammar: nothing nests, nothing is copied, and every length is judged before it is waited for. General
//! parsers of the protocol take replies too, which nest: `redis-protocol` 6 overflowed its stack on 200,000 nested
//! arrays and refused the lines.

use std::ops::Range;

/// The most arguments of one command, its name among them.
pub const ARGS_MAX: usize = 256;
/// The most bytes of one command as it is sent: a key of 1024 bytes in any number of words, many times over.
pub const COMMAND_BYTES_MAX: usize = 16 << 10;
/// The most bytes of a length with its sign: more digits than any length that is allowed.
const LENGTH_BYTES_MAX: usize = 20;

/// What is no command: the connection can't go on, since nobody knows where the next one begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A length that is no number, or one that is not allowed.
    #[error("Protocol error: invalid multibulk length, a command has at most {ARGS_MAX} arguments")]
    Arguments,
    /// The same for one argument.
    #[error("Protocol error: invalid bulk length, a command has at most {COMMAND_BYTES_MAX} bytes")]
    Argument,
    /// An argument that is no bulk string.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    Kind(u8),
    /// An argument that is longer than it was said to be.
    #[error("Protocol error: no line end after an argument")]
    End,
    /// All of it together is too long.
    #[error("Protocol error: too big a command, it has at most {COMMAND_BYTES_MAX} bytes")]
    TooLong,
    /// A browser or a proxy that was pointed here.
    #[error("Protocol error: this is HTTP, and here the Redis protocol is spoken")]
    Http,
}

/// The arguments of one command, as places in the bytes they were read from.
#[derive(Debug, Default)]
pub struct Args(Vec<Range<usize>>);

impl Args {
    /// How many there are, the command's name included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The argument at `index`, of the `bytes` that were read; empty where there is none.
    pub fn of<'a>(&self, bytes: &'a [u8], index: usize) -> &'a [u8] {
        self.0.get(index).and_then(|range| bytes.get(range.clone())).unwrap_or_default()
    }

    /// Reads the command at the start of `bytes`: how many bytes it is long, or `None` where more must come. A blank
    /// line or an empty array is a command of no arguments.
    ///
    /// # Errors
    /// [`ProtocolError`].
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        self.0.clear();
        let read = match bytes.first() {
            None => return Ok(None),
            Some(b'*') => self.read_array(bytes)?,
            Some(_) => self.read_line(bytes)?,
        };
        match read {
            Some(length) if length <= COMMAND_BYTES_MAX => Ok(read),
            None if bytes.len() < COMMAND_BYTES_MAX => Ok(None),
            _ => Err(ProtocolError::TooLong),
        }
    }

    fn read_array(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some((count, mut at)) = length(bytes, 1).ok_or(ProtocolError::Arguments)? else { return Ok(None) };
        // a null array is nothing, as an empty one is
        let count = if count == -1 { 0 } else { usize::try_from(count).map_err(|_| ProtocolError::Arguments)? };
        if count > ARGS_MAX {
            return Err(ProtocolError::Arguments);
        }
        for _ in 0..count {
            match bytes.get(at) {
                None => return Ok(None),
                Some(b'$') => {}
                Some(other) => return Err(ProtocolError::Kind(*other)),
            }
            let Some((length, start)) = length(bytes, at + 1).ok_or(ProtocolError::Argument)? else { return Ok(None) };
            let length = usize::try_from(length).map_err(|_| ProtocolError::Argument)?;
            if length > COMMAND_BYTES_MAX {
                return Err(ProtocolError::Argument);
            }
            let end = start + length;
            match bytes.get(end..) {
                None | Some([] | [b'\r']) => return Ok(None),
                Some([b'\r', b'\n', ..]) => {}
                Some(_) => return Err(ProtocolError::End),
            }
            self.0.push(start..end);
            at = end + 2;
        }
        Ok(Some(at))
    }

    fn read_line(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(end) = bytes.iter().take(COMMAND_BYTES_MAX).position(|b| *b == b'\n') else { return Ok(None) };
        let mut start = None;
        for (at, byte) in bytes[..=end].iter().enumerate() {
            match (byte.is_ascii_whitespace(), start) {
                (false, None) => start = Some(at),
                (true, Some(from)) => {
                    if self.0.len() == ARGS_MAX {
                        return Err(ProtocolError::Arguments);
                    }
                    self.0.push(from..at);
                    start = None;
                }
                _ => {}
            }
        }
        // a page in a browser can make it send a request whose body would be read as commands
        let first = self.of(bytes, 0);
        if first.eq_ignore_ascii_case(b"post") || first.eq_ignore_ascii_case(b"host:") {
            return Err(ProtocolError::Http);
        }
        Ok(Some(end + 1))
    }
}

/// The number at `at` and the place behind its line end; `Some(None)`: more must come; `None`: it is none.
fn length(bytes: &[u8], at: usize) -> Option<Option<(i64, usize)>> {
    let (mut value, mut digits, mut negative) = (0_i64, 0, false);
    for (i, byte) in bytes.iter().enumerate().skip(at).take(LENGTH_BYTES_MAX) {
        match byte {
            b'0'..=b'9' => {
                value = value.checked_mul(10)?.checked_add(i64::from(byte - b'0'))?;
                digits += 1;
            }
            b'-' if i == at => negative = true,
            b'\r' if digits > 0 => {
                return match bytes.get(i + 1) {
                    None => Some(None),
                    Some(b'\n') => Some(Some((if negative { -value } else { value }, i + 2))),
                    Some(_) => None,
                };
            }
            _ => return None,
        }
    }
    (bytes.len() < at + LENGTH_BYTES_MAX).then_some(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All commands in `bytes`, and what stops it.
    fn all(bytes: &[u8]) -> (Vec<Vec<Vec<u8>>>, Result<usize, ProtocolError>) {
        let (mut args, mut commands, mut at) = (Args::default(), Vec::new(), 0);
        loop {
            match args.read(&bytes[at..]) {
                Ok(Some(length)) => {
                    commands.push((0..args.len()).map(|i| args.of(&bytes[at..], i).to_vec()).collect());
                    at += length;
                }
                Ok(None) => return (commands, Ok(at)),
                Err(error) => return (commands, Err(error)),
            }
        }
    }

    fn error(bytes: &[u8]) -> ProtocolError {
        all(bytes).1.unwrap_err()
    }

    fn written(command: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for arg in command {
            bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            bytes.extend_from_slice(arg);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    #[test]
    fn lines_are_commands_of_words() {
        let bytes = b"PING\r\nECHO  hello \n\r\n  \nQUI";
        let (commands, end) = all(bytes);
        assert_eq!(commands, [vec![b"PING".to_vec()], vec![b"ECHO".to_vec(), b"hello".to_vec()], vec![], vec![]]);
        assert_eq!(end, Ok(bytes.len() - 3));
    }

    #[test]
    fn nothing_is_waited_for_that_is_not_allowed() {
        for bytes in [&b"*257\r\n"[..], b"*-2\r\n", b"*a\r\n", b"*99999999999999999999\r\n", b"*1\rx", b"*\r\n"] {
            assert_eq!(error(bytes), ProtocolError::Arguments, "{}", bytes.escape_ascii());
        }
        for bytes in [&b"*1\r\n$16385\r\n"[..], b"*1\r\n$-1\r\n", b"*1\r\n$512m\r\n", b"*1\r\n$00000000000000000000"] {
            assert_eq!(error(bytes), ProtocolError::Argument, "{}", bytes.escape_ascii());
        }
        assert_eq!(error(&b"*1\r\n".repeat(1000)), ProtocolError::Kind(b'*'));
        assert_eq!(error(b"*1\r\n$4\r\nPING!!"), ProtocolError::End);
        assert_eq!(error(&[b'a'; COMMAND_BYTES_MAX]), ProtocolError::TooLong);
        assert_eq!(error(&[b"a ".repeat(257), b"\n".to_vec()].concat()), ProtocolError::Arguments);
        let long = written(&vec![vec![b'x'; 6000]; 3]);
        assert_eq!(error(&long), ProtocolError::TooLong);
        assert_eq!(error(&long[..COMMAND_BYTES_MAX]), ProtocolError::TooLong);
        assert_eq!(error(b"POST / HTTP/1.1\r\n"), ProtocolError::Http);
    }

    #[test]
    fn null_and_empty_arrays_are_nothing() {
        assert_eq!(all(b"*0\r\n*-1\r\n*1\r\n$0\r\n\r\n"), (vec![vec![], vec![], vec![vec![]]], Ok(19)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_wherever_it_is_split(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6), 1..6),
        ) {
            let bytes: Vec<u8> = commands.iter().flat_map(|c| written(c)).collect();
            prop_assert_eq!(all(&bytes), (commands.clone(), Ok(bytes.len())));
            for split in 0..bytes.len() {
                let (first, end) = all(&bytes[..split]);
                let at = end.expect("a part of what is good is no error");
                let (rest, end) = all(&bytes[at..]);
                prop_assert_eq!([first, rest].concat(), commands.clone());
                prop_assert_eq!(end, Ok(bytes.len() - at));
            }
        }

        #[test]
        fn any_bytes_are_commands_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (commands, end) = all(&bytes);
            prop_assert!(commands.len() <= bytes.len());
            prop_assert!(end.is_err() || end.unwrap() <= bytes.len());
        }

        #[test]
        fn damaged_commands_are_commands_or_an_error(
            at in any::<prop::sample::Index>(),
            byte in prop::sample::select(b"*$-0123456789\r\n x\0\xff".to_vec()),
            cut in any::<bool>(),
        ) {
            let mut bytes = written(&[b"CL.THROTTLE".to_vec(), b"key".to_vec(), b"15".to_vec()]).repeat(3);
            let at = at.index(bytes.len());
            if cut { bytes.remove(at); } else { bytes[at] = byte; }
            let (commands, end) = all(&bytes);
            // an error is one at once, or all of it was read
            prop_assert!(commands.len() <= bytes.len() && (end.is_err() || end.unwrap() <= bytes.len()));
        }
    }
}
