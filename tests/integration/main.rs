//! The daemon from outside: real processes, real sockets. One binary, so that it is built once.

// the harness
mod command;
mod daemon;
mod http1;
mod nodes;
mod relay;

mod accuracy;
mod cluster;
mod commands;
mod demo;
mod hostile;
mod http;
mod listeners;
mod metrics;
mod multi;
mod refusals;
mod reload;
mod secret;
mod start;
mod unstartable;
