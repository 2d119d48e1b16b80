//! `[redis]`: the central store and when it decides. It must not know how it is asked.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionInfo, IntoConnectionInfo as _};
use spillgate_core::time::Nanos;

use super::NamedFile;
use super::error::Place;
use super::reader::Placed;
use super::section::Section;

/// How long an answer may wait for Redis unless told otherwise.
pub const REDIS_TIMEOUT_DEFAULT: Nanos = Nanos::from_millis(20);
/// How many peers must be heard of unless told otherwise, or else Redis decides.
pub const MIN_PEERS_DEFAULT: u64 = 1;

/// A central store that may decide in this node's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSection {
    /// Where it is.
    pub url: RedisUrl,
    /// When it decides.
    pub mode: RedisMode,
    /// How long an answer may wait for it, 1 ms to 10 s.
    pub timeout: Nanos,
    /// In [`RedisMode::Fallback`]: with fewer live peers than this the node counts as cut off, at least 1.
    pub min_peers: u64,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// PEM of the authorities that sign its certificate, for `rediss://`.
    pub ca_file: Option<PathBuf>,
}

/// When the central store decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// When this node is cut off from the cluster.
    Fallback,
    /// Every check.
    Always,
}

impl RedisMode {
    /// The name in configuration and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fallback => "fallback",
            Self::Always => "always",
        }
    }
}

/// One URL or several, of nodes of one Redis Cluster; each can be used, and none shows its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(Vec<String>);

/// Why a URL was refused, without the URL: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be like \"redis://10.0.0.1:6379\", \"rediss://user:password@redis.example:6380/0\" for TLS, or \
     \"redis+unix:///run/redis.sock\"; several nodes of one Redis Cluster stand in one text with commas between them"
)]
pub struct RedisUrlError;

impl RedisUrl {
    /// Of `text` as it stands in the file.
    ///
    /// # Errors
    /// One of its parts is no URL of Redis.
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let parts: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
        match parts.iter().all(|part| info(part).is_some()) {
            true => Ok(Self(parts)),
            false => Err(RedisUrlError),
        }
    }

    /// The nodes to connect to, one at least.
    #[must_use]
    pub fn nodes(&self) -> Vec<ConnectionInfo> {
        self.0.iter().filter_map(|part| info(part)).collect()
    }
}

fn info(text: &str) -> Option<ConnectionInfo> {
    text.into_connection_info().ok()
}

impl fmt::Display for RedisUrl {
    /// The addresses alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.nodes().iter().map(|node| node.addr().to_string()).collect();
        f.write_str(&addresses.join(","))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

/// Reads `[redis]`: `None` where it is absent or its URL is at fault, which is reported then.
pub(super) fn read_redis(section: &Section<'_>, files: &mut Vec<NamedFile>) -> Option<RedisSection> {
    if !section.is_present() {
        return None;
    }
    let mode = match section.choice("mode").map(|m| m.value) {
        Some("always") => RedisMode::Always,
        _ => RedisMode::Fallback,
    };
    let timeout = section.duration("timeout").map_or(REDIS_TIMEOUT_DEFAULT, |t| t.value);
    let min_peers = section.count("min_peers").map_or(MIN_PEERS_DEFAULT, |n| n.value);
    let password_file = named(section, "password_file", files);
    let ca_file = named(section, "ca_file", files);
    let Placed { value: text, place } = section.text("url")?;
    match RedisUrl::parse(text) {
        Ok(url) => Some(RedisSection { url, mode, timeout, min_peers, password_file, ca_file }),
        Err(error) => {
            report(section, place, &error);
            None
        }
    }
}

fn named(section: &Section<'_>, key: &str, files: &mut Vec<NamedFile>) -> Option<PathBuf> {
    let path = section.path(key)?;
    files.push(NamedFile::of(section, key, &path));
    Some(path.value)
}

fn report(section: &Section<'_>, place: Place, error: &RedisUrlError) {
    section.report(place, &format!("url {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_where_and_never_the_password() {
        let url = RedisUrl::parse("redis://:hunter2@10.0.0.1:7000, rediss://user:hunter2@b:7001/3").unwrap();
        assert_eq!(url.to_string(), "10.0.0.1:7000,b:7001");
        assert_eq!(format!("{url:?}"), "RedisUrl(10.0.0.1:7000,b:7001)");
        assert_eq!(url.nodes()[1].redis_settings().password(), Some("hunter2"));
        for wrong in ["", "10.0.0.1:6379", "http://a:1", "redis://a:1,", "redis://:hunter2@"] {
            let error = RedisUrl::parse(wrong).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
