//! The binary of a service, with its commands `serve` and `migrate`.

use std::process::ExitCode;

use clap::{Command, FromArgMatches};
use tidings_postgres::Migrations;
use tidings_server::telemetry::TraceArgs;
use tokio_util::sync::CancellationToken;

use crate::error::ServeError;
use crate::run::run;
use crate::signal;
use crate::usage::matches_of;

/// Name of the command that applies migrations; a service without a database has none.
const MIGRATE: &str = "migrate";

/// A service, described by its settings.
pub trait Service: clap::Args {
    /// Name of its binary, e.g. `tidings-user`.
    const NAME: &'static str;
    /// The service in one line, for `--help`.
    const ABOUT: &'static str;
    /// The migrations of its database, if it has one.
    const MIGRATIONS: Option<Migrations> = None;

    /// Returns the settings of its server.
    fn server(&self) -> &tidings_server::Args;

    /// Binds the configured address and serves until `shutdown` is cancelled.
    fn run(self, shutdown: CancellationToken) -> impl Future<Output = Result<(), ServeError>>;
}

/// Defines the `main` of the binary of a service, given the type that implements [`Service`].
///
/// The allocator is mimalloc: each call allocates a task aligned to cache lines, which is slow with
/// the system's allocator.
#[macro_export]
macro_rules! main {
    ($service:ty) => {
        #[global_allocator]
        static ALLOCATOR: $crate::MiMalloc = $crate::MiMalloc;

        fn main() -> std::process::ExitCode {
            $crate::main::<$service>()
        }
    };
}

/// Runs the command that the arguments of this process name, and returns its exit code.
pub fn main<S: Service>() -> ExitCode {
    match matches_of(command::<S>()).remove_subcommand() {
        Some((name, matches)) if name == MIGRATE => migrate::<S>(&read(matches)),
        Some((_, matches)) => serve::<S>(read(matches), drop),
        None => ExitCode::from(2), // clap requires one
    }
}

/// Serves until SIGTERM or SIGINT, and returns the exit code. `on_start` gets the token that ends
/// the service.
pub fn serve<S: Service>(service: S, on_start: impl FnOnce(CancellationToken)) -> ExitCode {
    let traces = service.server().traces.clone();
    run(S::NAME, &traces, async {
        let shutdown = signal::shutdown().map_err(ServeError::Signal)?;
        on_start(shutdown.clone());
        service.run(shutdown).await
    })
}

/// Applies the pending migrations of a service, and returns the exit code.
pub fn migrate<S: Service>(args: &tidings_postgres::Args) -> ExitCode {
    run(S::NAME, &TraceArgs::default(), async {
        match S::MIGRATIONS {
            Some(migrations) => Ok(migrations.apply(args).await?),
            None => Ok(()),
        }
    })
}

/// Returns the command line of the binary of a service.
fn command<S: Service>() -> Command {
    let serve = S::augment_args(Command::new("serve")).about("Serves until SIGTERM or SIGINT").long_about(None::<&str>);
    let command = Command::new(S::NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about(S::ABOUT)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve);
    if S::MIGRATIONS.is_none() {
        return command;
    }
    let migrate = <tidings_postgres::Args as clap::Args>::augment_args(Command::new(MIGRATE));
    command.subcommand(migrate.about("Applies pending migrations and exits").long_about(None::<&str>))
}

/// Reads settings from arguments that clap has validated.
fn read<A: FromArgMatches>(mut matches: clap::ArgMatches) -> A {
    A::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
}
