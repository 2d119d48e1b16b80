//! The spillgate daemon: all I/O, no arithmetic. `spillgate-core` decides.

pub mod cli;
pub mod config;
pub mod driver;
