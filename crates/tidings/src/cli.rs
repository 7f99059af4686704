//! The command line: every verb, and the way from its outcome to the exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

use crate::error::Error;
use crate::{bench, call, channel, doctor, exit, lock, migrate, out, replay, serve, token, up, user};

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  negative result, e.g. lock held, user not found, threshold missed
  2  wrong usage
  3  a service failed or was not reachable, or the result could not be written

Results go to standard output, everything else to standard error.";

/// Tidings, the data plane of an instant-messaging product: users, history, locks, broadcast.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, after_help = EXIT_CODES, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Serve(serve::Args),
    Migrate(migrate::Args),
    Call(call::Args),
    User(user::Args),
    Lock(lock::Args),
    Channel(channel::Args),
    Replay(replay::Args),
    Doctor(Box<doctor::Args>),
    Bench(bench::Args),
    Token(token::Args),
}

impl Cli {
    /// Runs the verb and returns its exit code.
    pub(crate) fn run(self) -> ExitCode {
        let done = |()| exit::DONE;
        let outcome = match self.command {
            Command::Serve(args) => return serve::run(args), // own runtime, log and exit codes
            Command::Migrate(args) => Ok(migrate::run(args)), // own runtimes and log
            Command::Lock(args) => block_on(lock::run(args)), // perhaps its command's exit code
            Command::Up(args) => block_on(up::run(args)).map(done),
            Command::Call(args) => block_on(call::run(args)).map(done),
            Command::User(args) => block_on(user::run(args)).map(done),
            Command::Channel(args) => block_on(channel::run(args)).map(done),
            Command::Replay(args) => block_on(replay::run(args)).map(done),
            Command::Doctor(args) => block_on(doctor::run(*args)).map(done),
            Command::Bench(args) => block_on(bench::run(args)).map(done),
            Command::Token(args) => token::run(args).map(done).map_err(Error::from),
        };
        let code = outcome.unwrap_or_else(|error| {
            out::note(format_args!("tidings: {error}"));
            error.exit_code()
        });
        match out::finish() {
            Ok(()) => code.into(),
            Err(cause) => {
                out::note(format_args!("tidings: cannot write the result: {cause}"));
                if code == exit::DONE { exit::SERVICE } else { code }.into()
            }
        }
    }
}

/// Runs a verb on a new runtime until it completes.
fn block_on<T, E>(verb: impl Future<Output = Result<T, E>>) -> Result<T, Error>
where
    Error: From<E>,
{
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    Ok(runtime.block_on(verb)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
