//! How a command ends when it does not end well.

use std::io;

use crate::{bench, call, channel, doctor, lock, replay, token, up, user};

/// It is done.
pub(crate) const DONE: u8 = 0;
/// The question was understood, and the answer is no.
pub(crate) const NO: u8 = 1;
/// The command was used wrongly; nothing was done.
pub(crate) const USAGE: u8 = 2;
/// A service refused or did not answer, or the result could not be written.
pub(crate) const SERVICE: u8 = 3;

/// Why a verb did not end with "done".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operating system gave no threads.
    #[error("can not start: {0}")]
    Runtime(io::Error),
    /// `tidings up`.
    #[error(transparent)]
    Up(#[from] up::Error),
    /// `tidings call`.
    #[error(transparent)]
    Call(#[from] call::Error),
    /// `tidings user`.
    #[error(transparent)]
    User(#[from] user::Error),
    /// `tidings lock`.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// `tidings channel`.
    #[error(transparent)]
    Channel(#[from] channel::Error),
    /// `tidings replay`.
    #[error(transparent)]
    Replay(#[from] replay::Error),
    /// `tidings doctor`.
    #[error(transparent)]
    Doctor(#[from] doctor::Error),
    /// `tidings bench`.
    #[error(transparent)]
    Bench(#[from] bench::Error),
    /// `tidings token`.
    #[error(transparent)]
    Token(#[from] token::Error),
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(_) => SERVICE,
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
