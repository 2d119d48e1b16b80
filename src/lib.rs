//! The spillgate daemon: all I/O, no arithmetic. `spillgate-core` decides.

pub mod cluster;
pub mod driver;
