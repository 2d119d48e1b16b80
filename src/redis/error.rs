//! What goes wrong with Redis, in words that say what to do. It must not know who asked.

use std::time::Duration;

use redis::{ErrorKind, ServerErrorKind};

/// Why Redis could not decide; the node then decides by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// No reply in time.
    #[error("no reply within {0:?}; is it paused, overloaded, or farther away than [redis] timeout allows?")]
    Timeout(Duration),
    /// Not connected (any more).
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The password, the user or what the user may do.
    #[error("does not let this node in: {0}; see [redis] url and password_file")]
    NotLetIn(String),
    /// It has no room for another key.
    #[error("is out of memory: {0}; raise its maxmemory, or set maxmemory-policy volatile-ttl")]
    OutOfMemory(String),
    /// Another program uses our keys.
    #[error("a key that begins with spillgate: holds a value that is not spillgate's: {0}; delete it")]
    Foreign(String),
    /// It is in the midst of a failover, a restart or a move of slots.
    #[error("is not ready to decide: {0}")]
    NotReady(String),
    /// The reply is none of our scripts'.
    #[error("its reply is not understood; is it Redis 5 or later?")]
    Reply,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<redis::RedisError> for RedisError {
    fn from(error: redis::RedisError) -> Self {
        let text = error.to_string();
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm), _)
            | (_, Some("NOAUTH" | "WRONGPASS")) => Self::NotLetIn(text),
            (_, Some("OOM")) => Self::OutOfMemory(text),
            (_, Some("WRONGTYPE" | "FOREIGN")) => Self::Foreign(text),
            // a script hands on the errors of what it calls under its own name
            _ if text.contains("OOM ") => Self::OutOfMemory(text),
            _ if text.contains("WRONGTYPE") => Self::Foreign(text),
            (
                ErrorKind::Server(
                    ServerErrorKind::BusyLoading
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::Moved
                    | ServerErrorKind::Ask,
                )
                | ErrorKind::ClusterConnectionNotFound,
                _,
            ) => Self::NotReady(text),
            (ErrorKind::Io, _) => Self::Unreachable(text),
            _ => Self::Other(text),
        }
    }
}
