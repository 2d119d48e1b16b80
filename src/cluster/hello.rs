//! The first thing each end says on a connection: which replica it is and where it can be reached. It knows the text,
//! not the connection; whether the name is true is the certificate's business.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use spillgate_core::view::ReplicaId;

/// Room for two names of 255 bytes, escaped, and fields of later versions.
pub(super) const HELLO_BYTES_MAX: usize = 4096;

/// Fields a later version adds are ignored by this one; a change of meaning needs another ALPN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) cluster: String,
    pub(super) node: Arc<str>,
    pub(super) incarnation: u64,
    pub(super) address: SocketAddr,
    /// How many peers it has up: of two processes with one id, the one with fewer gives way. A version that does not say
    /// counts as alone.
    #[serde(default)]
    pub(super) peers: usize,
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, a number and an address have a JSON form")
    }

    /// # Errors
    /// The bytes are no hello, or its names are not allowed; the text says which.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let hello: Self = serde_json::from_slice(bytes).map_err(|error| format!("not a hello: {error}"))?;
        if !is_node_id(&hello.node) {
            return Err("a hello whose node id is not allowed".into());
        }
        if !is_reachable(hello.address) {
            return Err(format!("a hello whose address {} cannot be reached", hello.address));
        }
        Ok(hello)
    }

    pub(super) fn replica(&self) -> ReplicaId {
        ReplicaId { node: self.node.clone(), incarnation: self.incarnation }
    }
}

/// What a certificate and a log line can carry.
pub(super) fn is_node_id(node: &str) -> bool {
    (1..=255).contains(&node.len()) && node.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

pub(super) fn is_reachable(address: SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_and_later_fields_are_ignored() {
        let hello = Hello {
            cluster: "prod".into(),
            node: "a".into(),
            incarnation: u64::MAX,
            address: "[::1]:8471".parse().unwrap(),
            peers: 0,
        };
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello.clone()));
        let later =
            br#"{"cluster":"prod","node":"a","incarnation":18446744073709551615,"address":"[::1]:8471","x":[]}"#;
        assert_eq!(Hello::decode(later), Ok(hello));
    }

    #[test]
    fn nonsense_is_refused() {
        let long = format!(r#"{{"cluster":"c","node":"{}","incarnation":1,"address":"1.2.3.4:5"}}"#, "n".repeat(256));
        for bytes in [
            &b""[..],
            b"\xff\xff",
            br#"{"cluster":"c","node":"a","incarnation":-1,"address":"1.2.3.4:5"}"#,
            br#"{"cluster":"c","node":"a\nb","incarnation":1,"address":"1.2.3.4:5"}"#,
            br#"{"cluster":"c","node":"","incarnation":1,"address":"1.2.3.4:5"}"#,
            br#"{"cluster":"c","node":"a","incarnation":1,"address":"0.0.0.0:5"}"#,
            br#"{"cluster":"c","node":"a","incarnation":1,"address":"1.2.3.4:0"}"#,
            long.as_bytes(),
        ] {
            assert!(Hello::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
