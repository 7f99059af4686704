//! The use cases and the order of their steps.
//!
//! Read: local cache, Redis, on a miss a lease, Postgres, fill; `read` draws it. Write: Postgres,
//! apply, acknowledge.
//!
//! These invariants hold:
//! - **I1** A fill is accepted only over its own lease, taken before the read of Postgres began.
//! - **I2** A write deletes leases, and replaces or unlinks older values, but never creates a value
//!   on an absent key. It does so before it is acknowledged if Redis replies, else through the
//!   outbox.
//! - **I3** Versions only grow. Scripts compare them; order of arrival means nothing.
//! - **I4** Losing any key at any time costs a miss, nothing else.
//! - **I5** A read with `min_version` never returns less.

mod error;
mod handles;
mod list;
mod read;
mod recent_writes;
mod watch;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_server::UncancelledWork;
use tidings_status::Created;
use tokio::join;
use tokio::sync::Notify;
use tokio::time::sleep;

pub use error::Error;
pub use watch::UserWatches;

use self::read::InFlightLoads;
use self::recent_writes::RecentWrites;
use crate::cache::{self, Cache, TrackingEvent};
use crate::local_cache::LocalCache;
use crate::metrics::Metrics;
use crate::model::{Deletion, HandleKey, NewUser, User, UserId, UserRecord, UserUpdate};
use crate::store::{self, CreateUserOutcome, DeleteUserOutcome, Store, UpdateUserOutcome};
use crate::wire;

/// Profiles applied in one round trip: few enough for the Redis timeout even at their largest.
const APPLY_CHUNK: usize = 50;
/// Outbox rows that one step of the relay applies. More are a backlog: their values are unlinked
/// instead, which is faster.
const APPLY_ROWS_MAX: usize = 200;
/// Outbox rows that one step of the relay reads.
const RELAY_ROWS_MAX: usize = 1000;

/// Waits of readers and of the relay.
#[derive(Clone, Copy, Debug)]
pub struct WaitTimes {
    /// Longest wait of a reader for another reader's fill.
    pub fill: Duration,
    /// Time the relay waits after a write for further ones, so that one step serves many.
    pub gather: Duration,
}

/// The use cases of profiles. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Users {
    store: Arc<Store>,
    cache: Arc<Cache>,
    local_cache: Arc<LocalCache>,
    wait_times: WaitTimes,
    /// Loads of single users in flight.
    loads: Arc<InFlightLoads<UserId>>,
    /// Reads of owners of handles in flight.
    handle_loads: Arc<InFlightLoads<HandleKey>>,
    /// Users past their soft TTL that are being reloaded.
    refreshing: Arc<Mutex<HashSet<UserId>>>,
    /// Wakes the relay after a write of this instance.
    relay_wakeup: Arc<Notify>,
    /// Writes of this instance that are applied, or failed to be, since the outbox was drained.
    recent_writes: Arc<RecentWrites>,
    metrics: Arc<Metrics>,
    /// Loads, and writes: a commit is always followed by its apply.
    tasks: UncancelledWork,
}

impl Users {
    /// Creates the use cases over a store, the Redis cache and a local cache.
    pub fn new(store: Store, cache: Cache, local_cache: LocalCache, wait_times: WaitTimes) -> Self {
        Self {
            store: Arc::new(store),
            cache: Arc::new(cache),
            local_cache: Arc::new(local_cache),
            wait_times,
            loads: Arc::default(),
            handle_loads: Arc::default(),
            refreshing: Arc::default(),
            relay_wakeup: Arc::default(),
            recent_writes: Arc::default(),
            metrics: Metrics::new(),
            tasks: UncancelledWork::default(),
        }
    }

    /// Updates the local cache and wakes waiting loads. Does not block.
    pub fn on_tracking_event(&self, event: TrackingEvent<'_>) {
        match event {
            TrackingEvent::Started(incarnation) => self.local_cache.start_session(incarnation),
            TrackingEvent::Changed(name) => {
                if let Some(id) = cache::user_id_from_key(name) {
                    self.local_cache.invalidate(&id);
                    self.loads.notify_filled(&id);
                }
            }
            TrackingEvent::Confirmed(instant) => self.local_cache.confirm(instant),
            TrackingEvent::Flushed => self.local_cache.invalidate_all(),
            TrackingEvent::Ended => self.local_cache.end_session(),
        }
    }

    /// Creates a user, or returns the one that an earlier, equal call created.
    pub async fn create(&self, new: NewUser) -> Result<Created<User>, Error> {
        let users = self.clone();
        let create = async move {
            match users.store.accounts.create(&new).await? {
                CreateUserOutcome::New(user) => {
                    let has_handle = !user.profile.handle.is_empty();
                    Ok(Created { value: users.publish_user(user, has_handle).await, deduplicated: false })
                }
                // The first call may have ended before its apply.
                CreateUserOutcome::Repeated(user) => {
                    Ok(Created { value: users.publish_user(user, false).await, deduplicated: true })
                }
                CreateUserOutcome::IdTaken => Err(Error::IdTaken { id: new.id }),
                CreateUserOutcome::HandleTaken => Err(Error::HandleTaken { handle: new.profile.handle }),
                CreateUserOutcome::RequestIdReused => Err(Error::RequestIdReused),
            }
        };
        self.tasks.run(create).await
    }

