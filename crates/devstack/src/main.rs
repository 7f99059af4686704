//! Runs a command with a private Postgres and Redis; see `tidings-devstack --help`.

mod exec;

use std::process::ExitCode;

use clap::Parser;

/// Runs a private Postgres and Redis on loopback while a command runs.
#[derive(Debug, Parser)]
#[command(name = "tidings-devstack", version)]
enum Cli {
    Exec(exec::Exec),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli::Exec(exec) = Cli::parse();
    exec.run().await.unwrap_or_else(|error| print_error(&error))
}

#[expect(clippy::print_stderr, reason = "a command prints its errors")]
fn print_error(error: &tidings_devstack::Error) -> ExitCode {
    eprintln!("tidings-devstack: {error}");
    ExitCode::FAILURE
}
