//! The simulation harness: the core that the daemon runs, and other systems' strategies, on virtual time.
//!
//! One run is a [`scenario::Scenario`], a [`strategy::Strategy`] and a seed; it is one thread's work and repeats bit for
//! bit. [`run`] drives it: requests from [`workload`], messages over [`network`], nodes and their membership from
//! [`cluster`], all offered to the strategy through a [`world::World`]. Whatever happens is an
//! [`observe::Observation`]; [`measure`] and [`checker`]s listen. It must not know tokio, real time or the daemon.

#![forbid(unsafe_code)]

pub mod bucket;
pub mod checker;
pub mod cluster;
pub mod event;
pub mod judge;
pub mod math;
pub mod measure;
pub mod network;
pub mod observe;
pub(crate) mod open;
pub mod random;
pub mod report;
pub mod run;
pub mod scenario;
pub mod strategy;
pub mod swarm;
pub mod trace;
pub mod workload;
pub mod world;
