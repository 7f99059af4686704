//! How many repeats a client may add to its calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Calls that earn one repeat: repeats add at most 20 % to the load of a service that fails for good.
const CALLS_PER_REPEAT: u32 = 5;
/// Repeats in store at the beginning, so that the first failures of a client that has hardly called are repeated too.
const RESERVE: u32 = 100;
/// The most that can be saved up, as in gRPC: more than the calls that were under way to one instance when it died.
const MOST: u32 = 1_000;

/// A bound on the repeats of all who share it: each call earns a fifth of a repeat, each repeat costs one.
///
/// While single calls fail, they are repeated; when everything fails, repeats would only add to the load under which it
/// fails, and the budget runs out. This is the token bucket of Finagle's `RetryBudget` with the bounds of gRPC's retry
/// throttling (proposal A6). Clones share one bucket.
#[derive(Clone, Debug)]
pub struct Budget {
    /// In fifths of a repeat.
    tokens: Arc<AtomicU32>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: Arc::new(AtomicU32::new(RESERVE * CALLS_PER_REPEAT)) }
    }
}

impl Budget {
    /// A call is made.
    pub(crate) fn earn(&self) {
        let add = |tokens: u32| (tokens < MOST * CALLS_PER_REPEAT).then_some(tokens + 1);
        let _ = self.tokens.try_update(Ordering::Relaxed, Ordering::Relaxed, add); // full is as good
    }

    /// A call is to be repeated. Returns false if it may not.
    pub(crate) fn spend(&self) -> bool {
        let take = |tokens: u32| tokens.checked_sub(CALLS_PER_REPEAT);
        self.tokens.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes `calls` that all fail and are repeated while the budget lasts. Returns how many repeats there were.
    fn fail(budget: &Budget, calls: u32) -> u32 {
        let mut repeats = 0;
        for _ in 0..calls {
            budget.earn();
            while budget.spend() {
                repeats += 1;
            }
        }
        repeats
    }

    #[test]
    fn repeats_are_a_fifth_of_the_calls_and_a_reserve() {
        let budget = Budget::default();

        assert_eq!(fail(&budget, 10_000), 2_000 + RESERVE);
        assert_eq!(fail(&budget, 10_000), 2_000, "the reserve is there once");
    }

    #[test]
    fn calls_that_go_well_save_up_repeats_to_a_limit() {
        let budget = Budget::default();
        for _ in 0..1_000_000 {
            budget.earn();
        }

        assert_eq!(fail(&budget, 1), MOST);
    }

    #[test]
    fn clones_share_one_budget() {
        let budget = Budget::default();
        let repeats = fail(&budget, 1);

        assert!(repeats > 0);
        assert!(!budget.clone().spend());
    }
}
