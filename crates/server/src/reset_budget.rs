//! Bounds the calls that the client of one connection resets before their end.
//!
//! A reset frees the place of a call among the concurrent calls at once, while its work may go on.
//! A client that opens and resets calls in a loop ("rapid reset") would have no limit. Resets in
//! large numbers are legal nonetheless: the deadlines of all calls of a client may pass together.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Resets that a client may make at once: ten times the calls that a connection carries, because
/// a process that was stopped finds the calls and resets of several seconds in its socket.
pub(crate) const RESETS_AT_ONCE: u32 = 10_000;
/// Time after which a reset does not count any more: 1,000 per second are always allowed, far
/// fewer than the calls that the same work could complete.
const COST: Duration = Duration::from_millis(1);

/// The budget of one connection.
#[derive(Debug)]
pub(crate) struct ResetBudget {
    /// Time at which no reset counts any more.
    settled_at: Mutex<Instant>,
    exhausted: CancellationToken,
}

impl Default for ResetBudget {
    fn default() -> Self {
        Self { settled_at: Mutex::new(Instant::now()), exhausted: CancellationToken::new() }
    }
}

impl ResetBudget {
    /// Records that the client reset a call.
    pub(crate) fn record(&self) {
        let now = Instant::now();
        let mut settled_at = self.settled_at.lock();
        *settled_at = (*settled_at).max(now) + COST;
        if *settled_at > now + COST * RESETS_AT_ONCE {
            self.exhausted.cancel();
        }
    }

    /// Waits until the client has reset too many calls. Cancel-safe.
    pub(crate) async fn exhausted(&self) {
        self.exhausted.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    fn is_exhausted(budget: &ResetBudget) -> bool {
        budget.exhausted().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn resets_at_once_are_allowed_up_to_the_budget() {
        let budget = ResetBudget::default();

        for _ in 0..RESETS_AT_ONCE {
            budget.record();
        }
        assert!(!is_exhausted(&budget));

        budget.record();
        assert!(is_exhausted(&budget));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_resets_per_second_are_always_allowed() {
        let budget = ResetBudget::default();

        for _ in 0..100_000 {
            budget.record();
            advance(COST).await;
        }

        assert!(!is_exhausted(&budget));
    }
}
