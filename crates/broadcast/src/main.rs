//! `tidings-broadcast`: the broadcast service as a program of its own, for images.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use tidings_broadcast::{Config, ServeError};
use tidings_server::signal;

/// Each call is a task with memory of its own, aligned to cache lines, for which the system's allocator takes long.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The broadcast service of Tidings: publish once, deliver to everybody who listens, and to those who were away.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Serves until SIGTERM or SIGINT.
    Serve(Box<Config>),
}

fn main() -> ExitCode {
    let Command::Serve(config) = tidings_server::parse();
    let traces = config.server.traces.clone();
    tidings_server::run("tidings-broadcast", &traces, async {
        tidings_broadcast::run(*config, signal::shutdown().map_err(ServeError::Signal)?).await
    })
}