    /// Changes the named fields of a user.
    pub async fn update(&self, change: UserUpdate) -> Result<User, Error> {
        let users = self.clone();
        let update = async move {
            let updated = users.store.accounts.update(&change).await;
            match updated.inspect_err(|fault| users.forget_if_ambiguous(&change.id, fault))? {
                UpdateUserOutcome::Done(user) => {
                    let got_handle = change.fields.handle && !user.profile.handle.is_empty();
                    Ok(users.publish_user(user, got_handle).await)
                }
                UpdateUserOutcome::NotFound => Err(Error::NotFound { id: change.id }),
                UpdateUserOutcome::Mismatch { version } => Err(Error::VersionMismatch { version }),
                UpdateUserOutcome::HandleTaken => Err(Error::HandleTaken { handle: change.profile.handle }),
            }
        };
        self.tasks.run(update).await
    }

    /// Deletes a user.
    pub async fn delete(&self, id: UserId, expected_version: Option<i64>) -> Result<Deletion, Error> {
        let users = self.clone();
        let delete = async move {
            let deleted = users.store.accounts.delete(&id, expected_version).await;
            match deleted.inspect_err(|fault| users.forget_if_ambiguous(&id, fault))? {
                DeleteUserOutcome::Done(deletion) => {
                    users.publish(&id, &UserRecord::Absent { version: deletion.version }).await;
                    Ok(deletion)
                }
                DeleteUserOutcome::NotFound => Err(Error::NotFound { id }),
                DeleteUserOutcome::Mismatch { version } => Err(Error::VersionMismatch { version }),
            }
        };
        self.tasks.run(delete).await
    }

    /// Removes a user from the local cache and closes its loads, if a failed write may have been
    /// committed. Redis keeps the older value until the relay runs.
    fn forget_if_ambiguous(&self, id: &UserId, fault: &store::Error) {
        if matches!(fault, store::Error::Ambiguous(_)) {
            self.local_cache.invalidate(id);
            self.loads.close_all(id);
        }
    }

    /// Waits until this instance has written something, then for `WaitTimes::gather`.
    pub async fn relay_needed(&self) {
        self.relay_wakeup.notified().await;
        sleep(self.wait_times.gather).await;
    }

    /// Runs one step of the relay: updates the cache for the oldest outbox rows, publishes
    /// notifications, deletes the rows. Returns true if there may be more rows.
    ///
    /// It applies each profile *as it is now*, so neither order nor repetition matters.
    pub async fn relay(&self) -> Result<bool, Error> {
        self.metrics.set_local_cache(self.local_cache.size());
        let pending = self.store.outbox.pending(RELAY_ROWS_MAX).await?;
        self.metrics.set_outbox_age(pending.first().map(|row| row.age));
        let mut users: Vec<UserId> = pending.iter().map(|row| row.user.clone()).collect();
        users.sort();
        users.dedup();
        let is_applied =
            |id: &UserId, version: i64, incarnation: &_| self.recent_writes.is_applied(id, version, incarnation);
        if pending.len() > APPLY_ROWS_MAX {
            let versions = self.store.versions.read_for_relay(&users).await?;
            self.cache.unlink_many(versions, is_applied).await?;
        } else {
            for users in users.chunks(APPLY_CHUNK) {
                let records = self.store.accounts.read_for_relay(users).await?;
                self.cache.apply_many(records.iter(), is_applied).await?;
            }
        }
        let rows: Vec<i64> = pending.iter().map(|row| row.id).collect();
        if !rows.is_empty() {
            self.store.outbox.delete(&rows).await?;
        }
        self.metrics.record_relayed(rows.len());
        let more = rows.len() == RELAY_ROWS_MAX;
        if !more {
            self.recent_writes.outbox_drained();
        }
        Ok(more)
    }

    /// Waits for background work, then closes all connections.
    pub async fn close(&self) {
        self.tasks.finish().await;
        self.store.close().await;
    }

    /// Publishes a committed user, and its handle if `got_handle`; returns the user.
    async fn publish_user(&self, user: User, got_handle: bool) -> User {
        let record = UserRecord::Present(wire::encoded(user.clone()));
        let publish_handle = async {
            if got_handle {
                self.publish_handle(&user).await;
            }
        };
        join!(self.publish(&user.id, &record), publish_handle);
        user
    }

    /// Applies a commit and closes older loads. A read that starts on this instance after the
    /// return sees the commit.
    async fn publish(&self, id: &UserId, record: &UserRecord) {
        self.relay_wakeup.notify_one();
        fail::fail_point!("user::before_apply");
        self.apply(id, record).await;
        self.loads.close_all(id);
    }

    /// Applies a record of Postgres to Redis, and invalidates the local cache.
    ///
    /// If Redis does not take it, the relay will apply it. The local cache is invalidated before
    /// the outcome is recorded: afterwards reads may use it again.
    async fn apply(&self, id: &UserId, record: &UserRecord) {
        let applied = self.cache.apply(id, record).await;
        self.local_cache.invalidate(id);
        match applied {
            Ok(incarnation) => self.recent_writes.record_applied(id, record.version(), incarnation),
            Err(error) => {
                self.recent_writes.record_failed(id, record.version());
                self.log_redis_failure(&error);
            }
        }
    }

    /// Counts and logs a failed step of Redis.
    fn log_redis_failure(&self, error: &cache::Error) {
        self.metrics.record_redis_skipped();
        error.log_skip("the cache");
    }
}
