//! Why two nodes, or a node and a stranger, do not come together. It must not know what follows from it.

use std::time::Duration;

use quinn::ConnectionError;

use super::quic::code;
use super::tls::ALPN_SHOWN;

/// From the first packet to the other end's hello.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(3);

/// RFC 7301, 3.2: the two ends have no protocol in common.
const NO_APPLICATION_PROTOCOL: u64 = 120;

/// Why a connection did not come to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Dial(#[from] quinn::ConnectError),
    #[error("{0}")]
    Connection(ConnectionError),
    #[error("it speaks no version of the protocol between nodes that this one does ({ALPN_SHOWN})")]
    Version,
    #[error("no hello: {0}")]
    Stream(String),
    #[error("{0}")]
    Hello(String),
    #[error("this node itself")]
    Myself,
    #[error("it uses this node's id")]
    Twin,
    #[error("too many connections")]
    Full,
    #[error("no answer in {HANDSHAKE:?}")]
    Late,
}

impl From<ConnectionError> for Refusal {
    fn from(error: ConnectionError) -> Self {
        match error {
            // this node's other end was faster to see whom it met
            ConnectionError::ApplicationClosed(close) if close.error_code == code::SELF => Self::Myself,
            error if tls_alert(&error) == Some(NO_APPLICATION_PROTOCOL) => Self::Version,
            error => Self::Connection(error),
        }
    }
}

impl Refusal {
    /// Whether it comes of what the other end is, and not of the way to it.
    pub(super) fn is_of_a_stranger(&self) -> bool {
        match self {
            Self::Connection(error) => tls_alert(error).is_some(),
            Self::Version | Self::Hello(_) | Self::Twin | Self::Full => true,
            Self::Dial(_) | Self::Stream(_) | Self::Myself | Self::Late => false,
        }
    }
}

/// The alert of TLS that ended a connection. RFC 9001, 4.8: they are the transport errors from 0x100 to 0x1ff.
fn tls_alert(error: &ConnectionError) -> Option<u64> {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => return None,
    };
    (0x100..0x200).contains(&code).then(|| code - 0x100)
}
