//! Arguments in, exit code out.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use spillgate::cli::{self, Cli, Exit};

#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // with nobody left to read it, the exit code still tells
            let _ = std::io::stderr().write_all(cli::explain(&error).as_bytes());
            Exit::after(&error).into()
        }
    }
}
