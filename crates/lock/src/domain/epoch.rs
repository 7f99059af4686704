//! The epoch of this instance, and the search for it.
//!
//! An instance without an epoch does nothing. It adopts an epoch once three values agree while it
//! holds the row lock in Postgres: the row, the epoch stored in Redis, and the present incarnation
//! of Redis. If they disagree, the instance opens the next epoch: it commits the row, activates the
//! epoch in Redis *once*, and compares again. An epoch number is never used twice: a crash, a lost
//! reply or a commit with unknown outcome costs one number. Redis alone is never trusted, and an
//! activation is never sent twice: either could lead to a token that is granted twice.

mod rule;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use self::rule::{Decision, EarlierLeases};
use super::{Error, NoEpochCause};
use crate::leases::{self, Leases};
use crate::metrics::Metrics;
use crate::model::LockEpoch;
use crate::store;

/// Longest wait of a call for the search for the epoch. Adopting another epoch takes some
/// milliseconds; a call does not wait longer for a server that is unavailable.
const EPOCH_WAIT_MAX: Duration = Duration::from_secs(1);
/// Pause before the next comparison while another instance is about to activate an epoch.
const ACTIVATION_POLL: Duration = Duration::from_millis(20);
/// Pause after a failed comparison of the epoch with Postgres.
const VERIFY_PAUSE: Duration = Duration::from_millis(500);
/// Most epochs that one search opens. One is usual, two when another instance is ahead; more means
/// that the incarnation of Redis changes faster than the search.
const OPENINGS_MAX: usize = 4;

/// Knowledge of this instance about its epoch. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct EpochTracker {
    inner: Arc<EpochTrackerInner>,
}

#[derive(Debug)]
struct EpochTrackerInner {
    store: store::Epochs,
    leases: Arc<Leases>,
    default_ttl: Duration,
    state: watch::Sender<EpochState>,
    clearing: AtomicBool,
    jobs: TaskTracker,
    metrics: Arc<Metrics>,
}

/// An epoch in which this instance works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdoptedEpoch {
    /// Number of the epoch.
    pub(super) epoch: LockEpoch,
    /// Longest lease that Postgres has recorded for this epoch.
    max_ttl: Duration,
    /// True while the row still carries the longest lease of earlier epochs.
    has_carried_ttl: bool,
}

#[derive(Clone, Copy, Debug)]
struct EpochState {
    /// Epoch that this instance has adopted.
    adopted: Option<AdoptedEpoch>,
    /// Server on which the search in progress waits; `None` if there is no search.
    waiting_on: Option<NoEpochCause>,
    /// Number of failed searches.
    failures: u64,
    /// Cause of the last failure.
    cause: NoEpochCause,
}

/// Outcome of one comparison.
#[derive(Debug)]
enum RoundOutcome {
    /// Row, Redis and incarnation agree on this epoch.
    Agreed(AdoptedEpoch),
    /// Another instance has opened the epoch and is about to activate it.
    Wait,
    /// This instance opened the epoch and has to activate it.
    Opened(store::NewEpoch),
}

