//! spillgate's core: limits, buckets, counters, the stability window and gossip as one state machine.
//!
//! It owns every decision and every byte of a frame. It must never know a clock, a socket, a runtime, HTTP, JSON,
//! TOML, Redis, or randomness that it was not handed: the daemon and the simulator drive the same code.

#![forbid(unsafe_code)]

pub mod algorithm;
pub mod catalog;
pub mod central;
pub mod counter;
pub mod decision;
pub mod entry;
pub mod gossip;
pub mod limit;
pub mod news;
pub mod node;
pub mod rate;
mod silence;
pub mod stability;
pub mod table;
pub mod time;
mod turn;
pub mod view;
pub mod wire;
