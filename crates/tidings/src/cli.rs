//! The grammar: every verb, and the values that several verbs understand.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;
use tidings_client::Policy;
use tokio::runtime::Builder;

use crate::error::{self, Error};
use crate::out;
use crate::{bench, call, channel, doctor, lock, replay, serve, token, up, user};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 a service did not do it,\n\
                          or the result could not be written.\n\
                          Results go to standard output, everything else to standard error.";

/// Tidings: the data plane of an instant-messaging product.
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
    /// Runs the verb to its end and says how it ended.
    pub(crate) fn run(self) -> ExitCode {
        let done = |()| error::DONE;
        let ended = match self.command {
            Command::Serve(args) => return serve::run(args), // a service has its own runtime, log and exit codes
            Command::Lock(args) => wait(lock::run(args)),    // perhaps with that of the command under the lock
            Command::Up(args) => wait(up::run(args)).map(done),
            Command::Call(args) => wait(call::run(args)).map(done),
            Command::User(args) => wait(user::run(args)).map(done),
            Command::Channel(args) => wait(channel::run(args)).map(done),
            Command::Replay(args) => wait(replay::run(args)).map(done),
            Command::Doctor(args) => wait(doctor::run(*args)).map(done),
            Command::Bench(args) => wait(bench::run(args)).map(done),
            Command::Token(args) => token::run(args).map(done).map_err(Error::from),
        };
        let code = ended.unwrap_or_else(|error| {
            out::note(format_args!("tidings: {error}"));
            error.exit_code()
        });
        match out::end() {
            Ok(()) => code.into(),
            Err(cause) => {
                out::note(format_args!("tidings: can not write the result: {cause}"));
                if code == error::DONE { error::SERVICE } else { code }.into()
            }
        }
    }
}

/// Runs a verb on a runtime of its own.
fn wait<T, E>(verb: impl Future<Output = Result<T, E>>) -> Result<T, Error>
where
    Error: From<E>,
{
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    Ok(runtime.block_on(verb)?)
}

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs, and readable.
    Json,
    /// For programs, one line for each result.
    Jsonl,
}

impl Output {
    /// One JSON value, as it is written: over several lines or in one.
    pub(crate) fn json(self, value: &Value) -> String {
        if self == Self::Jsonl { value.to_string() } else { format!("{value:#}") }
    }
}

/// How a verb calls: what fails is repeated for as long as it takes to find another instance, and no longer than somebody at
/// a prompt likes to wait.
pub(crate) fn policy(timeout: Duration) -> Policy {
    const PATIENCE: Duration = Duration::from_secs(2);
    Policy { timeout, patience: PATIENCE, budget: None }
}

/// Reads a length of time that is more than nothing, e.g. `800ms` or `5s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) | Err(_) => Err("expected a duration like 800ms or 5s".to_owned()),
        Ok(duration) => Ok(duration),
    }
}

/// Reads a length of time, nothing included.
pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a duration like 0s, 800ms or 5s".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_duration_is_more_than_nothing() {
        assert_eq!(duration("800ms"), Ok(Duration::from_millis(800)));
        assert!(duration("0s").is_err());
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        assert!(duration("5x").is_err());
    }
}
