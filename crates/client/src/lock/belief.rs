//! What the holder of a lock may believe.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::moment::Moment;

/// Timers stand still while the machine is suspended: we look at the clock this often, so that the loss of a lease is
/// noticed at most so long after the machine woke up.
const LOOK: Duration = Duration::from_secs(1);

/// How a lock was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The service says that the lease is over: it ran out there, was released, or Redis lost it.
    #[error("the service says that the lease is over")]
    Over,
    /// The deadline passed before the lease was renewed.
    #[error("the lease was not renewed in time{}", .last_failure.as_ref().map(|last| format!(": {last}")).unwrap_or_default())]
    Expired {
        /// How the last attempt to renew it failed, if one did.
        last_failure: Option<String>,
    },
}

/// The deadline of a lease, and whether it is lost. Both only go one way: the deadline moves on, what is lost stays lost.
#[derive(Debug)]
pub(super) struct Belief {
    state: watch::Sender<State>,
}

#[derive(Debug)]
struct State {
    deadline: Moment,
    lost: Option<Lost>,
    last_failure: Option<String>,
}

impl State {
    /// Looks at the clock. Returns true if that was the end of it.
    fn expires(&mut self) -> bool {
        let expires = self.lost.is_none() && self.deadline <= Moment::now();
        if expires {
            self.lost = Some(Lost::Expired { last_failure: self.last_failure.take() });
        }
        expires
    }
}

impl Belief {
    /// The lease lasts until `deadline`.
    pub(super) fn new(deadline: Moment) -> Self {
        Self { state: watch::Sender::new(State { deadline, lost: None, last_failure: None }) }
    }

    /// Until when the holder may believe in it.
    pub(super) fn deadline(&self) -> Moment {
        self.state.borrow().deadline
    }

    /// How it was lost, if it was. Looks at the clock.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.state.send_if_modified(State::expires);
        self.state.borrow().lost.clone()
    }

    /// It was renewed, until `deadline`. An answer that comes when it is lost changes nothing: somebody may have acted on it.
    pub(super) fn renewed(&self, deadline: Moment) {
        self.state.send_if_modified(|state| {
            let expires = state.expires();
            if state.lost.is_none() {
                state.deadline = state.deadline.max(deadline);
                state.last_failure = None;
            }
            expires
        });
    }

    /// It could not be renewed this time.
    pub(super) fn not_renewed(&self, failure: String) {
        self.state.send_if_modified(|state| {
            state.last_failure = Some(failure);
            false
        });
    }

    /// The service says that it is over.
    pub(super) fn over(&self) {
        self.state.send_if_modified(|state| state.lost.is_none() && state.lost.replace(Lost::Over).is_none());
    }

    /// Waits until it is lost. Each time this is polled it looks at the clock, and not only when a timer has ended.
    pub(super) async fn until_lost(&self) -> Lost {
        let mut news = self.state.subscribe();
        let mut alarm = pin!(async {
            loop {
                let remaining = self.deadline().remaining();
                tokio::select! {
                    _ = news.changed() => {} // the sender is here: it does not go away
                    () = sleep(remaining.min(LOOK)) => {}
                }
                self.lost();
            }
        });
        poll_fn(|context| {
            let Poll::Pending = alarm.as_mut().poll(context);
            self.lost().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::moment::tests::suspend;
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn belief() -> Belief {
        Belief::new(Moment::now() + seconds(10))
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_moves_the_deadline_on_and_never_back() {
        let belief = belief();

        belief.renewed(Moment::now() + seconds(20));
        belief.renewed(Moment::now() + seconds(5));

        assert_eq!((belief.deadline().remaining(), belief.lost()), (seconds(20), None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_after_the_deadline_changes_nothing_even_if_nobody_has_looked() {
        let belief = belief();
        suspend(seconds(10));

        belief.renewed(Moment::now() + seconds(10));

        assert_eq!(belief.lost(), Some(Lost::Expired { last_failure: None }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_stays_lost_in_the_way_in_which_it_was() {
        let belief = belief();
        belief.over();

        belief.renewed(Moment::now() + seconds(20));
        suspend(seconds(30));

        assert_eq!((belief.lost(), belief.until_lost().await), (Some(Lost::Over), Lost::Over));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_failure_that_no_renewal_followed_is_why_it_was_lost() {
        let belief = belief();
        belief.not_renewed("the first".into());
        belief.renewed(Moment::now() + seconds(10));
        let unexplained = belief.until_lost().await;

        let belief = self::belief();
        belief.not_renewed("the first".into());
        belief.not_renewed("the last".into());

        assert_eq!(unexplained.to_string(), "the lease was not renewed in time");
        assert_eq!(belief.until_lost().await.to_string(), "the lease was not renewed in time: the last");
    }
}
