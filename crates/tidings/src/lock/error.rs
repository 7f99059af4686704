//! The error of `tidings lock`, and its exit codes.

use std::io;

use tidings_client::Lost;

use super::show::LockBlocked;
use crate::{credentials, exit};

/// Error of `tidings lock`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service refused the call or did not respond.
    #[error(transparent)]
    Service(#[from] tidings_client::Error),
    /// A credential is missing or unusable.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialFlagError),
    /// The lock is not free.
    #[error("{0}")]
    Blocked(Box<LockBlocked>),
    /// The lock is not held under the given lease.
    #[error("{name} is not held under this lease")]
    NotHeld { name: String },
    /// The command cannot be started.
    #[error("cannot run {command}: {cause}")]
    Command { command: String, cause: io::Error },
    /// The operating system refused a system call.
    #[error("cannot {action}: {cause}")]
    System { action: &'static str, cause: io::Error },
    /// The lock was lost while the command ran.
    #[error("lost the lock {name}, and ended {command}: {lost}")]
    Lost { name: String, command: String, lost: Lost },
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Blocked(_) | Self::NotHeld { .. } => exit::NO,
            Self::Command { .. } | Self::Credentials(_) => exit::USAGE,
            Self::Service(_) | Self::System { .. } | Self::Lost { .. } => exit::SERVICE,
        }
    }
}
