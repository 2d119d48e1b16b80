//! The cluster's shared secret and the keys derived of it. It knows nothing of certificates or connections, and its
//! text never leaves this file.

use std::fmt::{self, Write};
use std::path::Path;
use std::sync::Arc;

use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};

use super::error::ClusterError;
use crate::private_file::complain_if_public;

/// Fewer bytes of text than this are refused: no rule tells a good secret, but this tells a hopeless one.
const SECRET_BYTES_MIN: usize = 16;
/// A file larger than this is not a secret.
const FILE_BYTES_MAX: usize = 4096;
const PREFIX: &str = "spillgate-";
/// Domain separation, so that the same text used elsewhere gives other keys.
const SALT: &[u8] = b"spillgate cluster secret 1";

/// One shared secret, or two while it is being rotated: the first signs, both are accepted.
///
/// To rotate without downtime, roll out three times: old, new; then new, old; then new alone.
#[derive(Clone)]
pub struct ClusterSecret {
    signing: SecretKey,
    also_accepted: Option<SecretKey>,
}

/// One secret after extraction (RFC 5869, 2.2). Its text is no longer needed.
#[derive(Clone)]
pub(super) struct SecretKey(Arc<hkdf::Prk>);

impl ClusterSecret {
    /// A new secret as text: 32 random bytes in hexadecimal behind a prefix that scanners for leaks can look for.
    ///
    /// # Errors
    /// The system gave no randomness.
    pub fn generate() -> Result<String, ClusterError> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| ClusterError::SecretInvalid {
            origin: "to be made".into(),
            reason: "needs randomness and the system gave none".into(),
        })?;
        Ok(format!("{PREFIX}{}", hex(&bytes)))
    }

    /// Reads a file of one secret, or of two, a line each. A file that everybody may read is used, but complained of.
    ///
    /// # Errors
    /// The file is unreadable, empty, too short (under 16 bytes a line), too large, or has more than two lines.
    pub fn from_file(path: &Path) -> Result<Self, ClusterError> {
        let bytes =
            std::fs::read(path).map_err(|source| ClusterError::SecretUnreadable { path: path.into(), source })?;
        let origin = path.display().to_string();
        let text = String::from_utf8(bytes).map_err(|_| invalid(&origin, "is not text"))?;
        complain_if_public(path, "the cluster secret");
        Self::from_text(&text, &origin)
    }

    /// As [`ClusterSecret::from_file`], of text at hand; `origin` names it in errors.
    ///
    /// # Errors
    /// The text is empty, too short, too large, or has more than two lines.
    pub fn from_text(text: &str, origin: &str) -> Result<Self, ClusterError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(invalid(origin, format!("has {} bytes, {FILE_BYTES_MAX} are allowed", text.len())));
        }
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if let Some(short) = lines.iter().find(|line| line.len() < SECRET_BYTES_MIN) {
            let reason = format!("has a line of {} bytes, {SECRET_BYTES_MIN} are the least", short.len());
            return Err(invalid(origin, reason));
        }
        match lines[..] {
            [] => Err(invalid(origin, "is empty")),
            [signing] => Ok(Self { signing: SecretKey::new(signing), also_accepted: None }),
            [signing, also] => Ok(Self { signing: SecretKey::new(signing), also_accepted: Some(SecretKey::new(also)) }),
            _ => Err(invalid(origin, format!("has {} lines, at most two are allowed", lines.len()))),
        }
    }

    /// A key for the purpose named by `label`, the same at every node whose first secret is the same.
    ///
    /// While a secret is rotated, nodes that sign with the old one derive other keys than those that sign with the new.
    #[must_use]
    pub fn derive(&self, label: &str) -> [u8; 32] {
        self.signing.derive(label, "")
    }

    pub(super) fn signing(&self) -> &SecretKey {
        &self.signing
    }

    pub(super) fn accepted(&self) -> impl Iterator<Item = &SecretKey> {
        std::iter::once(&self.signing).chain(&self.also_accepted)
    }
}

impl SecretKey {
    fn new(text: &str) -> Self {
        Self(Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(text.as_bytes())))
    }

    /// A key for one purpose and one context. Labels are constants without a NUL, so the pair is unambiguous.
    pub(super) fn derive(&self, label: &str, context: &str) -> [u8; 32] {
        let info = [label.as_bytes(), b"\0", context.as_bytes()];
        let mut key = [0; 32];
        self.0
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("32 bytes are the output length of HKDF-SHA256");
        key
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(hidden)")
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

fn invalid(origin: &str, reason: impl Into<String>) -> ClusterError {
    ClusterError::SecretInvalid { origin: origin.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_is_accepted_and_each_is_another() {
        let (one, two) = (ClusterSecret::generate().unwrap(), ClusterSecret::generate().unwrap());
        assert_ne!(one, two);
        assert!(one.starts_with(PREFIX) && one.len() == PREFIX.len() + 64, "{one}");
        let (one, two) = (ClusterSecret::from_text(&one, "t").unwrap(), ClusterSecret::from_text(&two, "t").unwrap());
        assert_ne!(one.derive("key-hash"), two.derive("key-hash"));
        assert_ne!(one.derive("key-hash"), one.derive("stateless-reset"));
        assert_eq!(one.derive("key-hash"), one.clone().derive("key-hash"));
    }

    #[test]
    fn white_space_around_the_lines_is_no_part_of_the_secret() {
        let bare = ClusterSecret::from_text("0123456789abcdef", "t").unwrap();
        let padded = ClusterSecret::from_text("\n  0123456789abcdef \r\n\n", "t").unwrap();
        assert_eq!(bare.derive("x"), padded.derive("x"));
        assert_eq!(bare.accepted().count(), 1);
    }

    #[test]
    fn of_two_lines_the_first_signs_and_both_are_accepted() {
        let old = ClusterSecret::from_text("old-old-old-old-old", "t").unwrap();
        let both = ClusterSecret::from_text("new-new-new-new-new\nold-old-old-old-old\n", "t").unwrap();
        assert_ne!(both.derive("x"), old.derive("x"));
        assert!(both.accepted().any(|key| key.derive("x", "") == old.derive("x")));
    }

    #[test]
    fn unusable_files_say_what_is_wrong_and_never_the_text() {
        let directory = tempfile::tempdir().unwrap();
        let missing = ClusterSecret::from_file(&directory.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none") && missing.contains("cannot read"), "{missing}");
        for (text, expected) in [
            ("", "is empty"),
            (" \n\t\n", "is empty"),
            ("fifteen-bytes-x", "15 bytes"),
            ("0123456789abcdef\nshort", "5 bytes"),
            ("0123456789abcdef\n0123456789abcdef\n0123456789abcdef", "3 lines"),
            (&"x".repeat(5000), "5000 bytes"),
        ] {
            let path = directory.path().join("secret");
            std::fs::write(&path, text).unwrap();
            let error = ClusterSecret::from_file(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("secret"), "{text:?}: {error}");
            assert!(text.trim().is_empty() || !error.contains(text.trim()), "the text leaked: {error}");
        }
        std::fs::write(directory.path().join("bytes"), [0xff; 32]).unwrap();
        let error = ClusterSecret::from_file(&directory.path().join("bytes")).unwrap_err().to_string();
        assert!(error.contains("is not text"), "{error}");
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = ClusterSecret::from_text("0123456789abcdef", "t").unwrap();
        assert_eq!(format!("{secret:?}"), "ClusterSecret(hidden)");
    }
}
