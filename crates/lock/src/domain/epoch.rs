//! In which epoch this instance is, and how it finds out.
//!
//! An instance has an epoch or it has none, and without one it does nothing. It has one from the moment it saw that three
//! agree, under a lock in Postgres that nobody else can have: the row, what Redis holds, and the present reign of Redis. If
//! they do not, it opens the next epoch: commits the row, tells Redis *once*, and looks again. Numbers are never used twice: a
//! crash, a lost answer or a doubtful commit costs one more. Redis alone is never believed, and never told twice: each of both
//! can give a token twice.

mod rule;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{Error, Missing};
use crate::leases::{self, Leases};
use crate::model::Epoch;
use crate::store;

/// How long a call waits for an epoch that is being found out: a switch takes some milliseconds, and a caller has better
/// things to do than to wait for servers that are away.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked again before giving up for now: once is usual, twice when another instance is ahead. More means
/// that Redis changes its reign faster than we look.
const ROUNDS: usize = 4;

/// What an instance knows of its epoch. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Epochs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: store::Epochs,
    leases: Arc<Leases>,
    default_ttl: Duration,
    state: watch::Sender<State>,
    settling: AtomicBool,
    jobs: TaskTracker,
}

/// An epoch that this instance has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Which.
    pub(super) epoch: Epoch,
    /// Leases up to this length are known of in Postgres.
    max_ttl: Duration,
    /// Whether Postgres still keeps the leases of earlier epochs in mind.
    carries: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// It has an epoch.
    Known(Known),
    /// It has none, and somebody finds out; what that waits for.
    Seeking(Missing),
    /// It has none, and nobody finds out; what was missing the last time.
    None(Missing),
}

/// Why the epoch could not be found out.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("the reign of redis does not last")]
    Restless,
    #[error("all epochs were used")]
    UsedUp,
    #[error("redis is away")]
    State(#[from] leases::Error),
    #[error("postgres is away")]
    Store(#[from] store::Error),
}

impl Unknown {
    fn missing(&self) -> Missing {
        match self {
            Self::Restless | Self::State(_) => Missing::State,
            Self::Store(_) => Missing::Store,
            Self::UsedUp => Missing::Epochs,
        }
    }
}

impl Epochs {
    /// Nothing is known yet. What runs on after its caller is tracked in `jobs`.
    pub(super) fn new(store: store::Epochs, leases: Arc<Leases>, default_ttl: Duration, jobs: TaskTracker) -> Self {
        let state = watch::Sender::new(State::None(Missing::Store));
        Self { inner: Arc::new(Inner { store, leases, default_ttl, state, settling: AtomicBool::new(false), jobs }) }
    }

    /// The epoch of this instance; found out if it has none, by one task for all who ask.
    ///
    /// # Errors
    /// [`Error::NoEpoch`], after about a second at the latest.
    pub(super) async fn current(&self) -> Result<Known, Error> {
        if let State::Known(known) = *self.inner.state.borrow() {
            return Ok(known);
        }
        let mut state = self.inner.state.subscribe();
        self.seek();
        let found = timeout(PATIENCE, state.wait_for(|state| !matches!(state, State::Seeking(_)))).await;
        let found = found.map_or_else(
            |_| *self.inner.state.borrow(),
            |found| found.map_or(State::None(Missing::Store), |found| *found),
        );
        match found {
            State::Known(known) => Ok(known),
            State::Seeking(missing) | State::None(missing) => Err(Error::NoEpoch(missing)),
        }
    }

    /// Whether this instance still has that epoch: what Redis answered in another one is not used.
    pub(super) fn has(&self, epoch: Epoch) -> bool {
        matches!(*self.inner.state.borrow(), State::Known(known) if known.epoch == epoch)
    }

    /// Forgets the epoch, in which Redis is no more.
    pub(super) fn forget(&self, epoch: Epoch) {
        self.inner.state.send_if_modified(|state| {
            let over = matches!(state, State::Known(known) if known.epoch == epoch);
            if over {
                *state = State::None(Missing::State);
            }
            over
        });
    }

    /// Makes sure that Postgres knows of leases of this length in this epoch, before one is granted: as long as the longest
    /// the next epoch has to wait. Returns false if the epoch is over.
    pub(super) async fn allow(&self, known: Known, ttl: Duration) -> Result<bool, Error> {
        if ttl <= known.max_ttl {
            return Ok(true);
        }
        let Some(allowed) = self.inner.store.allow(known.epoch, ttl).await? else {
            self.forget(known.epoch);
            return Ok(false);
        };
        self.inner.state.send_if_modified(|state| {
            if let State::Known(now) = state
                && now.epoch == known.epoch
            {
                now.max_ttl = now.max_ttl.max(allowed);
            }
            false // nobody waits for this
        });
        Ok(true)
    }

    /// Tells Postgres, once, that the quarantine of an epoch is over; in a task of its own, because nothing depends on it but
    /// the length of the next quarantine.
    pub(super) fn settle(&self, epoch: Epoch) {
        let carries =
            matches!(*self.inner.state.borrow(), State::Known(known) if known.epoch == epoch && known.carries);
        if !carries || self.inner.settling.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.jobs.spawn(async move {
            match inner.store.settle(epoch).await {
                Ok(()) => {
                    inner.state.send_if_modified(|state| {
                        if let State::Known(known) = state
                            && known.epoch == epoch
                        {
                            known.carries = false;
                        }
                        false // nobody waits for this
                    });
                }
                Err(error) => tracing::debug!(%error, "the end of the quarantine is not noted yet"),
            }
            inner.settling.store(false, Ordering::Relaxed);
        });
    }

    /// Finds the epoch out before anything is served, when no client of an earlier run lives any more: an epoch that has to
    /// be opened has no quarantine.
    pub(super) async fn start_fresh(&self) -> bool {
        match self.inner.find_out(true).await {
            Ok(known) => {
                self.inner.state.send_replace(State::Known(known));
                true
            }
            Err(error) => {
                tracing::debug!(%error, "no fresh start yet");
                false
            }
        }
    }

    /// Begins to find the epoch out, unless somebody does.
    fn seek(&self) {
        let idle = self.inner.state.send_if_modified(|state| {
            let idle = matches!(state, State::None(_));
            if idle {
                *state = State::Seeking(Missing::Store);
            }
            idle
        });
        if !idle {
            return;
        }
        let search = Search(Arc::clone(&self.inner));
        self.inner.jobs.spawn(async move {
            match search.0.find_out(false).await {
                Ok(known) => {
                    tracing::info!(epoch = known.epoch.get(), "in an epoch");
                    search.0.state.send_replace(State::Known(known));
                }
                Err(error) => {
                    tracing::warn!(cause = ?error, "no epoch: {error}");
                    search.0.state.send_replace(State::None(error.missing()));
                }
            }
        });
    }
}

/// Whoever finds the epoch out; when it is cut off, somebody else can.
struct Search(Arc<Inner>);

impl Drop for Search {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let cut = matches!(state, State::Seeking(_));
            if cut {
                *state = State::None(Missing::State);
            }
            cut
        });
    }
}

