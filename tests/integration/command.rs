//! The program as a command: arguments in; exit code, output and errors out.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::daemon::{DEADLINE, program};

/// What a command came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// That it ended with `code`, and that what it says of an error holds every one of `parts`.
    pub fn assert_fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }

    /// That it ended well and said nothing of errors: what it printed.
    pub fn good(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }
}

/// The program, without the caller's own settings.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (variable, _) in std::env::vars_os().filter(|(v, _)| v.to_string_lossy().starts_with("SPILLGATE_")) {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs it to its end.
pub async fn run(args: &[&str]) -> Outcome {
    finish(command(args)).await
}

/// Runs it to its end in `directory`.
pub async fn run_in(directory: &Path, args: &[&str]) -> Outcome {
    let mut command = command(args);
    command.current_dir(directory);
    finish(command).await
}

async fn finish(mut command: Command) -> Outcome {
    let ended = timeout(DEADLINE, command.output()).await.expect("it does not end").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: ended.status.code().expect("no signal"), out: text(ended.stdout), err: text(ended.stderr) }
}
