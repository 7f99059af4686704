//! `tidings channel`: publish to a channel, and listen to some.

mod publish;
mod show;
mod subscribe;

use std::io;

use crate::{credentials, error};

const EXAMPLES: &str = "\
Examples:
  tidings channel pub orders/eu 'order 42 is paid'
  tidings channel sub orders/eu --last 10
  tidings channel sub conversation/lobby --output jsonl";

/// Publish messages to channels, and listen to channels.
///
/// Channels need no creation. Their newest messages, at most 1,000 and none older than an hour, are kept for those who were
/// away.
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

/// Why a verb did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service refused or did not answer.
    #[error(transparent)]
    Service(#[from] tidings_client::Error),
    /// Credentials that can not be used.
    #[error(transparent)]
    Credentials(#[from] credentials::Unusable),
    /// A position belongs to one channel.
    #[error("--from is a position of one channel, and {0} were named")]
    FromOfSeveral(usize),
    /// Standard input could not be read.
    #[error("cannot read the data from standard input: {0}")]
    Input(io::Error),
    /// The operating system gave no ear for Ctrl-C.
    #[error("can not listen for signals: {0}")]
    Signals(io::Error),
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Credentials(_) | Self::FromOfSeveral(_) | Self::Input(_) => error::USAGE,
            Self::Service(_) | Self::Signals(_) => error::SERVICE,
        }
    }
}

/// Does what the verb says.
pub(crate) async fn run(args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Pub(args) => publish::run(args).await,
        Verb::Sub(args) => subscribe::run(args).await,
    }
}
