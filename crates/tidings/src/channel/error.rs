//! The error of `tidings channel`, and its exit codes.

use std::io;

use crate::{credentials, exit};

/// Error of `tidings channel`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service refused the call or did not respond.
    #[error(transparent)]
    Service(#[from] tidings_client::Error),
    /// A credential is missing or unusable.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialFlagError),
    /// `--from` was given with several channels.
    #[error("--from is a position in one channel, but {0} channels were given")]
    FromOfSeveral(usize),
    /// Standard input could not be read.
    #[error("cannot read the data from standard input: {0}")]
    Input(io::Error),
    /// The handler for Ctrl-C could not be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Credentials(_) | Self::FromOfSeveral(_) | Self::Input(_) => exit::USAGE,
            Self::Service(_) | Self::Signals(_) => exit::SERVICE,
        }
    }
}
