//! `spillgate status`: its arguments, and whom it asks. It must not know how answers read.

use clap::Args;

use super::{ClientArgs, Exit};
use crate::client_commands as commands;

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

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    args.client.ask(async |client, output| commands::status(client, output).await)
}
