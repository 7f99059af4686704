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
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use self::rule::Decision;
use super::{Error, Missing};
use crate::leases::{self, Leases};
use crate::model::Epoch;
use crate::numbers::Numbers;
use crate::store;

/// How long a call waits for an epoch that is being found out: a switch takes some milliseconds, and a caller has better
/// things to do than to wait for servers that are away.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long somebody is waited for who is about to begin an epoch, until the next look.
const PAUSE: Duration = Duration::from_millis(20);
/// How many epochs are opened before giving up for now: once is usual, twice when another instance is ahead. More means
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
    numbers: Arc<Numbers>,
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
struct State {
    /// The epoch, if there is one.
    known: Option<Known>,
    /// What somebody waits for who finds it out.
    seeking: Option<Missing>,
    /// How often it could not be found out.
    failures: u64,
    /// What was missing the last time.
    missing: Missing,
}

/// What one look came to.
#[derive(Debug)]
enum Found {
    /// This is the epoch.
    Epoch(Known),
    /// Somebody is about to begin one.
    Wait,
    /// One was opened, and has to be begun.
    Opened(store::Opening),
}

/// Why the epoch could not be found out.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("the reign of redis does not last")]
    Restless,
    #[error("all epochs were used")]
    UsedUp,
    #[error("redis can not be asked")]
    State(#[from] leases::Error),
    #[error("postgres can not be asked")]
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
    pub(super) fn new(
        store: store::Epochs,
        leases: Arc<Leases>,
        default_ttl: Duration,
        jobs: TaskTracker,
        numbers: Arc<Numbers>,
    ) -> Self {
        let unknown = State { known: None, seeking: None, failures: 0, missing: Missing::Store };
        let state = watch::Sender::new(unknown);
        let settling = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { store, leases, default_ttl, state, settling, jobs, numbers }) }
    }

    /// The epoch of this instance; found out if it has none, by one task for all who ask.
    ///
    /// # Errors
    /// [`Error::NoEpoch`], after about a second at the latest.
    pub(super) async fn current(&self) -> Result<Known, Error> {
        let now = *self.inner.state.borrow();
        if let Some(known) = now.known {
            return Ok(known);
        }
        let mut state = self.inner.state.subscribe();
        self.seek();
        let ended = |state: &State| state.known.is_some() || state.failures > now.failures;
        let found = match timeout(PATIENCE, state.wait_for(ended)).await {
            Ok(Ok(state)) => *state,
            Ok(Err(_)) | Err(_) => *self.inner.state.borrow(),
        };
        found.known.ok_or(Error::NoEpoch(found.seeking.unwrap_or(found.missing)))
    }

    /// Whether this instance still has that epoch: what Redis answered in another one is not used.
    pub(super) fn has(&self, epoch: Epoch) -> bool {
        self.inner.state.borrow().known.is_some_and(|known| known.epoch == epoch)
    }

    /// Forgets the epoch, in which Redis is no more.
    pub(super) fn forget(&self, epoch: Epoch) {
        self.inner.state.send_if_modified(|state| state.known.take_if(|known| known.epoch == epoch).is_some());
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
        self.inner.change(known.epoch, |now| now.max_ttl = now.max_ttl.max(allowed));
        Ok(true)
    }

    /// Tells Postgres, once, that the quarantine of an epoch is over; in a task of its own, because nothing depends on it but
    /// the length of the next quarantine.
    pub(super) fn settle(&self, epoch: Epoch) {
        let carries = self.inner.state.borrow().known.is_some_and(|known| known.epoch == epoch && known.carries);
        if !carries || self.inner.settling.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.jobs.spawn(async move {
            match inner.store.settle(epoch).await {
                Ok(()) => inner.change(epoch, |known| known.carries = false),
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
                self.inner.state.send_modify(|state| state.known = Some(known));
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
        let begins = self.inner.state.send_if_modified(|state| {
            let begins = state.known.is_none() && state.seeking.is_none();
            if begins {
                state.seeking = Some(Missing::Store);
            }
            begins
        });
        if !begins {
            return;
        }
        let (inner, search) = (Arc::clone(&self.inner), Search(Some(Arc::clone(&self.inner))));
        self.inner.jobs.spawn(async move {
            match inner.find_out(false).await {
                Ok(known) => {
                    tracing::info!(epoch = known.epoch.get(), "in an epoch");
                    search.end(Ok(known));
                }
                Err(error) => {
                    tracing::debug!(cause = ?error, "no epoch"); // whoever needs it says so aloud
                    search.end(Err(error.missing()));
                }
            }
        });
    }
}

/// Whoever finds the epoch out; when it is cut off, somebody else can.
struct Search(Option<Arc<Inner>>);

impl Search {
    fn end(mut self, found: Result<Known, Missing>) {
        self.tell(found);
    }

    /// Tells what was found, once: what is sought after that is another search's.
    fn tell(&mut self, found: Result<Known, Missing>) {
        let Some(inner) = self.0.take() else { return };
        inner.state.send_modify(|state| {
            state.seeking = None;
            match found {
                Ok(known) => state.known = Some(known),
                Err(missing) => (state.failures, state.missing) = (state.failures + 1, missing),
            }
        });
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.tell(Err(Missing::State));
    }
}

impl Inner {
    /// Looks until all agree, and opens an epoch where they do not.
    async fn find_out(&self, fresh: bool) -> Result<Known, Unknown> {
        let mut rounds = 0;
        while rounds < ROUNDS {
            self.waits_for(Missing::Store);
            match self.store.decide(async |row| self.look(row, fresh).await).await?? {
                Found::Epoch(known) => {
                    self.numbers.is_in(known.epoch);
                    return Ok(known);
                }
                Found::Wait => sleep(PAUSE).await, // not for long: what is waited for grows old
                Found::Opened(opening) => {
                    self.begin(&opening).await;
                    rounds += 1;
                }
            }
        }
        Err(Unknown::Restless)
    }

    /// Reads Redis under the lock of the row, and decides.
    async fn look(&self, row: store::Row, fresh: bool) -> Result<(Found, Option<store::Opening>), Unknown> {
        fail::fail_point!("lock::epoch_locked");
        self.waits_for(Missing::State);
        let seen = self.leases.epoch().await?;
        fail::fail_point!("lock::epoch_seen");
        self.waits_for(Missing::Store);
        match rule::decide(&row, &seen, self.default_ttl, fresh) {
            Decision::Keep => {
                let carries = !row.carry_ttl.is_zero();
                Ok((Found::Epoch(Known { epoch: row.epoch, max_ttl: row.max_ttl, carries }), None))
            }
            Decision::Wait => Ok((Found::Wait, None)),
            Decision::Open(opening) => Ok((Found::Opened(opening.clone()), Some(opening))),
            Decision::UsedUp => Err(Unknown::UsedUp),
        }
    }

    /// Tells Redis of an epoch that was committed. Once: what became of it is seen in the next round, and never assumed.
    async fn begin(&self, opening: &store::Opening) {
        fail::fail_point!("lock::epoch_committed");
        self.waits_for(Missing::State);
        let (epoch, quarantine) = (opening.epoch.get(), opening.quarantine);
        let told = self.leases.activate(opening.epoch, &opening.reign, quarantine).await;
        self.numbers.opened.increment(1);
        tracing::info!(epoch, ?quarantine, ?told, "an epoch was opened");
        fail::fail_point!("lock::epoch_activated");
    }

    /// Says what the search waits for, so that those who lose patience know.
    fn waits_for(&self, missing: Missing) {
        self.state.send_if_modified(|state| {
            state.seeking = state.seeking.map(|_| missing);
            false // nobody waits for this
        });
    }

    /// Changes what is known of an epoch, if this instance still has it.
    fn change(&self, epoch: Epoch, change: impl FnOnce(&mut Known)) {
        self.state.send_if_modified(|state| {
            if let Some(known) = state.known.as_mut().filter(|known| known.epoch == epoch) {
                change(known);
            }
            false // nobody waits for this
        });
    }
}
