//! `spillgate status`: its arguments. It must not know how a node is asked.

use clap::Args;

use super::ClientArgs;

const EXAMPLES: &str = "\
Examples:
  spillgate status
  spillgate status --addr http://10.0.0.3:8470 --token-file token";

/// Arguments of `spillgate status`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct StatusArgs {
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}
