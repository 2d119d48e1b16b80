//! The daemon from outside: real processes, real sockets. One binary, so that it is built once.

mod daemon;

mod start;
