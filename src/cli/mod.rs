//! The command line: what can be asked of the program, and the code it exits with. It must not know how anything is
//! done; each subcommand has a file.

mod check;
mod completions;
mod config;
mod demo;
mod secret;
mod serve;
mod simulate;
mod status;

use std::fmt;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use spillgate_core::rate::{RateError, parse_duration};
use spillgate_core::time::Nanos;

pub use check::{CheckArgs, ClientArgs, PeekArgs, RefundArgs, ResetArgs};
pub use completions::CompletionsArgs;
pub use config::{ConfigArgs, ConfigCommand};
pub use demo::{AccuracyName, DemoArgs};
pub use serve::ServeArgs;
pub use simulate::SimulateArgs;
pub use status::StatusArgs;

/// A distributed rate limiter: every node decides by itself, news between nodes keeps them to one limit.
#[derive(Debug, Parser)]
#[command(
    name = "spillgate",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "\
Examples:
  spillgate demo                              three nodes under three times the limit
  spillgate serve --limit api=100/s           one node with one limit, no file
  spillgate serve --config /etc/spillgate.toml
  spillgate check api user:42                 one check; exits with 0 when allowed, 1 when denied

Exit codes: 0 well, 1 a negative answer, 2 wrong usage or configuration, 3 could not start."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node.
    Serve(ServeArgs),
    /// Run a cluster on this machine, put it under load and show what it admits.
    Demo(DemoArgs),
    /// Ask a running node for tokens.
    Check(CheckArgs),
    /// Ask a running node how many tokens a key has, without taking any.
    Peek(PeekArgs),
    /// Give tokens back to a key.
    Refund(RefundArgs),
    /// Give a key its whole capacity back, cluster-wide.
    Reset(ResetArgs),
    /// Show members, news, limits and the busiest keys of a running node.
    Status(StatusArgs),
    /// Simulate a cluster, its network and its faults: how far over the limit would it go?
    Simulate(SimulateArgs),
    /// Validate a configuration file, or print its JSON Schema.
    Config(ConfigArgs),
    /// Print a new cluster secret.
    #[command(after_help = secret::EXAMPLES)]
    Secret,
    /// Print the completions of a shell.
    Completions(CompletionsArgs),
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Ok,
    /// The answer is no: denied.
    Negative,
    /// Wrong usage or configuration, or a question that could not be asked.
    Usage,
    /// The daemon could not start.
    NotStarted,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Negative => 1,
            Self::Usage => 2,
            Self::NotStarted => 3,
        }
    }

    /// How to end after `error`: [`Exit::NotStarted`] where [`CouldNotStart`] is among its contexts.
    #[must_use]
    pub fn after(error: &anyhow::Error) -> Self {
        if error.downcast_ref::<CouldNotStart>().is_some() { Self::NotStarted } else { Self::Usage }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The context of an error that kept the daemon from starting, though its configuration is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CouldNotStart;

impl fmt::Display for CouldNotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("could not start")
    }
}

/// Does what `cli` asks.
///
/// # Errors
/// What went wrong, to be shown to the user; [`Exit::after`] says how to end then.
pub fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Peek(args) => check::peek(&args),
        Command::Refund(args) => check::refund(&args),
        Command::Reset(args) => check::reset(&args),
        Command::Status(args) => status::run(&args),
        Command::Simulate(args) => simulate::run(&args, &mut io::stdout().lock()),
        Command::Config(args) => config::run(&args, &mut io::stdout().lock()),
        Command::Secret => secret::run(&mut io::stdout().lock()),
        Command::Completions(args) => completions::run(&args, &mut io::stdout().lock()),
    }
}

/// The text of `error` for the terminal, the program's name before each line of it.
#[must_use]
pub fn explain(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().map(|line| format!("spillgate: {line}\n")).collect()
}

/// A duration on the command line.
fn duration(text: &str) -> Result<Nanos, RateError> {
    parse_duration(text)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_and_every_command_is_explained() {
        fn see(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no about", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} of {} has no help", arg.get_id(), command.get_name());
            }
            command.get_subcommands().for_each(see);
        }
        see(&Cli::command());
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for args in [&["spillgate"][..], &["spillgate", "serv"], &["spillgate", "serve", "--http", "here"]] {
            assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{args:?}");
        }
        assert_eq!(Cli::try_parse_from(["spillgate", "--version"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn what_kept_the_daemon_from_starting_exits_with_3_and_all_else_with_2() {
        let taken = || anyhow::anyhow!("address 127.0.0.1:8470 is in use");
        let late = Err::<(), _>(taken()).context("http").context(CouldNotStart).unwrap_err();
        assert_eq!(Exit::after(&late).code(), 3);
        assert_eq!(explain(&late), "spillgate: could not start: http: address 127.0.0.1:8470 is in use\n");
        assert_eq!(Exit::after(&taken()).code(), 2);
    }

    #[test]
    fn every_line_of_an_error_has_the_name_before_it() {
        assert_eq!(
            explain(&anyhow::anyhow!("a.toml:1: x\na.toml:2: y")),
            "spillgate: a.toml:1: x\nspillgate: a.toml:2: y\n"
        );
    }
}
