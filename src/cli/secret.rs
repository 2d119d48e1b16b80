//! `spillgate secret`: a new secret for a cluster. It must not know what is derived from it.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::Context as _;
use ring::rand::{SecureRandom, SystemRandom};

use super::Exit;

pub(super) const EXAMPLES: &str = "\
Example:
  (umask 077; spillgate secret > cluster.secret)

Every node of the cluster needs the same file; who has it can join and count.";

/// Leads every secret, so that one that got lost in a log or a repository can be searched for.
const PREFIX: &str = "spillgate-";
/// Random bytes of a secret: as many as the keys that are derived from it.
const SECRET_BYTES: usize = 32;

/// Prints a new secret on a line of its own.
pub(super) fn run(out: &mut impl Write) -> anyhow::Result<Exit> {
    let mut bytes = [0; SECRET_BYTES];
    let no_randomness = |_| anyhow::anyhow!("the system gives no random bytes");
    SystemRandom::new().fill(&mut bytes).map_err(no_randomness)?;
    let mut secret = PREFIX.to_owned();
    for byte in bytes {
        write!(secret, "{byte:02x}")?;
    }
    writeln!(out, "{secret}").context("cannot print the secret")?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed() -> String {
        let mut out = Vec::new();
        assert_eq!(run(&mut out).unwrap(), Exit::Ok);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_is_one_line_of_32_random_bytes() {
        let secret = printed();
        let hex = secret.strip_prefix(PREFIX).and_then(|s| s.strip_suffix('\n')).unwrap();
        assert_eq!(hex.len(), 2 * SECRET_BYTES);
        assert!(hex.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(secret, printed());
    }
}
