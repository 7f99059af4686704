//! Loads of one user, in one of three [`LoadMode`]s.
//!
//! Readers of one instance share a load ([`single_flight`](super::single_flight)). Loads of several
//! instances share a read of Postgres through the lease: its holder reads and fills, the others
//! wait. Ten thousand readers of a cold user on two instances cost one statement
//! (`a_herd_on_two_instances_reads_postgres_once`).

use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::single_flight::{JoinOutcome, LoadLeader};
use super::{LoadMode, ensure_min_version, from_postgres};
use crate::cache::{CachedRecord, FillLease, FillOutcome, FillToken};
use crate::domain::{Error, Users};
use crate::model::{ReadSource, UserId, UserRead};
use crate::store;

/// First interval at which a load polls for another reader's fill; it doubles each time.
const POLL_MIN: Duration = Duration::from_millis(5);
/// First poll interval while invalidations arrive, which normally end the wait earlier.
const POLL_WITH_TRACKING: Duration = Duration::from_millis(50);

impl Users {
    /// Loads a user, or waits for a load in flight.
    ///
    /// A caller with `min_version > 0` must not join a load that started before its call: the load
    /// may return an older version. At the limit of loads every caller waits for the newest one and
    /// starts over, unless it has a `min_version` and that load reached it. A version below
    /// `min_version` is final only if the load read Postgres and started after the call.
    pub(super) async fn load(&self, id: &UserId, min_version: i64, mut mode: LoadMode) -> Result<UserRead, Error> {
        let arrival = self.loads.next();
        let mut floor = if min_version > 0 { arrival } else { 0 };
        loop {
            let waiter = match self.loads.join_or_start(id, floor) {
                JoinOutcome::Joined(waiter) => waiter,
                JoinOutcome::Started(waiter, leader) => {
                    let users = self.clone();
                    self.tasks.spawn(async move { users.run_load(leader, mode).await });
                    waiter
                }
                JoinOutcome::AtCapacity(waiter) => match waiter.wait().await {
                    Ok(read) if min_version > 0 && read.record.version() >= min_version => return Ok(read),
                    _ => continue,
                },
            };
            let number = waiter.number;
            let read = waiter.wait().await?;
            let is_final = read.source == ReadSource::Postgres && number >= arrival;
            if is_final || read.record.version() >= min_version {
                return ensure_min_version(read, min_version);
            }
            (floor, mode) = (number + 1, LoadMode::Overwrite);
        }
    }

    /// Runs a load to its end even if all its waiters left: a lease is always followed by its fill.
    async fn run_load(self, leader: LoadLeader<UserId>, mode: LoadMode) {
        let read = match mode {
            LoadMode::Fill => self.lease_and_fill(&leader).await,
            LoadMode::Overwrite => match self.read_without_lease(&leader).await {
                Ok(read) => {
                    self.apply(leader.key(), &read.record).await;
                    Ok(read)
                }
                Err(fault) => Err(fault),
            },
            LoadMode::Bypass => self.read_without_lease(&leader).await,
        };
        leader.complete(read.map_err(Error::from));
    }

    /// Reads Postgres and fills the cache, or waits for the reader that holds the lease.
    async fn lease_and_fill(&self, leader: &LoadLeader<UserId>) -> Result<UserRead, store::Error> {
        let lease = self.cache.lease(leader.key()).await.inspect(|lease| self.metrics.record_lease(lease));
        let cached = match lease {
            Ok(FillLease::Granted(token)) => return self.read_and_fill(leader, token).await,
            Ok(FillLease::Present(cached)) => Some(cached),
            Ok(FillLease::Taken) => self.await_fill(leader.key(), &leader.filled).await,
            Ok(FillLease::Unreadable) => None,
            Err(error) => {
                self.log_redis_failure(&error);
                None
            }
        };
        match cached.and_then(|cached| self.serve_cached(cached, ReadSource::Redis)) {
            Some(read) => Ok(read),
            None => self.read_without_lease(leader).await,
        }
    }

    /// Reads Postgres under a lease and fills the cache; releases the lease if the read fails.
    ///
    /// An accepted fill proves that no write was applied meanwhile, so no caller gets a record that
    /// was outdated when it joined. After a refused fill Postgres is read once more.
    async fn read_and_fill(&self, leader: &LoadLeader<UserId>, token: FillToken) -> Result<UserRead, store::Error> {
        let id = leader.key();
        let read = self.store.accounts.read(id).await;
        fail::fail_point!("user::before_fill");
        let record = match read {
            Ok(record) => record,
            Err(fault) => {
                if let Err(error) = self.cache.release(id, token).await {
                    self.log_redis_failure(&error);
                }
                return Err(fault);
            }
        };
        match self.cache.fill(id, token, &record).await {
            Ok(FillOutcome::Stored) => Ok(from_postgres(record)),
            Ok(FillOutcome::LeaseLost | FillOutcome::Newer) => self.read_without_lease(leader).await,
            Err(error) => {
                self.log_redis_failure(&error);
                self.read_without_lease(leader).await
            }
        }
    }

    /// Reads Postgres without a lease. Closes the load first, because nothing would detect a
    /// concurrent write; yields before that, so that callers that are ready to run can still join.
    ///
    /// Without Redis, 200 concurrent readers of one user cost 6 to 8 statements, and 40 without the
    /// yield (`without_redis_readers_of_one_user_share_postgres_reads`).
    async fn read_without_lease(&self, leader: &LoadLeader<UserId>) -> Result<UserRead, store::Error> {
        yield_now().await;
        leader.close();
        self.store.accounts.read(leader.key()).await.map(from_postgres)
    }

    /// Waits for another reader's fill, at most for `WaitTimes::fill`; `None` if it does not come
    /// or Redis fails.
    async fn await_fill(&self, id: &UserId, filled: &Notify) -> Option<CachedRecord> {
        let deadline = Instant::now() + self.wait_times.fill;
        let mut pause = if self.local_cache.is_tracking() { POLL_WITH_TRACKING } else { POLL_MIN };
        while Instant::now() < deadline {
            tokio::select! {
                () = filled.notified() => {}
                () = sleep_until(deadline.min(Instant::now() + pause)) => pause *= 2,
            }
            match self.cache.get(id).await {
                Ok((None, _)) => {}
                Ok((cached, _)) => return cached,
                Err(_) => return None,
            }
        }
        None
    }
}
