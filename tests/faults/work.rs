//! What callers do all the time, and how it is accounted for.

pub(crate) mod channels;
pub(crate) mod conversations;
pub(crate) mod locks;
pub(crate) mod users;

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use tidings_client::{Caller, Endpoints, Error, Policy, Refusal};
use tonic::Code;

use crate::service::Service;

/// Work of one kind. It keeps account of everything that it was told.
pub(crate) trait Work: Send + Sync + 'static {
    /// The service that does it.
    const NAME: &'static str;

    /// Makes the call of this number, as one of many at once.
    fn once(&self, number: u64) -> impl Future<Output = Result<(), Refused>> + Send;

    /// What was acknowledged, a line each, for whoever has to find out what went wrong.
    fn history(&self) -> Vec<String>;

    /// Looks at what there is now, when no call is under way any more, and compares.
    fn account(&self) -> impl Future<Output = Account> + Send;
}

/// Why a call was refused: its code, and its reason if the service gave one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Refused {
    code: Option<i32>,
    reason: String,
}

impl Refused {
    /// Whether a contract allows it while something is away.
    pub(crate) fn is_documented(&self) -> bool {
        let allowed = [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Aborted];
        // Without a code nobody answered: the instance had died.
        self.code.is_none_or(|code| allowed.iter().any(|allowed| i32::from(*allowed) == code))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(_) => f.write_str(&self.reason),
            None => f.write_str("no answer"),
        }
    }
}

impl From<&Error> for Refused {
    fn from(error: &Error) -> Self {
        let failure = match error {
            Error::Refused { failure, .. } => failure,
            Error::GaveUp { last, .. } => match &**last {
                Refusal::Answered(failure) => failure,
                Refusal::NotRunning { .. } | Refusal::Unreachable { .. } => {
                    return Self { code: None, reason: String::new() };
                }
            },
        };
        let reason = if failure.reason.is_empty() { format!("{:?}", failure.code) } else { failure.reason.clone() };
        Self { code: Some(failure.code.into()), reason }
    }
}

/// What must never be, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// What was acknowledged.
    pub(crate) acknowledged: u64,
    /// Of that, what is not there.
    pub(crate) lost: u64,
    /// What was done twice.
    pub(crate) duplicated: u64,
    /// What is in another order than that in which it was done.
    pub(crate) reordered: u64,
    /// Answers older than what their caller had seen, tokens no larger than one before.
    pub(crate) gone_back: u64,
    /// What was told to be missing, as the contract allows.
    pub(crate) told: u64,
}

impl Account {
    /// How much is wrong.
    pub(crate) fn wrong(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.gone_back
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.gone_back += other.gone_back;
        self.told += other.told;
    }
}

/// Whoever calls once and hears what became of it.
pub(crate) fn once(instances: &[Service]) -> Caller {
    caller(instances, Duration::ZERO)
}

/// Whoever repeats what is safe to repeat, for so long.
pub(crate) fn caller(instances: &[Service], patience: Duration) -> Caller {
    let policy = Policy { timeout: Duration::from_secs(2), patience, budget: None };
    Caller::new(endpoints(instances), policy)
}

pub(crate) fn endpoints(instances: &[Service]) -> Endpoints {
    let addresses: Vec<_> = instances.iter().map(|instance| instance.address.to_string()).collect();
    Endpoints::new(&addresses.join(",").parse().unwrap())
}
