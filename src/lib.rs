//! The spillgate daemon: all I/O, no arithmetic. `spillgate-core` decides.

pub mod api;
pub mod cli;
pub mod client;
pub mod client_commands;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod driver;
pub mod logs;
pub mod metrics;
pub mod private_file;
pub mod redis;
pub mod snapshot;
