//! `tidings serve`: one service, in this process; the same as the program `tidings-<service>` of the images.

use std::io;
use std::process::ExitCode;
use std::thread;

use tidings_server::{ServeError, signal};
use tokio_util::sync::CancellationToken;

/// Serve one service until SIGTERM or SIGINT.
///
/// Needs Postgres and Redis; `tidings up` starts these too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which service
    #[command(subcommand)]
    service: Service,

    /// Stop when standard input ends: what `tidings up` holds its services by
    #[arg(long, hide = true, global = true)]
    stop_with_stdin: bool,
}

/// The services.
#[derive(Debug, clap::Subcommand)]
enum Service {
    /// Profiles: few writes, very many reads
    User(Box<tidings_user::Config>),
    /// Every message of every conversation, in order
    History(Box<tidings_history::Config>),
    /// Exclusive leases with fencing tokens
    Lock(Box<tidings_lock::Config>),
    /// Publish once, deliver to everybody who listens
    Broadcast(Box<tidings_broadcast::Config>),
}

/// Serves to the end; has a runtime of its own.
pub(crate) fn run(args: Args) -> ExitCode {
    let (name, server) = match &args.service {
        Service::User(config) => ("tidings-user", &config.server),
        Service::History(config) => ("tidings-history", &config.server),
        Service::Lock(config) => ("tidings-lock", &config.server),
        Service::Broadcast(config) => ("tidings-broadcast", &config.server),
    };
    let traces = server.traces.clone();
    tidings_server::run(name, &traces, async {
        let shutdown = signal::shutdown().map_err(ServeError::Signal)?;
        if args.stop_with_stdin {
            stop_with_stdin(shutdown.clone());
        }
        match args.service {
            Service::User(config) => tidings_user::run(*config, shutdown).await,
            Service::History(config) => tidings_history::run(*config, shutdown).await,
            Service::Lock(config) => tidings_lock::run(*config, shutdown).await,
            Service::Broadcast(config) => tidings_broadcast::run(*config, shutdown).await,
        }
    })
}

/// However the owner of the pipe ends, also by `kill -9`, the pipe ends with it.
fn stop_with_stdin(shutdown: CancellationToken) {
    // A thread, because reading standard input can not be cancelled; it ends with the process.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        shutdown.cancel();
    });
}
