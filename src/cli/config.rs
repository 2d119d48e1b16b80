//! `spillgate config`: validates a file, or prints the schema of all. It must not know any key.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::Exit;
use crate::config::{Config, Overrides, json_schema};

const CHECK_EXAMPLES: &str = "\
Example:
  spillgate config check /etc/spillgate/spillgate.toml && systemctl reload spillgate

Every problem is shown with its line. Files that the configuration names must be readable.
Exits with 0 when all is well, and with 2 when not.";
const SCHEMA_EXAMPLES: &str = "\
Example:
  spillgate config schema > spillgate.schema.json

An editor that knows TOML completes and explains keys where the file begins with
  #:schema ./spillgate.schema.json";

/// Arguments of `spillgate config`.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What can be done with configurations.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Validate a file and show in short what it says.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// The configuration file.
        file: PathBuf,
    },
    /// Print the JSON Schema of the file: every key, what it takes, its default and its meaning.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
}

/// Does it.
pub(super) fn run(args: &ConfigArgs, out: &mut impl Write) -> anyhow::Result<Exit> {
    let text = match &args.command {
        ConfigCommand::Check { file } => Config::check(Some(file), &Overrides::default())?.to_string(),
        ConfigCommand::Schema => format!("{:#}\n", json_schema()),
    };
    out.write_all(text.as_bytes()).context("cannot print")?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(file: PathBuf) -> anyhow::Result<String> {
        let mut out = Vec::new();
        let args = ConfigArgs { command: ConfigCommand::Check { file } };
        assert_eq!(run(&args, &mut out)?, Exit::Ok);
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn a_good_file_is_shown_in_short() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("spillgate.toml");
        let text = "
            node.id = 'a'
            [cluster]
            secret_file = 'secret'
            seeds = ['b:1']
            [[limit]]
            name = 'api'
            rate = '100/s'
            max_overshoot = '2.5%'
              [[limit.override]]
              key = 'vip'
              burst = 1000
            [[limit]]
            name = 'daily'
            algorithm = 'fixed-window'
            rate = '1M/d'
            accuracy = 'strict'
            enforce = false
        ";
        fs::write(&file, text).unwrap();
        fs::write(directory.path().join("secret"), "a secret").unwrap();
        let shown = check(file).unwrap();
        let secret = directory.path().join("secret");
        let secret = secret.display();
        let expected = format!(
            "node     a, at most 1000000 keys\n\
             http     127.0.0.1:8470, no token\n\
             cluster  spillgate on 0.0.0.0:8471, seeds b:1, secret {secret}; gossip every 10ms, stale after 200ms, \
             forgotten after 1m\n\
             limit    api: token-bucket 100/s, burst 100, bounded 2.5%, on partition share, 1 override\n\
             limit    daily: fixed-window 1000000/d, strict, on partition share, dry run\n"
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_bad_file_is_explained_and_exits_with_2() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("spillgate.toml");
        fs::write(&file, "[[limit]]\nname = 'api'\nrate = '100/x'\n").unwrap();
        let error = check(file.clone()).unwrap_err();
        assert_eq!(Exit::after(&error).code(), 2);
        let start = format!("spillgate: {}:3: limit \"api\": rate \"100/x\" is not like", file.display());
        assert!(super::super::explain(&error).starts_with(&start), "{error:#}");
    }
}
