//! The use cases and their order of steps.
//!
//! Read: cache -> on a miss a lease -> Postgres -> fill. Write: Postgres -> apply -> acknowledge. These invariants hold:
//! - **I1** a fill is accepted only over its own lease, taken before the database read began;
//! - **I2** a write, before it is acknowledged (if Redis answers) and again through the outbox (always), kills leases and
//!   replaces older values, and never creates a value on an absent key;
//! - **I3** versions only grow; scripts compare them, order of arrival means nothing;
//! - **I4** losing any key at any time costs a miss, nothing else;
//! - **I5** a read with `min_version` is never answered with less.

mod batch;
mod error;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

pub use error::Error;

use crate::cache::{self, Cache, Cached, Leased, Token};
use crate::model::{Change, NewUser, Read, Record, Source, User, UserId};
use crate::numbers::Numbers;
use crate::store::{self, Created, Deleted, Store, Updated};

/// The first pause of a reader that waits for another's fill; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Rows of the outbox that one step of the relay takes: few enough that their profiles, however large, are told to Redis
/// within its time-out.
const RELAY_ROWS: i64 = 50;

/// The users. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Users {
    store: Store,
    cache: Arc<Cache>,
    fill_wait: Duration,
    numbers: Arc<Numbers>,
    tasks: TaskTracker,
}

impl Users {
    /// The users of one store behind one cache. A reader waits at most `fill_wait` for another's fill.
    pub fn new(store: Store, cache: Cache, fill_wait: Duration) -> Self {
        Self { store, cache: Arc::new(cache), fill_wait, numbers: Numbers::new(), tasks: TaskTracker::new() }
    }

    /// Reads one user, at `min_version` or above.
    pub async fn get(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        Ok(self.counted(self.read(id, min_version).await?))
    }

    /// Reads one user from Postgres, filling nothing.
    pub async fn get_strong(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        Ok(self.counted(self.read_stored(id, min_version).await?))
    }

    /// Reads the cache, and what it does not have from Postgres.
    async fn read(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        match self.cache.get(id).await {
            Ok(Some(cached)) => self.answer(id, cached, min_version).await,
            Ok(None) => self.load(id, min_version).await,
            Err(error) => {
                self.missed(&error);
                self.read_stored(id, min_version).await
            }
        }
    }

    /// Reads Postgres.
    async fn read_stored(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        let record = self.store.accounts.read(id).await?;
        stored(record, min_version)
    }

    /// Reads a user whom the cache does not have, and fills the cache under a lease.
    async fn load(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        let leased = self.cache.lease(id).await.inspect(|leased| self.numbers.leased(leased));
        let token = match leased {
            Ok(Leased::Granted(token)) => token,
            Ok(Leased::Present(cached)) => return self.answer(id, cached, min_version).await,
            Ok(Leased::Taken) => return self.await_fill(id, min_version).await,
            Ok(Leased::Unreadable) => return self.read_stored(id, min_version).await,
            Err(error) => {
                self.missed(&error);
                return self.read_stored(id, min_version).await;
            }
        };
        let id = id.clone();
        let record = self.undisturbed(move |users| async move { users.read_and_fill(&id, token).await }).await?;
        stored(record, min_version)
    }

    /// Reads Postgres under a lease, and fills the cache; gives the lease back if there is nothing to fill.
    async fn read_and_fill(&self, id: &UserId, token: Token) -> Result<Record, Error> {
        let read = self.store.accounts.read(id).await;
        fail::fail_point!("user::before_fill");
        let told = match &read {
            Ok(record) => self.cache.fill(id, token, record).await.map(drop),
            Err(_) => self.cache.release(id, token).await,
        };
        if let Err(error) = told {
            self.missed(&error);
        }
        Ok(read?)
    }

    /// Waits for what another reader is about to fill; reads Postgres itself if that takes too long.
    async fn await_fill(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        let deadline = Instant::now() + self.fill_wait;
        let mut pause = PAUSE_MIN;
        while Instant::now() + pause <= deadline {
            sleep(pause).await;
            pause *= 2;
            match self.cache.get(id).await {
                Ok(Some(cached)) => return self.answer(id, cached, min_version).await,
                Ok(None) => {}
                Err(_) => break,
            }
        }
        self.read_stored(id, min_version).await
    }

    /// Answers with what is cached, if that is enough.
    ///
    /// That there is no user is told only while Postgres answers: one may have been created of whom the cache has not heard.
    async fn answer(&self, id: &UserId, cached: Cached, min_version: i64) -> Result<Read, Error> {
        match cached.record {
            ref record if record.version() < min_version => self.renew(id, min_version).await,
            Record::Absent { .. } if !self.store.answers() => self.read_stored(id, min_version).await,
            _ => Ok(self.cached(cached)),
        }
    }

    /// Reads a user of whom the cache has less than was asked for, and tells the cache.
    async fn renew(&self, id: &UserId, min_version: i64) -> Result<Read, Error> {
        let record = self.store.accounts.read(id).await?;
        self.apply(id, &record).await;
        stored(record, min_version)
    }

