//! `spillgate completions`: what a shell needs to complete the command line. It must not know the commands.

use std::io::Write;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Exit};

const EXAMPLES: &str = "\
Examples:
  spillgate completions bash > ~/.local/share/bash-completion/completions/spillgate
  spillgate completions zsh  > \"${fpath[1]}/_spillgate\"
  spillgate completions fish > ~/.config/fish/completions/spillgate.fish";

/// Arguments of `spillgate completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// For which shell.
    pub shell: Shell,
}

/// Prints the shell's script.
pub(super) fn run(args: &CompletionsArgs, out: &mut impl Write) -> anyhow::Result<Exit> {
    // it panics where it cannot write, so it writes to memory
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "spillgate", &mut script);
    out.write_all(&script).context("cannot print the completions")?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let mut out = Vec::new();
            run(&CompletionsArgs { shell: *shell }, &mut out).unwrap();
            let script = String::from_utf8(out).unwrap();
            assert!(script.contains("serve") && script.contains("cluster-listen"), "{shell}");
        }
    }
}