impl Inner {
    /// Looks until all agree, and opens an epoch where they do not.
    async fn find_out(&self, fresh: bool) -> Result<Known, Unknown> {
        for _ in 0..ROUNDS {
            self.waits_for(Missing::Store);
            let (row, opening) = self.store.decide(async |row| self.look(row, fresh).await).await??;
            let Some(opening) = opening else {
                return Ok(Known { epoch: row.epoch, max_ttl: row.max_ttl, carries: !row.carry_ttl.is_zero() });
            };
            fail::fail_point!("lock::epoch_committed");
            self.waits_for(Missing::State);
            let (epoch, reign) = (opening.row.epoch, &opening.row.reign);
            tracing::info!(epoch = epoch.get(), quarantine = ?opening.quarantine, "an epoch is opened");
            // Once: what became of it is seen in the next round, and never assumed.
            let told = self.leases.activate(epoch, reign, opening.quarantine).await;
            tracing::debug!(epoch = epoch.get(), ?told, "redis was told");
            fail::fail_point!("lock::epoch_activated");
        }
        Err(Unknown::Restless)
    }

    /// Reads Redis under the lock of the row, and decides.
    async fn look(&self, row: &store::Row, fresh: bool) -> Result<Option<store::Opening>, Unknown> {
        fail::fail_point!("lock::epoch_locked");
        self.waits_for(Missing::State);
        let seen = self.leases.epoch().await?;
        fail::fail_point!("lock::epoch_seen");
        self.waits_for(Missing::Store);
        if rule::agree(row, &seen) {
            return Ok(None);
        }
        rule::open(row, &seen, self.default_ttl, fresh).map(Some).ok_or(Unknown::UsedUp)
    }

    /// Says what the search waits for, so that those who lose patience know.
    fn waits_for(&self, missing: Missing) {
        self.state.send_if_modified(|state| {
            if let State::Seeking(awaited) = state {
                *awaited = missing;
            }
            false // nobody waits for this
        });
    }
}
