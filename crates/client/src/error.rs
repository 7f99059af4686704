//! The error of a call with retries.

use std::time::Duration;

use tidings_status::Failure;
use tonic::Code;

use crate::address::Address;
use crate::attempt_failure::AttemptFailure;

/// Error of a call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The service refused the call; a retry would be refused too.
    #[error("{method} at {address}: {failure}")]
    Refused {
        /// Name of the method, e.g. `GetUser`.
        method: &'static str,
        /// Address of the instance that refused.
        address: Address,
        /// Status of the service.
        failure: Box<Failure>,
    },
    /// The patience or the retry budget is exhausted. The call may have taken effect.
    #[error("{method}: {last}\n  gave up after {attempts} attempt{} in {}", plural(*.attempts), humantime::format_duration(*.elapsed))]
    GaveUp {
        /// Name of the method, e.g. `GetUser`.
        method: &'static str,
        /// Failure of the last attempt.
        last: Box<AttemptFailure>,
        /// Number of attempts, at least 1.
        attempts: u32,
        /// Time since the call started, in whole milliseconds.
        elapsed: Duration,
    },
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl Error {
    /// Returns the status of a call that the service refused.
    pub fn refused(&self) -> Option<&Failure> {
        match self {
            Self::Refused { failure, .. } => Some(failure),
            Self::GaveUp { .. } => None,
        }
    }

    /// Returns true if the service refused the call for this reason.
    ///
    /// `reason` is the text of a value of the contract's `ErrorReason`, e.g.
    /// `ErrorReason::UserNotFound.text()`.
    pub fn has_reason(&self, reason: &str) -> bool {
        self.refused().is_some_and(|failure| failure.reason == reason)
    }

    /// Returns the status of a call that the stored data do not allow.
    ///
    /// Such a call ends with NOT_FOUND, ALREADY_EXISTS or FAILED_PRECONDITION.
    pub fn precondition_failure(&self) -> Option<&Failure> {
        let codes = [Code::NotFound, Code::AlreadyExists, Code::FailedPrecondition];
        self.refused().filter(|failure| codes.contains(&failure.code))
    }
}
