//! Reads of users: one pipeline for GetUser and BatchGetUsers.
//!
//! ```text
//! recent writes --- Redis may lack a write of this instance --> load: Overwrite
//!       |
//! local cache ----- at least min_version ---------------------> answer
//!       |
//!     Redis ------- at least min_version ---------------------> answer
//!       |---------- the same, but past its soft TTL ----------> answer, refresh
//!       |---------- below min_version ------------------------> load: Overwrite
//!       |---------- no reply, or not to be served ------------> load: Bypass
//!       `---------- no value ---------------------------------> load: Fill
//!
//! load: Fill ------ lease granted --> Postgres, fill -- stored --> answer
//!       |                                  `---------- refused --> Bypass
//!       |---------- lease taken ----> wait ----------- filled ---> answer
//!       |                              `-------------- not yet --> Bypass
//!       |---------- value present -------------------------------> answer
//!       `---------- no reply, or an unreadable value ------------> Bypass
//! load: Overwrite --> Postgres, apply ---------------------------> answer
//! load: Bypass -----> Postgres ----------------------------------> answer
//! ```
//!
//! - **Lookup**: the steps before a load. This file decides them for one user, and a batch decides
//!   for each of its users in the same way.
//! - **Load**: a read of Postgres in one of three modes ([`load`]). Concurrent calls of GetUser
//!   share it ([`single_flight`]); a batch loads all its users by one statement ([`batch`]).
//! - **Refresh**: a load in the background, while the cached value is served ([`refresh`]).
//!
//! A STRONG read only reads Postgres. The headers of the modules name the number or the test that
//! justifies each mechanism.

mod batch;
mod load;
mod refresh;
mod single_flight;

use std::time::Duration;

pub(super) use single_flight::{InFlightLoads, JoinOutcome};

use super::{Error, Users};
use crate::cache::{CachedRecord, Incarnation};
use crate::local_cache::InvalidationStamp;
use crate::model::{Consistency, ReadSource, UserId, UserRead, UserRecord};

/// Treatment of the cache by a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadMode {
    /// The cache has no value: fill it, under a lease.
    Fill,
    /// The cache has, or may have, a version that is too old: apply the one of Postgres.
    Overwrite,
    /// Redis does not reply, or its value must not be served: only read Postgres.
    Bypass,
}

/// Outcome of the lookup of one user.
#[derive(Debug)]
enum CacheLookup {
    /// A cache answers.
    Found(UserRead),
    /// A cache answers with a value past its soft TTL, which is to be refreshed.
    SoftExpired(UserRead),
    /// Postgres must answer.
    Load(LoadMode),
}

/// Outcome of the lookup in this process.
#[derive(Debug)]
enum LocalLookup {
    /// Redis is not needed.
    Decided(CacheLookup),
    /// Redis is next. The stamp admits its value to the local cache; `None` while that is not used.
    AskRedis(Option<InvalidationStamp>),
}

impl Users {
    /// Reads one user, at `min_version` or above.
    pub async fn get(&self, id: &UserId, min_version: i64, consistency: Consistency) -> Result<UserRead, Error> {
        let read = match consistency {
            Consistency::Cached => self.read(id, min_version).await?,
            Consistency::Strong => ensure_min_version(from_postgres(self.store.accounts.read(id).await?), min_version)?,
        };
        self.metrics.record_read(&read);
        Ok(read)
    }

    /// Looks a user up, and loads it if no cache answers.
    async fn read(&self, id: &UserId, min_version: i64) -> Result<UserRead, Error> {
        let lookup = match self.look_up_locally(id, min_version) {
            LocalLookup::Decided(lookup) => lookup,
            LocalLookup::AskRedis(stamp) => self.look_up_in_redis(id, min_version, stamp).await,
        };
        match lookup {
            CacheLookup::Found(read) => Ok(read),
            CacheLookup::SoftExpired(read) => {
                self.refresh(vec![id.clone()]);
                Ok(read)
            }
            // Boxed, to keep the future of a hit small.
            CacheLookup::Load(mode) => Box::pin(self.load(id, min_version, mode)).await,
        }
    }

    /// Looks a user up in the recent writes and in the local cache.
    fn look_up_locally(&self, id: &UserId, min_version: i64) -> LocalLookup {
        if self.recent_writes.cache_may_be_stale(id) {
            return LocalLookup::Decided(CacheLookup::Load(LoadMode::Overwrite));
        }
        if let Some(cached) = self.local_cache.get(id)
            && cached.record.version() >= min_version
            && let Some(read) = self.serve_cached(cached, ReadSource::LocalCache)
        {
            return LocalLookup::Decided(CacheLookup::Found(read));
        }
        LocalLookup::AskRedis(self.local_cache.stamp(id))
    }

    /// Looks a user up in Redis.
    async fn look_up_in_redis(&self, id: &UserId, min_version: i64, stamp: Option<InvalidationStamp>) -> CacheLookup {
        match self.cache.get(id).await {
            Ok((value, incarnation)) => self.evaluate_reply(id, min_version, value, &incarnation, stamp),
            Err(error) => {
                self.log_redis_failure(&error);
                CacheLookup::Load(LoadMode::Bypass)
            }
        }
    }

    /// Evaluates a reply of Redis, and inserts its value into the local cache.
    fn evaluate_reply(
        &self,
        id: &UserId,
        min_version: i64,
        value: Option<CachedRecord>,
        incarnation: &Incarnation,
        stamp: Option<InvalidationStamp>,
    ) -> CacheLookup {
        let Some(cached) = value else { return CacheLookup::Load(LoadMode::Fill) };
        fail::fail_point!("user::before_local_cache");
        if let Some(stamp) = stamp {
            self.local_cache.insert_if_unchanged(stamp, incarnation, id, &cached);
        }
        if cached.record.version() < min_version {
            return CacheLookup::Load(LoadMode::Overwrite);
        }
        let soft_expired = self.cache.is_soft_expired(&cached);
        match self.serve_cached(cached, ReadSource::Redis) {
            Some(read) if soft_expired => CacheLookup::SoftExpired(read),
            Some(read) => CacheLookup::Found(read),
            None => CacheLookup::Load(LoadMode::Bypass),
        }
    }

    /// Builds the result from a cached record; it is `stale` while Postgres is unavailable.
    ///
    /// A cached absence is then not served: the user may have been created without an apply.
    fn serve_cached(&self, cached: CachedRecord, source: ReadSource) -> Option<UserRead> {
        let stale = !self.store.is_available();
        if stale && matches!(cached.record, UserRecord::Absent { .. }) {
            return None;
        }
        Some(UserRead { age: cached.age(), record: cached.record, source, stale })
    }
}

/// Fails with `VersionAhead` if a present user is below `min_version`; an absent user is returned
/// as is.
pub(super) fn ensure_min_version(read: UserRead, min_version: i64) -> Result<UserRead, Error> {
    match read.record {
        UserRecord::Present(ref user) if user.version < min_version => {
            Err(Error::VersionAhead { version: user.version })
        }
        _ => Ok(read),
    }
}

/// Builds the result from a record of Postgres.
pub(super) fn from_postgres(record: UserRecord) -> UserRead {
    UserRead { record, source: ReadSource::Postgres, age: Duration::ZERO, stale: false }
}
