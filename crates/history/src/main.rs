//! `tidings-history`: the history service as a program of its own, for images.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use tidings_history::{Config, ServeError};
use tidings_server::signal;
use tidings_server::telemetry::TraceArgs;

/// Each call is a task with memory of its own, aligned to cache lines, for which the system's allocator takes long.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The history service of Tidings: every message of every conversation, in order.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Serves until SIGTERM or SIGINT.
    Serve(Box<Config>),
    /// Applies pending migrations and exits.
    Migrate(Box<tidings_postgres::Args>),
}

fn main() -> ExitCode {
    let command: Command = tidings_server::parse();
    let traces = match &command {
        Command::Serve(config) => config.server.traces.clone(),
        Command::Migrate(_) => TraceArgs::default(),
    };
    tidings_server::run("tidings-history", &traces, async {
        match command {
            Command::Serve(config) => {
                tidings_history::run(*config, signal::shutdown().map_err(ServeError::Signal)?).await
            }
            Command::Migrate(args) => tidings_history::migrate(&args).await,
        }
    })
}
