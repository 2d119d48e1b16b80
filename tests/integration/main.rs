//! The daemon from outside: real processes, real sockets. One binary, so that it is built once.

// clippy sees tests only where the attribute is: here the harness is test as well
#![allow(clippy::unwrap_used, clippy::panic)]

// the harness
mod daemon;
mod nodes;
mod relay;

mod accuracy;
mod cluster;
mod multi;
mod reload;
mod secret;
mod start;