/// Reason why a search failed.
#[derive(Debug, thiserror::Error)]
enum EpochError {
    #[error("the incarnation of redis keeps changing")]
    IncarnationUnstable,
    #[error("all epochs are used up")]
    Exhausted,
    #[error("epoch in redis could not be read")]
    Redis(#[from] leases::Error),
    #[error("epoch row in postgres could not be read or written")]
    Postgres(#[from] store::Error),
}

impl EpochError {
    fn cause(&self) -> NoEpochCause {
        match self {
            Self::IncarnationUnstable | Self::Redis(_) => NoEpochCause::RedisUnavailable,
            Self::Postgres(_) => NoEpochCause::PostgresUnavailable,
            Self::Exhausted => NoEpochCause::EpochsExhausted,
        }
    }
}

impl EpochTracker {
    /// Creates a tracker without an epoch. `jobs` tracks the tasks that outlive their callers.
    pub(super) fn new(
        store: store::Epochs,
        leases: Arc<Leases>,
        default_ttl: Duration,
        jobs: TaskTracker,
        metrics: Arc<Metrics>,
    ) -> Self {
        let unknown =
            EpochState { adopted: None, waiting_on: None, failures: 0, cause: NoEpochCause::PostgresUnavailable };
        let state = watch::Sender::new(unknown);
        let clearing = AtomicBool::new(false);
        Self { inner: Arc::new(EpochTrackerInner { store, leases, default_ttl, state, clearing, jobs, metrics }) }
    }

    /// Returns the epoch of this instance. Without one, a single task searches for all callers.
    ///
    /// # Errors
    /// [`Error::NoEpoch`] after one second at most.
    pub(super) async fn current(&self) -> Result<AdoptedEpoch, Error> {
        let now = *self.inner.state.borrow();
        if let Some(adopted) = now.adopted {
            return Ok(adopted);
        }
        let mut state = self.inner.state.subscribe();
        self.start_search();
        let ended = |state: &EpochState| state.adopted.is_some() || state.failures > now.failures;
        let found = match timeout(EPOCH_WAIT_MAX, state.wait_for(ended)).await {
            Ok(Ok(state)) => *state,
            Ok(Err(_)) | Err(_) => *self.inner.state.borrow(),
        };
        found.adopted.ok_or(Error::NoEpoch(found.waiting_on.unwrap_or(found.cause)))
    }

    /// Returns true if this instance is still in that epoch. Replies of another epoch are
    /// discarded.
    pub(super) fn has(&self, epoch: LockEpoch) -> bool {
        self.inner.state.borrow().adopted.is_some_and(|adopted| adopted.epoch == epoch)
    }

    /// Forgets the epoch after Redis has left it.
    pub(super) fn forget(&self, epoch: LockEpoch) {
        self.inner.state.send_if_modified(|state| state.adopted.take_if(|adopted| adopted.epoch == epoch).is_some());
    }

    /// Records in Postgres, before a lease of this length is granted, that the epoch has such
    /// leases: the quarantine of the next epoch is derived from it. Returns false if the epoch is
    /// over.
    pub(super) async fn ensure_max_ttl(&self, adopted: AdoptedEpoch, ttl: Duration) -> Result<bool, Error> {
        if ttl <= adopted.max_ttl {
            return Ok(true);
        }
        let Some(raised) = self.inner.store.raise_max_ttl(adopted.epoch, ttl).await? else {
            self.forget(adopted.epoch);
            return Ok(false);
        };
        self.inner.update(adopted.epoch, |now| now.max_ttl = now.max_ttl.max(raised));
        Ok(true)
    }

    /// Clears the carried TTL in Postgres, once, after the quarantine of an epoch. Runs in a task
    /// of its own: only the length of the next quarantine depends on it.
    pub(super) fn clear_carried_ttl(&self, epoch: LockEpoch) {
        let has_carried_ttl =
            self.inner.state.borrow().adopted.is_some_and(|adopted| adopted.epoch == epoch && adopted.has_carried_ttl);
        if !has_carried_ttl || self.inner.clearing.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.jobs.spawn(async move {
            match inner.store.clear_carried_ttl(epoch).await {
                Ok(()) => inner.update(epoch, |adopted| adopted.has_carried_ttl = false),
                Err(error) => tracing::debug!(%error, "end of the quarantine not recorded; a later sweep tries again"),
            }
            inner.clearing.store(false, Ordering::Relaxed);
        });
    }

    /// Compares the epoch with Postgres again, which may have lost commits; the instance works in
    /// its epoch meanwhile. Retries until Postgres has answered.
    ///
    /// A row behind Redis would otherwise be found only after a loss of Redis, when nothing else
    /// names the epochs that are used up.
    pub(super) fn verify(&self) {
        let inner = Arc::clone(&self.inner);
        self.inner.jobs.spawn(async move {
            loop {
                let Some(known) = inner.state.borrow().adopted else { return }; // the search compares
                match inner.verify(known).await {
                    Ok(()) => return,
                    Err(error) => tracing::debug!(%error, "epoch not compared with postgres; trying again"),
                }
                sleep(VERIFY_PAUSE).await;
            }
        });
    }

    /// Finds the epoch before anything is served, given that no client of an earlier run is alive:
    /// an epoch that has to be opened gets no quarantine.
    pub(super) async fn start_fresh(&self) -> bool {
        match self.inner.find_epoch(EarlierLeases::Over).await {
            Ok(adopted) => {
                self.inner.state.send_modify(|state| state.adopted = Some(adopted));
                true
            }
            Err(error) => {
                tracing::debug!(%error, "fresh start failed");
                false
            }
        }
    }

    /// Starts a search, unless one is in progress.
    fn start_search(&self) {
        let starts = self.inner.state.send_if_modified(|state| {
            let starts = state.adopted.is_none() && state.waiting_on.is_none();
            if starts {
                state.waiting_on = Some(NoEpochCause::PostgresUnavailable);
            }
            starts
        });
        if !starts {
            return;
        }
        let (inner, search) = (Arc::clone(&self.inner), EpochSearch(Some(Arc::clone(&self.inner))));
        self.inner.jobs.spawn(async move {
            match inner.find_epoch(EarlierLeases::MayBeHeld).await {
                Ok(adopted) => {
                    tracing::info!(epoch = adopted.epoch.get(), "epoch adopted");
                    search.end(Ok(adopted));
                }
                Err(error) => {
                    tracing::debug!(cause = ?error, "no epoch found"); // the calls that need it report it
                    search.end(Err(error.cause()));
                }
            }
        });
    }
}

/// A search in progress. If its task is dropped, another search can start.
struct EpochSearch(Option<Arc<EpochTrackerInner>>);

impl EpochSearch {
    fn end(mut self, found: Result<AdoptedEpoch, NoEpochCause>) {
        self.finish(found);
    }

    /// Publishes the result, once: a later search publishes its own.
    fn finish(&mut self, found: Result<AdoptedEpoch, NoEpochCause>) {
        let Some(inner) = self.0.take() else { return };
        inner.state.send_modify(|state| {
            state.waiting_on = None;
            match found {
                Ok(adopted) => state.adopted = Some(adopted),
                Err(cause) => (state.failures, state.cause) = (state.failures + 1, cause),
            }
        });
    }
}

impl Drop for EpochSearch {
    fn drop(&mut self) {
        self.finish(Err(NoEpochCause::RedisUnavailable));
    }
}

impl EpochTrackerInner {
    /// Finds the epoch again, and adopts it if it differs. If it continues, records its longest
    /// lease again.
    async fn verify(&self, known: AdoptedEpoch) -> Result<(), EpochError> {
        let found = self.find_epoch(EarlierLeases::MayBeHeld).await?;
        if found.epoch != known.epoch {
            tracing::warn!(
                was = known.epoch.get(),
                epoch = found.epoch.get(),
                "postgres has lost the epoch of the locks: another one is opened"
            );
            self.state.send_modify(|state| state.adopted = Some(found));
        } else if found.max_ttl < known.max_ttl {
            self.store.raise_max_ttl(known.epoch, known.max_ttl).await?;
        }
        Ok(())
    }

    /// Compares until all agree, and opens an epoch where they do not.
    async fn find_epoch(&self, earlier: EarlierLeases) -> Result<AdoptedEpoch, EpochError> {
        let mut rounds = 0;
        while rounds < OPENINGS_MAX {
            self.set_waiting_on(NoEpochCause::PostgresUnavailable);
            match self.store.decide(async |row| self.compare(row, earlier).await).await?? {
                RoundOutcome::Agreed(adopted) => {
                    self.metrics.entered_epoch(adopted.epoch);
                    return Ok(adopted);
                }
                RoundOutcome::Wait => sleep(ACTIVATION_POLL).await, // bounded: the opened row ages
                RoundOutcome::Opened(new_epoch) => {
                    self.activate(&new_epoch).await;
                    rounds += 1;
                }
            }
        }
        Err(EpochError::IncarnationUnstable)
    }

    /// Reads Redis under the row lock, and decides.
    async fn compare(
        &self,
        row: store::Row,
        earlier: EarlierLeases,
    ) -> Result<(RoundOutcome, Option<store::NewEpoch>), EpochError> {
        fail::fail_point!("lock::epoch_locked");
        self.set_waiting_on(NoEpochCause::RedisUnavailable);
        let stored = self.leases.epoch().await?;
        fail::fail_point!("lock::epoch_seen");
        self.set_waiting_on(NoEpochCause::PostgresUnavailable);
        match rule::decide(&row, &stored, self.default_ttl, earlier) {
            Decision::Keep => {
                let has_carried_ttl = !row.carry_ttl.is_zero();
                Ok((
                    RoundOutcome::Agreed(AdoptedEpoch { epoch: row.epoch, max_ttl: row.max_ttl, has_carried_ttl }),
                    None,
                ))
            }
            Decision::Wait => Ok((RoundOutcome::Wait, None)),
            Decision::Open(new_epoch) => Ok((RoundOutcome::Opened(new_epoch.clone()), Some(new_epoch))),
            Decision::Exhausted => Err(EpochError::Exhausted),
        }
    }

    /// Activates a committed epoch in Redis, once. The next comparison shows the outcome; it is
    /// never assumed.
    async fn activate(&self, new_epoch: &store::NewEpoch) {
        fail::fail_point!("lock::epoch_committed");
        self.set_waiting_on(NoEpochCause::RedisUnavailable);
        let (epoch, quarantine) = (new_epoch.epoch.get(), new_epoch.quarantine);
        let activation = self.leases.activate(new_epoch.epoch, &new_epoch.incarnation, quarantine).await;
        self.metrics.opened.increment(1);
        tracing::info!(epoch, ?quarantine, ?activation, "epoch opened");
        fail::fail_point!("lock::epoch_activated");
    }

    /// Records the server on which the search waits, for callers that time out.
    fn set_waiting_on(&self, cause: NoEpochCause) {
        self.state.send_if_modified(|state| {
            state.waiting_on = state.waiting_on.map(|_| cause);
            false // no receiver waits for this change
        });
    }

    /// Updates the adopted epoch, if this instance is still in it.
    fn update(&self, epoch: LockEpoch, update: impl FnOnce(&mut AdoptedEpoch)) {
        self.state.send_if_modified(|state| {
            if let Some(adopted) = state.adopted.as_mut().filter(|adopted| adopted.epoch == epoch) {
                update(adopted);
            }
            false // no receiver waits for this change
        });
    }
}
