//! `tidings channel`: publishes to a channel, and subscribes to channels.

pub(crate) mod error;
mod publish;
mod show;
mod subscribe;

use self::error::Error;

const EXAMPLES: &str = "\
Examples:
  tidings channel pub orders/eu 'order 42 is paid'
  tidings channel sub orders/eu --last 10
  tidings channel sub conversation/lobby --output jsonl";

/// Publish messages to channels, and subscribe to channels
///
/// Channels need no creation. Each keeps its newest messages for late subscribers: at most 1,000,
/// none older than an hour.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Pub(publish::Args),
    Sub(subscribe::Args),
}

/// Runs the verb.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Pub(args) => publish::run(args).await,
        Verb::Sub(args) => subscribe::run(args).await,
    }
}
