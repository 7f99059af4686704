//! The workloads of the services, and the ledgers of their calls.

pub(crate) mod channels;
pub(crate) mod conversations;
pub(crate) mod locks;
pub(crate) mod users;

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use tidings_client::{AttemptFailure, Caller, Endpoints, Error, Policy};
use tonic::Code;

use crate::service::TestService;

/// Calls to one service, with a ledger of what was sent and received.
pub(crate) trait Workload: Send + Sync + 'static {
    /// The name of the service.
    const NAME: &'static str;

    /// Makes the call of this number; many calls run concurrently.
    fn call(&self, number: u64) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Returns the acknowledgements, one per line, for the analysis of a failed drill.
    fn ledger_lines(&self) -> Vec<String>;

    /// Reads the final state, when no call is in flight, and compares it with the ledger.
    fn check_ledger(&self) -> impl Future<Output = LedgerCounts> + Send;
}

/// The error of a call: its code, and its reason if the service gave one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallError {
    /// `None` if no response arrived.
    code: Option<i32>,
    reason: String,
}

impl CallError {
    /// Returns true if the contracts allow this error while a dependency is unavailable.
    pub(crate) fn is_documented(&self) -> bool {
        let allowed = [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Aborted];
        // No response at all: the instance was killed.
        self.code.is_none_or(|code| allowed.iter().any(|allowed| i32::from(*allowed) == code))
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(_) => f.write_str(&self.reason),
            None => f.write_str("no response"),
        }
    }
}

impl From<&Error> for CallError {
    fn from(error: &Error) -> Self {
        let failure = match error {
            Error::Refused { failure, .. } => failure,
            Error::GaveUp { last, .. } => match &**last {
                AttemptFailure::Answered(failure) => failure,
                AttemptFailure::NotRunning { .. } | AttemptFailure::Unreachable { .. } => {
                    return Self { code: None, reason: String::new() };
                }
            },
        };
        let reason = if failure.reason.is_empty() { format!("{:?}", failure.code) } else { failure.reason.clone() };
        Self { code: Some(failure.code.into()), reason }
    }
}

/// The counts of a checked ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LedgerCounts {
    /// Acknowledged calls.
    pub(crate) acknowledged: u64,
    /// Violations: acknowledged, but absent at the end.
    pub(crate) lost: u64,
    /// Violations: applied or delivered twice; locks with two holders.
    pub(crate) duplicated: u64,
    /// Violations: in another order than that of the calls.
    pub(crate) reordered: u64,
    /// Violations: answers older than the caller's minimum, and fencing tokens that do not grow.
    pub(crate) reverted: u64,
    /// Messages that were not delivered but reported as missing, as the contract allows.
    pub(crate) reported_missing: u64,
}

impl LedgerCounts {
    /// Returns the number of violations.
    pub(crate) fn violations(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.reverted
    }
}

impl AddAssign for LedgerCounts {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.reverted += other.reverted;
        self.reported_missing += other.reported_missing;
    }
}

/// Returns a client that makes one attempt per call.
pub(crate) fn caller_without_retries(instances: &[TestService]) -> Caller {
    caller_with_retries(instances, Duration::ZERO)
}

/// Returns a client that retries calls that are safe to retry, for this long.
pub(crate) fn caller_with_retries(instances: &[TestService], retry_for: Duration) -> Caller {
    let policy = Policy { timeout: Duration::from_secs(2), patience: retry_for, budget: None };
    Caller::new(endpoints(instances), policy)
}

pub(crate) fn endpoints(instances: &[TestService]) -> Endpoints {
    let addresses: Vec<_> = instances.iter().map(|instance| instance.address.to_string()).collect();
    Endpoints::new(&addresses.join(",").parse().unwrap())
}
