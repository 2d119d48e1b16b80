//! Logs: structured, to standard error. It must not know what is logged.

use tracing_subscriber::EnvFilter;

/// Which log lines are shown, in the manner of `RUST_LOG`.
pub const FILTER_VARIABLE: &str = "SPILLGATE_LOG";
/// `json` for one JSON object a line; anything else is text.
pub const FORMAT_VARIABLE: &str = "SPILLGATE_LOG_FORMAT";

/// Starts logging for the process; a second call does nothing.
pub fn start() {
    // chitchat tells of every member at info, which the daemon does itself
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE)
        .unwrap_or_else(|_| EnvFilter::new("info,chitchat=error,quinn=error,quinn_proto=error,quinn_udp=error"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let json = std::env::var(FORMAT_VARIABLE).is_ok_and(|format| format == "json");
    // fails only where a test has started logging before
    let _ = if json { logs.json().try_init() } else { logs.try_init() };
}
