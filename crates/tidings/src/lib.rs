//! The `tidings` command: one binary, one verb for each thing that people do with the services.
//!
//! `cli` is the grammar; each verb has a module of its own with its flags (`Args`), its work (`run`) and its errors.
//! Results go to standard output, everything else to standard error. How a verb ends is its exit code: 0 done, 1 the
//! answer is no, 2 wrong usage, 3 a service did not do it, or the result could not be written.

mod address;
pub mod bench;
mod call;
mod channel;
mod cli;
mod contracts;
mod credentials;
mod doctor;
mod error;
pub mod load;
mod lock;
mod out;
mod progress;
mod replay;
mod serve;
mod shown;
mod token;
mod up;
mod user;

use std::process::ExitCode;

/// The grammar of the command: every verb and every flag, for documents and tests.
pub fn grammar() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
}

/// Reads the command line, runs the command to its end and says how it ended.
pub fn run() -> ExitCode {
    tidings_server::parse::<cli::Cli>().run()
}
