//! A lock guard against a lock service in memory, in virtual time.

mod acquiring;
mod holding;

use std::time::Duration;

use super::{AcquireOptions, Acquired, LockGuard};
use crate::budget::Budget;
use crate::caller::{Caller, Policy};
use crate::fake::{Instance, endpoints};

/// The lock of these tests.
const NAME: &str = "orders/42";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Calls these instances, with 2 s for an answer and 10 s in all.
fn caller<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Caller {
    caller_with(instances, Policy::default())
}

fn caller_with<'a>(instances: impl IntoIterator<Item = &'a Instance>, policy: Policy) -> Caller {
    Caller::new(endpoints(instances), policy)
}

/// A policy with so long for an answer, and so long in all.
fn policy(timeout: Duration, patience: Duration) -> Policy {
    Policy { timeout, patience, budget: Some(Budget::default()) }
}

fn options(owner: &str) -> AcquireOptions {
    AcquireOptions::new(NAME, owner)
}

fn waiting(owner: &str, wait: Duration) -> AcquireOptions {
    AcquireOptions { wait, ..options(owner) }
}

async fn granted(caller: &Caller, options: AcquireOptions) -> LockGuard {
    match LockGuard::acquire(caller, options).await.unwrap() {
        Acquired::Granted(guard) => guard,
        other => panic!("{other:?}"),
    }
}
