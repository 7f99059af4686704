//! The error of `tidings up`, and its exit codes.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::exit;

/// Exit code of a command stopped by Ctrl-C, as in a shell.
const INTERRUPTED: u8 = 130;

/// Error of `tidings up`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A port is in use.
    #[error(
        "port {port} ({service}) is not available: {reason}; stop the process that uses it, or choose other ports, \
         e.g. --port-offset 100"
    )]
    Port { port: u16, service: &'static str, reason: io::ErrorKind },
    /// Postgres or Redis did not start.
    #[error(transparent)]
    Stack(#[from] tidings_devstack::Error),
    /// A service did not start.
    #[error("{service} did not start: {reason}; its log: {}", log.display())]
    Service { service: &'static str, reason: String, log: PathBuf },
    /// An operation of the operating system failed.
    #[error("cannot {action}: {cause}")]
    System { action: &'static str, cause: io::Error },
    /// A signal arrived while the command ran.
    #[error("stopped by a signal before the command ended")]
    Interrupted,
    /// The command failed.
    #[error("{command} failed: {status}")]
    Command { command: String, status: ExitStatus },
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Command { status, .. } => {
                status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::SERVICE)
            }
            Self::Interrupted => INTERRUPTED,
            _ => exit::SERVICE,
        }
    }
}
