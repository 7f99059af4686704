//! The `tidings` command, built with the suite that runs it.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    tidings::run(tidings::Cli::parse())
}
