//! `tidings serve`: one service in this process, the same as the program `tidings-<service>` of the
//! images.

use std::io;
use std::process::ExitCode;
use std::thread;

use tokio_util::sync::CancellationToken;

/// Run one service until SIGTERM or SIGINT
///
/// Requires Postgres and Redis. `tidings up` starts them together with all services.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The service to run
    #[command(subcommand)]
    service: ServeCommand,

    /// Stop at the end of standard input; `tidings up` uses it to stop its services
    #[arg(long, hide = true, global = true)]
    stop_with_stdin: bool,
}

/// The services, each with its flags.
#[derive(Debug, clap::Subcommand)]
enum ServeCommand {
    /// User profiles: few writes, very many reads
    User(Box<tidings_user::Config>),
    /// Conversations and their messages, in order
    History(Box<tidings_history::Config>),
    /// Exclusive leases with fencing tokens
    Lock(Box<tidings_lock::Config>),
    /// Publish/subscribe channels with replay of recent messages
    Broadcast(Box<tidings_broadcast::Config>),
}

/// Runs the service until shutdown, on its own runtime.
pub(crate) fn run(args: Args) -> ExitCode {
    let on_start = |shutdown| {
        if args.stop_with_stdin {
            stop_with_stdin(shutdown);
        }
    };
    match args.service {
        ServeCommand::User(config) => tidings_service::serve(*config, on_start),
        ServeCommand::History(config) => tidings_service::serve(*config, on_start),
        ServeCommand::Lock(config) => tidings_service::serve(*config, on_start),
        ServeCommand::Broadcast(config) => tidings_service::serve(*config, on_start),
    }
}

/// Cancels `shutdown` at the end of standard input. The pipe closes with the process that holds its
/// other end, also after `kill -9`.
fn stop_with_stdin(shutdown: CancellationToken) {
    // A thread, because a read of standard input cannot be cancelled; it ends with the process.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        shutdown.cancel();
    });
}
