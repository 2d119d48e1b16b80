//! `spillgate check`, `peek`, `refund` and `reset`: their arguments, and whom they ask. It must not know how answers
//! read.

use std::path::PathBuf;

use clap::Args;
use spillgate_core::limit::COST_MAX;
use spillgate_core::time::Nanos;

use super::{Exit, duration};
use crate::client::{Client, ClientError};
use crate::client_commands::{self as commands, Output};

const CHECK_EXAMPLES: &str = "\
Examples:
  spillgate check api user:42                  one token
  spillgate check api user:42 --cost 10        ten, all or none
  spillgate check api user:42 --wait 200ms     waits that long for tokens to come
  spillgate check api user:42 && ./send        goes on only when allowed

Exits with 0 when allowed, 1 when denied, 2 when the node could not be asked.";
const PEEK_EXAMPLES: &str = "Example:\n  spillgate peek api user:42";
const REFUND_EXAMPLES: &str = "Example:\n  spillgate refund api user:42 --cost 10    the request was never made";
const RESET_EXAMPLES: &str = "Example:\n  spillgate reset api user:42    as if nothing had ever been taken";

/// Which node is asked, and as whom.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// The node's HTTP API.
    #[arg(long, value_name = "URL", env = "SPILLGATE_ADDR", default_value = "http://127.0.0.1:8470")]
    pub addr: String,
    /// File with the bearer token, where the node asks for one.
    #[arg(long, value_name = "FILE", env = "SPILLGATE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Print the node's answer as it is, in JSON.
    #[arg(long)]
    pub json: bool,
}

impl ClientArgs {
    /// Asks the node; `ask` prints what it answers.
    pub(super) fn ask(
        &self,
        ask: impl AsyncFnOnce(&Client, &mut Output<'_>) -> Result<Exit, ClientError>,
    ) -> anyhow::Result<Exit> {
        let client = Client::new(self.addr.parse()?, self.token_file.as_deref())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut output = Output { to: &mut std::io::stdout().lock(), json: self.json };
        Ok(runtime.block_on(ask(&client, &mut output))?)
    }
}

/// Arguments of `spillgate check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CHECK_EXAMPLES)]
pub struct CheckArgs {
    /// The limit's name.
    pub limit: String,
    /// Who is counted: a user, an address, a tenant.
    pub key: String,
    /// Tokens wanted; 0 takes none, like peek.
    #[arg(long, value_name = "TOKENS", default_value_t = 1, value_parser = cost(0))]
    pub cost: u64,
    /// How long to wait for tokens before the answer is no, like 50ms [default: not at all].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Nanos>,
    /// The request's priority, where the limit reserves by priority [default: normal].
    #[arg(long, value_name = "NAME")]
    pub priority: Option<String>,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of `spillgate peek`.
#[derive(Args, Clone, Debug)]
#[command(after_help = PEEK_EXAMPLES)]
pub struct PeekArgs {
    /// The limit's name.
    pub limit: String,
    /// Who is counted.
    pub key: String,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of `spillgate refund`.
#[derive(Args, Clone, Debug)]
#[command(after_help = REFUND_EXAMPLES)]
pub struct RefundArgs {
    /// The limit's name.
    pub limit: String,
    /// Who is counted.
    pub key: String,
    /// Tokens to give back; what would overflow the bucket is dropped.
    #[arg(long, value_name = "TOKENS", default_value_t = 1, value_parser = cost(1))]
    pub cost: u64,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Arguments of `spillgate reset`.
#[derive(Args, Clone, Debug)]
#[command(after_help = RESET_EXAMPLES)]
pub struct ResetArgs {
    /// The limit's name.
    pub limit: String,
    /// Who is counted.
    pub key: String,
    /// Which node.
    #[command(flatten)]
    pub client: ClientArgs,
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<Exit> {
    let wait = args.wait.unwrap_or(Nanos::ZERO).into();
    let priority = args.priority.as_deref();
    args.client.ask(async |client, output| {
        commands::check(client, &args.limit, &args.key, args.cost, wait, priority, output).await
    })
}

pub(super) fn peek(args: &PeekArgs) -> anyhow::Result<Exit> {
    args.client.ask(async |client, output| commands::peek(client, &args.limit, &args.key, output).await)
}

pub(super) fn refund(args: &RefundArgs) -> anyhow::Result<Exit> {
    args.client.ask(async |client, output| commands::refund(client, &args.limit, &args.key, args.cost, output).await)
}

pub(super) fn reset(args: &ResetArgs) -> anyhow::Result<Exit> {
    args.client.ask(async |client, output| commands::reset(client, &args.limit, &args.key, output).await)
}

fn cost(least: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(least..=COST_MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_check_takes_one_token_and_waits_for_none() {
        let Command::Check(args) = Cli::try_parse_from(["spillgate", "check", "api", "user:42"]).unwrap().command
        else {
            panic!("not a check");
        };
        assert_eq!((args.limit.as_str(), args.key.as_str(), args.cost, args.wait), ("api", "user:42", 1, None));
        assert_eq!(args.client.addr, "http://127.0.0.1:8470");
    }

    #[test]
    fn flags_of_a_check_are_read() {
        let args = ["spillgate", "check", "api", "k", "--cost=10", "--wait", "50ms", "--addr", "http://h:1"];
        let Command::Check(args) = Cli::try_parse_from(args).unwrap().command else { panic!("not a check") };
        assert_eq!((args.cost, args.wait), (10, Some(Nanos::from_millis(50))));
        assert_eq!(args.client.addr, "http://h:1");
    }

    #[test]
    fn a_cost_out_of_range_is_refused() {
        for args in [
            ["spillgate", "check", "api", "k", "--cost=1000000001"],
            ["spillgate", "check", "api", "k", "--cost=-1"],
            ["spillgate", "refund", "api", "k", "--cost=0"],
        ] {
            assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
    }
}
