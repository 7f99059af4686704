//! The grammar: every verb, and the values that several verbs understand.

use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::error::Error;
use crate::{call, replay};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 a service did not do it.\n\
                          Results go to standard output, everything else to standard error.";

/// Tidings: the data plane of an instant-messaging product.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Call(call::Args),
    Replay(replay::Args),
}

impl Cli {
    /// Runs the verb.
    pub(crate) async fn run(self) -> Result<(), Error> {
        match self.command {
            Command::Call(args) => call::run(args).await?,
            Command::Replay(args) => replay::run(args).await?,
        }
        Ok(())
    }
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

/// Reads a length of time that is more than nothing, e.g. `800ms` or `5s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) | Err(_) => Err("expected a duration like 800ms or 5s".to_owned()),
        Ok(duration) => Ok(duration),
    }
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
        assert!(duration("5x").is_err());
    }
}
