//! The spillgate daemon: all I/O, no arithmetic. `spillgate-core` decides.

pub mod api;
pub mod cli;
pub mod client;
pub mod client_commands;
pub mod config;
pub mod driver;
