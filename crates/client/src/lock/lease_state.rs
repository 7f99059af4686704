//! The deadline of a lease, and the decision that it is lost.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::boot_instant::BootInstant;

/// Interval of the checks of the clock.
///
/// Timers do not advance while the machine is suspended. A loss is therefore noticed within this
/// time after a resume.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// Cause of the loss of a lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The service reported that the lease ended: it expired, was released, or Redis lost it.
    #[error("the service reported that the lease has ended")]
    Ended,
    /// The deadline passed before the lease was renewed.
    #[error("the lease was not renewed in time{}", .last_failure.as_ref().map(|last| format!(": {last}")).unwrap_or_default())]
    Expired {
        /// Failure of the last renewal; `None` if no renewal failed since the last success.
        last_failure: Option<String>,
    },
}

/// The deadline of a lease, which never moves back, and its loss, which is final.
#[derive(Debug)]
pub(super) struct LeaseState {
    status: watch::Sender<LeaseStatus>,
}

#[derive(Debug)]
struct LeaseStatus {
    deadline: BootInstant,
    lost: Option<Lost>,
    last_failure: Option<String>,
}

impl LeaseStatus {
    /// Marks the lease as lost if its deadline has passed. Returns true if it did so.
    fn expire_if_due(&mut self) -> bool {
        let is_due = self.lost.is_none() && self.deadline <= BootInstant::now();
        if is_due {
            self.lost = Some(Lost::Expired { last_failure: self.last_failure.take() });
        }
        is_due
    }
}

impl LeaseState {
    /// A lease that lasts until `deadline`.
    pub(super) fn new(deadline: BootInstant) -> Self {
        Self { status: watch::Sender::new(LeaseStatus { deadline, lost: None, last_failure: None }) }
    }

    /// Returns the end of the lease.
    pub(super) fn deadline(&self) -> BootInstant {
        self.status.borrow().deadline
    }

    /// Checks the clock. Returns the cause of the loss, `None` if the lease is held.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.status.send_if_modified(LeaseStatus::expire_if_due);
        self.status.borrow().lost.clone()
    }

    /// Extends the lease to `deadline`.
    ///
    /// A late response cannot revive a lost lease: the holder may have acted on the loss.
    pub(super) fn renewed(&self, deadline: BootInstant) {
        self.status.send_if_modified(|status| {
            let expired = status.expire_if_due();
            if status.lost.is_none() {
                status.deadline = status.deadline.max(deadline);
                status.last_failure = None;
            }
            expired
        });
    }

    /// Records a failed renewal.
    pub(super) fn not_renewed(&self, failure: String) {
        self.status.send_if_modified(|status| {
            status.last_failure = Some(failure);
            false
        });
    }

    /// Marks the lease as ended by the service.
    pub(super) fn mark_ended(&self) {
        self.status.send_if_modified(|status| status.lost.is_none() && status.lost.replace(Lost::Ended).is_none());
    }

    /// Waits until the lease is lost. Every poll checks the clock, also without an expired timer.
    pub(super) async fn until_lost(&self) -> Lost {
        let mut changes = self.status.subscribe();
        let mut timer = pin!(async {
            loop {
                let remaining = self.deadline().remaining();
                tokio::select! {
                    _ = changes.changed() => {} // `self` holds the sender, so this cannot fail
                    () = sleep(remaining.min(CLOCK_CHECK)) => {}
                }
                self.lost();
            }
        });
        poll_fn(|context| {
            let Poll::Pending = timer.as_mut().poll(context);
            self.lost().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::boot_instant::tests::suspend;
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn state() -> LeaseState {
        LeaseState::new(BootInstant::now() + seconds(10))
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_never_moves_the_deadline_back() {
        let state = state();

        state.renewed(BootInstant::now() + seconds(20));
        state.renewed(BootInstant::now() + seconds(5));

        assert_eq!((state.deadline().remaining(), state.lost()), (seconds(20), None));
    }

    /// The clock alone decides, also if the expiry has not been noticed yet.
    #[tokio::test(start_paused = true)]
    async fn a_renewal_after_the_deadline_changes_nothing() {
        let state = state();
        suspend(seconds(10));

        state.renewed(BootInstant::now() + seconds(10));

        assert_eq!(state.lost(), Some(Lost::Expired { last_failure: None }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_keeps_its_first_cause() {
        let state = state();
        state.mark_ended();

        state.renewed(BootInstant::now() + seconds(20));
        suspend(seconds(30));

        assert_eq!((state.lost(), state.until_lost().await), (Some(Lost::Ended), Lost::Ended));
    }

    #[tokio::test(start_paused = true)]
    async fn only_failures_since_the_last_renewal_are_the_cause() {
        let state = state();
        state.not_renewed("the first".into());
        state.renewed(BootInstant::now() + seconds(10));
        let without_failure = state.until_lost().await;

        let state = self::state();
        state.not_renewed("the first".into());
        state.not_renewed("the last".into());

        assert_eq!(without_failure.to_string(), "the lease was not renewed in time");
        assert_eq!(state.until_lost().await.to_string(), "the lease was not renewed in time: the last");
    }
}
