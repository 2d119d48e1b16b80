//! The bearer token: where it is read from and how it is compared. It must not know what it protects.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::hmac;
use ring::rand::SystemRandom;

use super::problem::{Kind, Problem};
use crate::private_file::complain_if_public;

/// The longest token, in bytes: it has to fit into a header.
const TOKEN_BYTES_MAX: usize = 4096;

/// What a caller must present as `Authorization: Bearer ...`.
///
/// Kept only as an HMAC under a random key: comparing takes the same time wherever the first difference is, and the
/// token's text stays out of memory dumps and debug output.
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

/// Why a token can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read.
    #[error("cannot read token file {path:?}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text could not be sent in a header.
    #[error(
        "{0}: the token must be 1 to {TOKEN_BYTES_MAX} visible ASCII characters on one line; make one with `openssl rand -hex 32`"
    )]
    Text(String),
    /// The system gave no randomness.
    #[error("the system gives no random bytes to keep the token with")]
    Random,
}

impl Token {
    /// The token with that text.
    ///
    /// # Errors
    /// [`TokenError::Text`] when it is empty, too long or not visible ASCII.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() || text.len() > TOKEN_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Text(format!("a token of {} bytes", text.len())));
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| TokenError::Random)?;
        let tag = hmac::sign(&key, text.as_bytes());
        Ok(Self { key, tag })
    }

    /// The token in a file; white space around it does not count. A file that everybody may read is complained of.
    ///
    /// # Errors
    /// [`TokenError`] when it can't be read or is none.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        complain_if_public(path, "the API token");
        Self::new(&read_text(path)?)
    }

    /// Whether the request carries this token. The scheme's case does not matter, the token's does.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        self.is_bearer(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes))
    }

    /// Whether that header's value presents this token.
    #[must_use]
    pub fn is_bearer(&self, value: Option<&[u8]>) -> bool {
        let Some(bytes) = value else { return false };
        let Some((scheme, text)) = bytes.split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && self.is(text.trim_ascii())
    }

    /// Whether `text` is this token.
    #[must_use]
    pub fn is(&self, text: &[u8]) -> bool {
        hmac::verify(&self.key, text, self.tag.as_ref()).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// The text of a token file, as a client sends it.
///
/// # Errors
/// [`TokenError`] when it can't be read or is none.
pub fn read_text(path: &Path) -> Result<String, TokenError> {
    let text = fs::read_to_string(path).map_err(|source| TokenError::File { path: path.to_owned(), source })?;
    let text = text.trim();
    Token::new(text).map_err(|e| match e {
        TokenError::Text(_) => TokenError::Text(format!("token file {path:?}")),
        other => other,
    })?;
    Ok(text.to_owned())
}

/// Lets a request through that carries the token, and answers 401 to any other.
pub async fn guard(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    if token.is_in(request.headers()) {
        return next.run(request).await;
    }
    let fault = if request.headers().contains_key(AUTHORIZATION) { "is wrong" } else { "is missing" };
    let detail =
        format!("the bearer token {fault}; send `Authorization: Bearer TOKEN` with the text of the token file");
    Problem::new(Kind::Unauthorized, detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_the_very_token_is_accepted() {
        let token = Token::new("s3cret").unwrap();
        assert!(token.is_in(&headers("Bearer s3cret")));
        assert!(token.is_in(&headers("bearer  s3cret")));
        for wrong in ["Bearer s3cre", "Bearer s3crett", "Bearer S3CRET", "Bearer ", "Bearer", "s3cret", "Basic s3cret"]
        {
            assert!(!token.is_in(&headers(wrong)), "{wrong}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn a_file_is_trimmed_and_a_bad_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "s3cret\n").unwrap();
        assert!(Token::read(&path).unwrap().is_in(&headers("Bearer s3cret")));
        for bad in ["", " \n", "two words", "tök"] {
            fs::write(&path, bad).unwrap();
            let error = Token::read(&path).unwrap_err().to_string();
            assert!(error.contains("token\"") && error.contains("openssl"), "{error}");
        }
        let missing = Token::read(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(missing.contains("absent"), "{missing}");
    }
}
