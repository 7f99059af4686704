//! The error of `tidings user import`, and its exit codes.

use std::io;
use std::path::PathBuf;

use super::source;
use crate::{credentials, exit};

/// Error of `tidings user import`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file is not usable.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The file of refused lines is not usable.
    #[error("--rejects '{}': {problem}", .path.display())]
    Rejects { path: PathBuf, problem: String },
    /// A credential is missing or unusable.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialFlagError),
    /// Some lines were refused.
    #[error("{refused} of {lines} lines were refused{}", rejects_hint(.rejects.as_ref()))]
    Refused {
        refused: u64,
        lines: u64,
        /// The file that has the refused lines.
        rejects: Option<PathBuf>,
    },
    /// The import was ended by Ctrl-C.
    #[error("interrupted; run the same command again to continue")]
    Interrupted,
    /// The input could not be read further, or a refused line not be written.
    #[error("{action}: {cause}; run the same command again to continue")]
    Files { action: &'static str, cause: io::Error },
    /// The service refused the caller, or did not respond within `--patience`.
    #[error("{0}\n  run the same command again to continue")]
    Service(tidings_client::Error),
}

fn rejects_hint(path: Option<&PathBuf>) -> String {
    path.map(|path| format!("; see {}", path.display())).unwrap_or_default()
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Source(_) | Self::Rejects { .. } | Self::Credentials(_) => exit::USAGE,
            Self::Refused { .. } | Self::Interrupted | Self::Files { .. } => exit::NO,
            Self::Service(_) => exit::SERVICE,
        }
    }
}
