//! A budget that bounds the retries of a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Calls that earn one retry. Retries add at most 20 % to the load of a service that keeps failing.
const CALLS_PER_RETRY: u32 = 5;
/// Retries in the budget at the start, so that a client can retry its very first calls.
const INITIAL_RETRIES: u32 = 100;
/// Largest balance in retries, as in gRPC: more than the calls in flight to an instance that dies.
const RETRIES_MAX: u32 = 1_000;

/// Bounds the retries of all calls that share it: each call earns a fifth of a retry, and each
/// retry costs one.
///
/// Single failures are retried. When every call fails, retries would only add load to an overloaded
/// service, so the budget runs out. This is the token bucket of Finagle's `RetryBudget` with the
/// bounds of gRPC's retry throttling (gRFC A6). Clones share one bucket.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// Balance in fifths of a retry.
    tokens: Arc<AtomicU32>,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { tokens: Arc::new(AtomicU32::new(INITIAL_RETRIES * CALLS_PER_RETRY)) }
    }
}

impl RetryBudget {
    /// Credits one call.
    pub(crate) fn deposit(&self) {
        let add = |tokens: u32| (tokens < RETRIES_MAX * CALLS_PER_RETRY).then_some(tokens + 1);
        // Fails only for a full bucket, which stays full.
        let _ = self.tokens.try_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Pays for one retry. Returns false if the balance is too low.
    pub(crate) fn try_withdraw(&self) -> bool {
        let take = |tokens: u32| tokens.checked_sub(CALLS_PER_RETRY);
        self.tokens.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes failing calls, each retried while the budget lasts. Returns the number of retries.
    fn fail(budget: &RetryBudget, calls: u32) -> u32 {
        let mut retries = 0;
        for _ in 0..calls {
            budget.deposit();
            while budget.try_withdraw() {
                retries += 1;
            }
        }
        retries
    }

    #[test]
    fn retries_are_a_fifth_of_the_calls_and_a_reserve() {
        let budget = RetryBudget::default();

        assert_eq!(fail(&budget, 10_000), 2_000 + INITIAL_RETRIES);
        assert_eq!(fail(&budget, 10_000), 2_000, "the initial balance is granted once");
    }

    #[test]
    fn successful_calls_save_retries_up_to_a_limit() {
        let budget = RetryBudget::default();
        for _ in 0..1_000_000 {
            budget.deposit();
        }

        assert_eq!(fail(&budget, 1), RETRIES_MAX);
    }

    #[test]
    fn clones_share_one_budget() {
        let budget = RetryBudget::default();
        let retries = fail(&budget, 1);

        assert!(retries > 0);
        assert!(!budget.clone().try_withdraw());
    }
}
