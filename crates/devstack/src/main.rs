//! Runs a command with a private Postgres and Redis at hand: see `tidings-devstack --help`.

mod exec;

use std::process::ExitCode;

use clap::Parser;

/// A private Postgres and Redis on loopback, for as long as a command runs.
#[derive(Debug, Parser)]
#[command(name = "tidings-devstack", version)]
enum Cli {
    Exec(exec::Exec),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli::Exec(exec) = Cli::parse();
    exec.run().await.unwrap_or_else(|error| complain(&error))
}

#[expect(clippy::print_stderr, reason = "a command tells its user what went wrong")]
fn complain(error: &tidings_devstack::Error) -> ExitCode {
    eprintln!("tidings-devstack: {error}");
    ExitCode::FAILURE
}