    /// Creates a user. The boolean says whether an earlier call had.
    pub async fn create(&self, new: NewUser) -> Result<(User, bool), Error> {
        self.undisturbed(|users| async move {
            match users.store.accounts.create(&new).await? {
                Created::New(user) => Ok((users.tell_of(user).await, false)),
                Created::Repeated(user) => Ok((user, true)),
                Created::IdTaken => Err(Error::IdTaken { id: new.id }),
                Created::HandleTaken => Err(Error::HandleTaken { handle: new.profile.handle }),
                Created::RequestIdReused => Err(Error::RequestIdReused),
            }
        })
        .await
    }

    /// Changes the named fields of a user.
    pub async fn update(&self, change: Change) -> Result<User, Error> {
        self.undisturbed(|users| async move {
            match users.store.accounts.update(&change).await? {
                Updated::Done(user) => Ok(users.tell_of(user).await),
                Updated::NotFound => Err(Error::NotFound { id: change.id }),
                Updated::Mismatch { version } => Err(Error::VersionMismatch { version }),
                Updated::HandleTaken => Err(Error::HandleTaken { handle: change.profile.handle }),
            }
        })
        .await
    }

    /// Deletes a user; returns the version that stands for the deletion, and its time.
    pub async fn delete(
        &self,
        id: UserId,
        expected_version: Option<i64>,
    ) -> Result<(i64, std::time::SystemTime), Error> {
        self.undisturbed(move |users| async move {
            match users.store.accounts.delete(&id, expected_version).await? {
                Deleted::Done { version, time } => {
                    users.tell(&id, &Record::Absent { version }).await;
                    Ok((version, time))
                }
                Deleted::NotFound => Err(Error::NotFound { id }),
                Deleted::Mismatch { version } => Err(Error::VersionMismatch { version }),
            }
        })
        .await
    }

    /// One step of the relay: brings the cache up to date with what was committed, and says whether there may be more.
    ///
    /// What is applied is the profile *as it is now*, so neither order nor repetition matters.
    pub async fn relay(&self) -> Result<bool, Error> {
        let pending = self.store.outbox.pending(RELAY_ROWS).await?;
        self.numbers.waits(pending.first().map(|row| row.age));
        if pending.is_empty() {
            return Ok(false);
        }
        let mut users: Vec<UserId> = pending.iter().map(|row| row.user.clone()).collect();
        users.sort();
        users.dedup();
        let records = self.store.accounts.read_for_relay(&users).await?;
        self.cache.apply_many(records.iter()).await?;
        let rows: Vec<i64> = pending.iter().map(|row| row.id).collect();
        self.store.outbox.done(&rows).await?;
        self.numbers.relayed(rows.len());
        Ok(i64::try_from(rows.len()).is_ok_and(|rows| rows == RELAY_ROWS))
    }

    /// Waits for work whose callers have gone, then closes all connections.
    pub async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
    }

    /// Runs work to its end even if its caller goes away: a commit is always followed by its apply, a lease by its fill.
    async fn undisturbed<T, F>(&self, work: impl FnOnce(Self) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let work = self.tasks.spawn(work(self.clone()));
        work.await.map_err(|_| Error::Aborted)?
    }

    /// Tells the cache of a user who was just committed.
    async fn tell_of(&self, user: User) -> User {
        self.tell(&user.id, &Record::Present(user.clone())).await;
        user
    }

    /// Tells the cache of a commit.
    async fn tell(&self, id: &UserId, record: &Record) {
        fail::fail_point!("user::before_apply");
        self.apply(id, record).await;
    }

    /// Applies what Postgres has; if Redis does not take it, the outbox will.
    async fn apply(&self, id: &UserId, record: &Record) {
        if let Err(error) = self.cache.apply(id, record).await {
            self.missed(&error);
        }
    }

    /// Says that we go on without Redis: loudly if it answered that it would not, because that is no outage.
    fn missed(&self, error: &cache::Error) {
        self.numbers.without_redis();
        match error {
            cache::Error::Refused(cause) => tracing::warn!(%cause, "redis refused"),
            cache::Error::Away | cache::Error::Unanswered(_) | cache::Error::Unwritable(_) => {
                tracing::debug!(%error, "going on without redis");
            }
        }
    }

    /// Counts what is answered.
    fn counted(&self, read: Read) -> Read {
        self.numbers.read(&read);
        read
    }

    fn cached(&self, cached: Cached) -> Read {
        Read { record: cached.record, source: Source::Redis, age: cached.age, stale: !self.store.answers() }
    }
}

/// What Postgres said, if that is enough. An absent user is told as such whatever version was asked for.
fn stored(record: Record, min_version: i64) -> Result<Read, Error> {
    match record {
        Record::Present(user) if user.version < min_version => Err(Error::VersionAhead { version: user.version }),
        record => Ok(Read { record, source: Source::Postgres, age: Duration::ZERO, stale: false }),
    }
}

impl From<store::Error> for Error {
    fn from(fault: store::Error) -> Self {
        Self::Store(fault)
    }
}
