//! `spillgate demo`: its arguments. It must not know how a cluster is started or measured.

use clap::{Args, ValueEnum};
use spillgate_core::rate::Rate;
use spillgate_core::time::Nanos;

use super::{Exit, duration};
use crate::demo::{self, Plan};

const EXAMPLES: &str = "\
Examples:
  spillgate demo                                  three nodes, 1000/s, three times that offered
  spillgate demo --nodes 5 --accuracy strict      not one token over, at the price of some refusals
  spillgate demo --limit 600/m --burst 50 --load 10 --for 30s
  spillgate demo --stay                           leaves the nodes running, to try them with curl";

/// Arguments of `spillgate demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// How many nodes to start, each a process of its own on free loopback ports.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub nodes: u16,
    /// The limit that all of them keep together.
    #[arg(long, value_name = "RATE", default_value = "1000/s")]
    pub limit: Rate,
    /// Tokens of a full bucket [default: one second's worth].
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..))]
    pub burst: Option<u64>,
    /// How exact the limit is kept.
    #[arg(long, value_enum, default_value_t = AccuracyName::Bounded)]
    pub accuracy: AccuracyName,
    /// How many times the limit is offered; most of it to the first node.
    #[arg(long, value_name = "TIMES", default_value = "3", value_parser = load)]
    pub load: f64,
    /// For how long.
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = run_time)]
    pub run_for: Nanos,
    /// Leave the nodes running, and print commands to try on them.
    #[arg(long)]
    pub stay: bool,
}

/// The accuracies by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccuracyName {
    /// Never more than the limit.
    Strict,
    /// At most 5 % more than the limit at once.
    Bounded,
    /// Whatever the local count allows.
    Gossip,
}

impl AccuracyName {
    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Bounded => "bounded",
            Self::Gossip => "gossip",
        }
    }
}

/// Runs the demonstration and prints it.
pub(super) fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    let plan = Plan {
        nodes: usize::from(args.nodes),
        rate: args.limit,
        burst: args.burst.unwrap_or_else(|| args.limit.tokens_in(Nanos::SECOND).max(1)),
        accuracy: args.accuracy.as_str(),
        load: args.load,
        run_for: args.run_for.into(),
        stay: args.stay,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo::run(&plan))?;
    Ok(Exit::Ok)
}

fn load(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} must be a number above 0 and at most 1000, like 3 or 0.8");
    text.parse().ok().filter(|load| *load > 0.0 && *load <= 1000.0).ok_or_else(wrong)
}

fn run_time(text: &str) -> Result<Nanos, String> {
    let time = duration(text).map_err(|e| e.to_string())?;
    let range = Nanos::SECOND..=Nanos::from_secs(86_400);
    if range.contains(&time) { Ok(time) } else { Err(format!("{text:?} must be from 1s to 1d")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parsed(flags: &[&str]) -> Result<DemoArgs, clap::Error> {
        match Cli::try_parse_from(["spillgate", "demo"].iter().chain(flags))?.command {
            Command::Demo(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_manual() {
        let args = parsed(&[]).unwrap();
        assert_eq!((args.nodes, args.limit.to_string().as_str(), args.burst), (3, "1000/s", None));
        assert_eq!((args.accuracy.as_str(), args.load, args.run_for), ("bounded", 3.0, Nanos::from_secs(10)));
        assert!(!args.stay);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for flags in [
            ["--nodes", "0"],
            ["--nodes", "101"],
            ["--limit", "1000"],
            ["--burst", "0"],
            ["--accuracy", "exact"],
            ["--load", "0"],
            ["--load", "nan"],
            ["--for", "10ms"],
            ["--for", "ten"],
        ] {
            assert_eq!(parsed(&flags).unwrap_err().exit_code(), 2, "{flags:?}");
        }
    }
}
