//! The daemon from outside: real processes, real sockets. One binary, so that it is built once.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy knows tests by their attribute, not what they call

// the harness
mod browser;
mod command;
mod daemon;
mod http1;
mod nodes;
mod redis_server;
mod relay;
mod world;

mod accuracy;
mod chaos;
mod churn;
mod cluster;
mod commands;
mod demo;
mod hostile;
mod http;
mod listeners;
mod metrics;
mod multi;
mod overload;
mod persistence;
mod private;
mod promises;
mod reality;
mod redis;
mod redis_chaos;
mod redis_fallback;
mod redis_faults;
mod redis_resp;
mod refusals;
mod reload;
mod report;
mod resp;
mod secret;
mod start;
mod unstartable;
