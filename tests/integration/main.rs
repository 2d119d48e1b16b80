//! The daemon from outside: real processes, real sockets. One binary, so that it is built once.

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
