//! Lock guards against an in-memory lock service, in virtual time.

mod acquiring;
mod holding;

use std::time::Duration;

use super::{AcquireOptions, Acquisition, LockGuard};
use crate::caller::{Caller, Policy};
use crate::fake::{FakeInstance, endpoints};
use crate::retry_budget::RetryBudget;

/// Name of the lock in these tests.
const NAME: &str = "orders/42";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A caller with the default policy: timeout 2 s, patience 10 s.
fn caller<'a>(instances: impl IntoIterator<Item = &'a FakeInstance>) -> Caller {
    caller_with(instances, Policy::default())
}

fn caller_with<'a>(instances: impl IntoIterator<Item = &'a FakeInstance>, policy: Policy) -> Caller {
    Caller::new(endpoints(instances), policy)
}

/// A policy with a retry budget of its own.
fn policy(timeout: Duration, patience: Duration) -> Policy {
    Policy { timeout, patience, budget: Some(RetryBudget::default()) }
}

fn options(owner: &str) -> AcquireOptions {
    AcquireOptions::new(NAME, owner)
}

fn waiting(owner: &str, wait: Duration) -> AcquireOptions {
    AcquireOptions { wait, ..options(owner) }
}

async fn granted(caller: &Caller, options: AcquireOptions) -> LockGuard {
    match LockGuard::acquire(caller, options).await.unwrap() {
        Acquisition::Granted(guard) => guard,
        other => panic!("{other:?}"),
    }
}
