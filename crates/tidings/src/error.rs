//! The error of a failed command.

use std::io;

use crate::{bench, call, channel, doctor, exit, lock, replay, token, up, user};

/// Error of any verb.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operating system refused to start the runtime's threads.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    /// Error of `tidings up`.
    #[error(transparent)]
    Up(#[from] up::error::Error),
    /// Error of `tidings call`.
    #[error(transparent)]
    Call(#[from] call::Error),
    /// Error of `tidings user`.
    #[error(transparent)]
    User(#[from] user::error::Error),
    /// Error of `tidings lock`.
    #[error(transparent)]
    Lock(#[from] lock::error::Error),
    /// Error of `tidings channel`.
    #[error(transparent)]
    Channel(#[from] channel::error::Error),
    /// Error of `tidings replay`.
    #[error(transparent)]
    Replay(#[from] replay::Error),
    /// Error of `tidings doctor`.
    #[error(transparent)]
    Doctor(#[from] doctor::Error),
    /// Error of `tidings bench`.
    #[error(transparent)]
    Bench(#[from] bench::Error),
    /// Error of `tidings token`.
    #[error(transparent)]
    Token(#[from] token::Error),
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(_) => exit::SERVICE,
            Self::Up(error) => error.exit_code(),
            Self::Call(error) => error.exit_code(),
            Self::User(error) => error.exit_code(),
            Self::Lock(error) => error.exit_code(),
            Self::Channel(error) => error.exit_code(),
            Self::Replay(error) => error.exit_code(),
            Self::Doctor(error) => error.exit_code(),
            Self::Bench(error) => error.exit_code(),
            Self::Token(error) => error.exit_code(),
        }
    }
}
