//! The call that a run repeats, and its failures.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tidings_status::{Failure, code_name};
use tonic::{Code, Status};

/// The position of a call in a run.
#[derive(Clone, Copy, Debug)]
pub struct CallSlot {
    /// The number of the call, from 0 on; no two calls of a run have the same.
    pub number: u64,
    /// The caller, below [`LoadSpec::in_flight`](crate::LoadSpec::in_flight); it has at most one
    /// call in flight.
    pub caller: usize,
}

/// The function that a run calls; it returns the number of items done, more than 1 for a batch.
pub type BenchCall = Arc<dyn Fn(CallSlot) -> BoxFuture<'static, Result<u64, CallFailure>> + Send + Sync>;

/// The failure of a call, by which failures are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallFailure {
    /// The name of the status code, e.g. `UNAVAILABLE`; `OK` if the response was an unexpected one.
    pub code: &'static str,
    /// The reason, e.g. `STORE_AWAY`; the status message if there is no reason.
    pub reason: String,
}

impl CallFailure {
    /// Creates the failure of a call that got a response, but not the expected one.
    pub fn unexpected(reason: impl Into<String>) -> Self {
        Self { code: code_name(Code::Ok), reason: reason.into() }
    }

    /// Returns true if the call got no response within its timeout.
    pub(crate) fn is_timeout(&self) -> bool {
        self.code == code_name(Code::DeadlineExceeded)
    }
}

impl From<Status> for CallFailure {
    fn from(status: Status) -> Self {
        let Failure { code, reason, message, .. } = Failure::from(&status);
        Self { code: code_name(code), reason: if reason.is_empty() { message } else { reason } }
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}
