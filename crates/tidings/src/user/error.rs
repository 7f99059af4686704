//! The error of `tidings user`, and its exit codes.

use std::io;

use tonic::Code;

use super::import::error::Error as ImportError;
use crate::{credentials, exit};

/// Error of `tidings user`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service refused the call or did not respond.
    #[error(transparent)]
    Service(#[from] tidings_client::Error),
    /// A credential is missing or unusable.
    #[error(transparent)]
    Credentials(#[from] credentials::CredentialFlagError),
    /// Some of the requested users do not exist.
    #[error("no such user: {}", .0.join(", "))]
    Absent(Vec<String>),
    /// Some of the requested users could not be read; the others were printed.
    #[error("could not read: {}{}\n  {cause}", .unread.join(", "), also_absent(.absent))]
    Unread { unread: Vec<String>, absent: Vec<String>, cause: tidings_client::Error },
    /// `--min-version` was given with several ids.
    #[error("--min-version applies to one user, but several ids were given")]
    MinVersionForSeveral,
    /// A field is given twice.
    #[error("{0} is given twice: give each field once, to --set or to --clear")]
    FieldGivenTwice(String),
    /// The user is not at the expected version.
    #[error("{id} has version {found}, not {expected}; nothing was changed")]
    VersionMismatch { id: String, found: i64, expected: i64 },
    /// The handler for Ctrl-C cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// An import is incomplete.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl Error {
    /// Returns the exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Service(error) if is_negative_result(error) => exit::NO,
            Self::Service(error) if is_wrong_usage(error) => exit::USAGE,
            Self::Unread { cause, .. } if is_wrong_usage(cause) => exit::USAGE,
            Self::Service(_) | Self::Unread { .. } | Self::Signals(_) => exit::SERVICE,
            Self::Absent(_) | Self::VersionMismatch { .. } => exit::NO,
            Self::Credentials(_) | Self::MinVersionForSeveral | Self::FieldGivenTwice(_) => exit::USAGE,
            Self::Import(error) => error.exit_code(),
        }
    }
}

fn also_absent(ids: &[String]) -> String {
    if ids.is_empty() { String::new() } else { format!("; no such user: {}", ids.join(", ")) }
}

/// Returns true if the service evaluated the request and refused it because of what it stores.
fn is_negative_result(error: &tidings_client::Error) -> bool {
    error.precondition_failure().is_some() || error.refused().is_some_and(|failure| failure.code == Code::Aborted)
}

/// Returns true if the request is invalid: the service did nothing, and a retry cannot succeed.
fn is_wrong_usage(error: &tidings_client::Error) -> bool {
    error.refused().is_some_and(|failure| failure.code == Code::InvalidArgument)
}

#[cfg(test)]
mod tests {
    use tidings_status::Failure;
    use tonic::Status;

    use super::*;
    use crate::address::USER_ADDRESS;

    #[test]
    fn each_status_code_has_the_documented_exit_code() {
        for (code, expected) in [
            (Code::NotFound, exit::NO),
            (Code::AlreadyExists, exit::NO),
            (Code::Aborted, exit::NO),
            (Code::InvalidArgument, exit::USAGE),
            (Code::PermissionDenied, exit::SERVICE),
            (Code::Internal, exit::SERVICE),
        ] {
            let failure = Box::new(Failure::from(&Status::new(code, "")));
            let address = USER_ADDRESS.parse::<tidings_client::Address>().unwrap();
            let error = tidings_client::Error::Refused { method: "CreateUser", address, failure };
            assert_eq!(Error::Service(error).exit_code(), expected, "{code:?}");
        }
    }
}
