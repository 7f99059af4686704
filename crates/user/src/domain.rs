//! The use cases and their order of steps.
//!
//! Read: near -> cache -> on a miss a lease -> Postgres -> fill. Write: Postgres -> apply -> acknowledge. These invariants hold:
//! - **I1** a fill is accepted only over its own lease, taken before the database read began;
//! - **I2** a write, before it is acknowledged if Redis answers, else through the outbox, kills leases and replaces older
//!   values, or forgets them, and never creates a value on an absent key;
//! - **I3** versions only grow; scripts compare them, order of arrival means nothing;
//! - **I4** losing any key at any time costs a miss, nothing else;
//! - **I5** a read with `min_version` is never answered with less.

mod batch;
mod error;
mod flights;
mod handles;
mod list;
mod read;
mod refresh;
mod watch;
mod writes;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::join;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

pub use error::Error;
pub use watch::Watching;

use self::flights::Flights;
use self::writes::Writes;
use crate::cache::{self, Cache, Heard};
use crate::model::{Change, NewUser, Record, User, UserId};
use crate::near::Near;
use crate::numbers::Numbers;
use crate::store::{Created, Deleted, Store, Updated};
use crate::wire;

/// Profiles that are applied in one round trip: few enough that they are told to Redis within its time-out, however large.
const APPLIED: usize = 50;
/// Rows of the outbox that one step of the relay applies. More are a backlog: their users are forgotten, which is done sooner.
const APPLIED_ROWS: usize = 200;
/// Rows that one step takes.
const RELAY_ROWS: usize = 1000;

/// How long somebody waits for others.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// A reader for another's fill, at most.
    pub fill: Duration,
    /// The relay for more to be written here, so that one step serves many writes.
    pub gather: Duration,
}

/// The users. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Users {
    store: Arc<Store>,
    cache: Arc<Cache>,
    near: Arc<Near>,
    waits: Waits,
    /// Loads of single users that are under way.
    flights: Arc<Flights>,
    /// Who is read anew while their old profile is still answered.
    refreshed: Arc<Mutex<HashSet<UserId>>>,
    /// Something was written here, of which others have to hear.
    written: Arc<Notify>,
    /// What of it the cache has heard already, or could not hear.
    writes: Arc<Writes>,
    numbers: Arc<Numbers>,
    tasks: TaskTracker,
}

impl Users {
    /// The users of one store behind one cache and a memory.
    pub fn new(store: Store, cache: Cache, near: Near, waits: Waits) -> Self {
        Self {
            store: Arc::new(store),
            cache: Arc::new(cache),
            near: Arc::new(near),
            waits,
            flights: Arc::default(),
            refreshed: Arc::default(),
            written: Arc::default(),
            writes: Arc::default(),
            numbers: Numbers::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Draws the conclusions of what is heard of the cache. Does not block.
    pub fn hear(&self, heard: Heard<'_>) {
        match heard {
            Heard::Began(reign) => self.near.begin(reign),
            Heard::Changed(name) => {
                if let Some(id) = cache::whose(name) {
                    self.near.forget(&id);
                    self.flights.filled(&id);
                }
            }
            Heard::Flushed => self.near.forget_all(),
            Heard::Ended => self.near.end(),
        }
    }

    /// Creates a user. The boolean says whether an earlier call had.
    pub async fn create(&self, new: NewUser) -> Result<(User, bool), Error> {
        self.undisturbed(|users| async move {
            match users.store.accounts.create(&new).await? {
                Created::New(user) => {
                    let has_handle = !user.profile.handle.is_empty();
                    Ok((users.tell_of(user, has_handle).await, false))
                }
                // The first time may have ended before it could tell.
                Created::Repeated(user) => Ok((users.tell_of(user, false).await, true)),
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
                Updated::Done(user) => {
                    let got_handle = change.fields.handle && !user.profile.handle.is_empty();
                    Ok(users.tell_of(user, got_handle).await)
                }
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

    /// Waits until something was written here of which others have to hear, and a little longer.
    pub async fn news(&self) {
        self.written.notified().await;
        sleep(self.waits.gather).await;
    }

    /// One step of the relay: brings the cache up to date with what was committed, tells those who watch, and says whether there
    /// may be more.
    ///
    /// What is applied is the profile *as it is now*, so neither order nor repetition matters.
    pub async fn relay(&self) -> Result<bool, Error> {
        self.numbers.near(self.near.size());
        let pending = self.store.outbox.pending(RELAY_ROWS).await?;
        self.numbers.waits(pending.first().map(|row| row.age));
        let mut users: Vec<UserId> = pending.iter().map(|row| row.user.clone()).collect();
        users.sort();
        users.dedup();
        let has = |id: &UserId, version: i64, reign: &_| self.writes.has(id, version, reign);
        if pending.len() > APPLIED_ROWS {
            let versions = self.store.versions.read_for_relay(&users).await?;
            self.cache.forget_many(versions, has).await?;
        } else {
            for users in users.chunks(APPLIED) {
                let records = self.store.accounts.read_for_relay(users).await?;
                self.cache.apply_many(records.iter(), has).await?;
            }
        }
        let rows: Vec<i64> = pending.iter().map(|row| row.id).collect();
        if !rows.is_empty() {
            self.store.outbox.done(&rows).await?;
        }
        self.numbers.relayed(rows.len());
        let more = rows.len() == RELAY_ROWS;
        if !more {
            self.writes.met_all();
        }
        Ok(more)
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

    /// Tells the cache of a user who was just committed, and whose a handle is if that may be news.
    async fn tell_of(&self, user: User, got_handle: bool) -> User {
        let record = Record::Present(wire::encoded(user.clone()));
        let tell_handle = async {
            if got_handle {
                self.tell_handle(&user).await;
            }
        };
        join!(self.tell(&user.id, &record), tell_handle);
        user
    }

    /// Tells the cache of a commit; nobody who comes from now on is answered with what was before it.
    async fn tell(&self, id: &UserId, record: &Record) {
        self.written.notify_one();
        fail::fail_point!("user::before_apply");
        self.apply(id, record).await;
        self.flights.outdate(id);
    }

    /// Applies what Postgres has; if Redis does not take it, the relay will tell it. What this instance remembers is forgotten
    /// before it is believed again.
    async fn apply(&self, id: &UserId, record: &Record) {
        let applied = self.cache.apply(id, record).await;
        self.near.forget(id);
        match applied {
            Ok(reign) => self.writes.applied(id, record.version(), reign),
            Err(error) => {
                self.writes.missed(id, record.version());
                self.missed(&error);
            }
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
}
