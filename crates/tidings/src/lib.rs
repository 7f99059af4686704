//! The `tidings` command: one binary with one subcommand ("verb") for each task.
//!
//! `cli` defines the command line. Each verb has its own module with its flags (`Args`), its
//! entry point (`run`) and its errors. Verbs import the modules below them (`args`, `exit`, `out`
//! and others); only `cli` and `error` import verbs. Results go to standard output, everything
//! else to standard error. Exit codes: 0 success, 1 negative result, 2 wrong usage, 3 a service
//! failed or the result could not be written.

mod address;
mod args;
mod bench;
mod call;
mod channel;
mod cli;
mod contracts;
mod credentials;
mod display;
mod doctor;
mod error;
mod exit;
mod lock;
mod migrate;
mod out;
mod progress;
mod replay;
mod serve;
mod token;
mod up;
mod user;

use std::process::ExitCode;

/// Returns the command-line definition with every verb and flag, for documents and tests.
pub fn grammar() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
}

/// Parses the command line, runs the verb and returns its exit code.
pub fn run() -> ExitCode {
    tidings_service::parse::<cli::Cli>().run()
}
