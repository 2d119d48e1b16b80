//! Everything that can go wrong at the cluster's boundary, told so that an operator can act on it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use spillgate_core::view::ReplicaId;

/// Why the cluster could not start, or could not send.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The secret's file could not be read.
    #[error("cannot read the cluster secret {path}: {source}")]
    SecretUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The secret's text cannot be used.
    #[error("the cluster secret {origin} {reason}; `spillgate secret` prints a good one")]
    SecretInvalid {
        /// The file, or where else the text came from.
        origin: String,
        /// What is wrong with it; never the text itself.
        reason: String,
    },
    /// The node's id cannot be carried by a certificate.
    #[error("node id {node:?} must be 1 to 255 letters, digits, '.', '_' or '-'")]
    NodeId {
        /// The id.
        node: String,
    },
    /// The cluster's name is empty or too long.
    #[error("cluster name {name:?} must be 1 to 255 bytes")]
    Name {
        /// The name.
        name: String,
    },
    /// A certificate or key file cannot be used.
    #[error("cannot use {path}: {reason}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library refused the credentials as a whole.
    #[error("cannot set up TLS from the cluster's credentials: {reason}")]
    Tls {
        /// What it said.
        reason: String,
    },
    /// The UDP port could not be bound.
    #[error("cannot listen on UDP {address}: {source}; choose another address or end the program that holds it")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A message is larger than any peer would accept.
    #[error("message of {bytes} bytes is over the limit of {bytes_max}")]
    MessageTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// There is no connection to the peer now; there may be one soon.
    #[error("not connected to {peer}")]
    NotConnected {
        /// Who.
        peer: ReplicaId,
    },
    /// The connection was lost, or the peer refused the message, before it was delivered.
    #[error("message to {peer} was not delivered: {reason}")]
    NotDelivered {
        /// Who.
        peer: ReplicaId,
        /// Why.
        reason: String,
    },
    /// Another process has this node's id, and it stays.
    #[error(
        "node id {node:?} is in use by another process at {address}, which stays: give each node an id of its own \
         ([node] id or --node-id)"
    )]
    Duplicate {
        /// The id.
        node: String,
        /// Where the other process is reached.
        address: SocketAddr,
    },
    /// Membership ended although nobody asked it to: this node no longer notices who comes and goes.
    #[error("membership stopped: {reason}; restart the node")]
    MembershipStopped {
        /// What it said.
        reason: String,
    },
}
