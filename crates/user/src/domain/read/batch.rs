//! BatchGetUsers: the pipeline of reads in bulk.
//!
//! Each user is looked up by the rules of [`read`](super). A batch sends one MGET, one pipeline of
//! leases, one statement and one pipeline of fills: 3 round trips and 1 statement for 500 cold
//! users (test `calls_cost_the_expected_round_trips_and_statements`), instead of 1,001 round trips
//! and 500 statements of single reads. Therefore it shares no loads with single reads.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

use super::{CacheLookup, LoadMode, LocalLookup, from_postgres};
use crate::cache::{FillLease, FillTarget, FillToken};
use crate::domain::{Error, Users};
use crate::local_cache::InvalidationStamp;
use crate::model::{Consistency, UserId, UserRead, UserRecord};

/// Lowest acceptable version of the users of a batch: any.
const MIN_VERSION: i64 = 0;

/// The users of a batch, by the outcome of their lookups.
#[derive(Debug, Default)]
struct BatchLookup {
    found: BTreeMap<UserId, UserRead>,
    soft_expired: Vec<UserId>,
    /// Users to load and to fill.
    fill: Vec<UserId>,
    /// Users to load only. A batch does not overwrite: a single read or the relay will.
    bypass: Vec<UserId>,
}

impl BatchLookup {
    fn record(&mut self, id: UserId, lookup: CacheLookup) {
        match lookup {
            CacheLookup::Found(read) => drop(self.found.insert(id, read)),
            CacheLookup::SoftExpired(read) => {
                self.soft_expired.push(id.clone());
                self.found.insert(id, read);
            }
            CacheLookup::Load(LoadMode::Fill) => self.fill.push(id),
            CacheLookup::Load(LoadMode::Overwrite | LoadMode::Bypass) => self.bypass.push(id),
        }
    }
}

impl Users {
    /// Reads many users. If Postgres is unavailable, returns the cached users only, marked as
    /// stale, or the error if none is cached.
    pub async fn get_many(
        &self,
        ids: &[UserId],
        consistency: Consistency,
    ) -> Result<BTreeMap<UserId, UserRead>, Error> {
        let ids: BTreeSet<UserId> = ids.iter().cloned().collect();
        let reads = match consistency {
            Consistency::Cached => self.read_many(ids).await?,
            Consistency::Strong => {
                let ids: Vec<UserId> = ids.into_iter().collect();
                all_from_postgres(self.store.accounts.read_many(&ids).await?)
            }
        };
        for read in reads.values() {
            self.metrics.record_read(read);
        }
        Ok(reads)
    }

    /// Looks all users up, and loads those that no cache answers.
    async fn read_many(&self, ids: BTreeSet<UserId>) -> Result<BTreeMap<UserId, UserRead>, Error> {
        let mut batch = BatchLookup::default();
        let (mut unknown, mut stamps) = (Vec::new(), Vec::new());
        for id in ids {
            match self.look_up_locally(&id, MIN_VERSION) {
                LocalLookup::Decided(lookup) => batch.record(id, lookup),
                LocalLookup::AskRedis(stamp) => {
                    unknown.push(id);
                    stamps.push(stamp);
                }
            }
        }
        if !unknown.is_empty() {
            self.look_up_many_in_redis(unknown, stamps, &mut batch).await;
        }
        if !batch.soft_expired.is_empty() {
            self.refresh(take(&mut batch.soft_expired));
        }
        if batch.fill.is_empty() && batch.bypass.is_empty() {
            return Ok(batch.found);
        }
        let users = self.clone();
        self.tasks.run(async move { users.load_many(batch).await }).await
    }

    /// Looks users up in Redis.
    async fn look_up_many_in_redis(
        &self,
        ids: Vec<UserId>,
        stamps: Vec<Option<InvalidationStamp>>,
        batch: &mut BatchLookup,
    ) {
        match self.cache.get_many(&ids).await {
            Ok((values, incarnation)) => {
                for ((id, stamp), value) in ids.into_iter().zip(stamps).zip(values) {
                    let lookup = self.evaluate_reply(&id, MIN_VERSION, value, &incarnation, stamp);
                    batch.record(id, lookup);
                }
            }
            Err(error) => {
                self.log_redis_failure(&error);
                batch.bypass.extend(ids);
            }
        }
    }

    /// Reads the missing users from Postgres, and fills those with a lease. Runs to its end even if
    /// the caller leaves: every lease is followed by its fill or its release.
    async fn load_many(&self, batch: BatchLookup) -> Result<BTreeMap<UserId, UserRead>, Error> {
        let BatchLookup { mut found, fill, bypass, .. } = batch;
        let tokens = self.lease_many(&fill).await;
        let mut missing = fill;
        missing.extend(bypass);
        let records = match self.store.accounts.read_many(&missing).await {
            Ok(records) => records,
            Err(fault) => {
                self.release_many(&tokens).await;
                if found.is_empty() || !fault.is_away() {
                    return Err(fault.into());
                }
                // The cached users are returned, marked as stale.
                for read in found.values_mut() {
                    read.stale = true;
                }
                return Ok(found);
            }
        };
        fail::fail_point!("user::before_fill");
        if let Err(error) = self.cache.fill_many(&fills(&tokens, &records)).await {
            self.log_redis_failure(&error);
        }
        found.extend(all_from_postgres(records));
        Ok(found)
    }

    /// Requests leases to fill the values that Redis does not have.
    async fn lease_many(&self, ids: &[UserId]) -> BTreeMap<UserId, FillToken> {
        if ids.is_empty() {
            return BTreeMap::new();
        }
        let leases = self.cache.lease_many(ids, FillTarget::Missing).await.unwrap_or_else(|error| {
            self.log_redis_failure(&error);
            Vec::new()
        });
        for lease in &leases {
            self.metrics.record_lease(lease);
        }
        granted(ids, leases)
    }

    /// Releases leases whose users could not be read.
    pub(super) async fn release_many(&self, tokens: &BTreeMap<UserId, FillToken>) {
        if let Err(error) = self.cache.release_many(tokens).await {
            self.log_redis_failure(&error);
        }
    }
}

/// Returns the tokens of the granted leases.
pub(super) fn granted(ids: &[UserId], leases: Vec<FillLease>) -> BTreeMap<UserId, FillToken> {
    let token = |(id, lease): (&UserId, FillLease)| match lease {
        FillLease::Granted(token) => Some((id.clone(), token)),
        FillLease::Taken | FillLease::Present(_) | FillLease::Unreadable => None,
    };
    ids.iter().zip(leases).filter_map(token).collect()
}

/// Pairs the records of Postgres with the tokens of their leases.
pub(super) fn fills(
    tokens: &BTreeMap<UserId, FillToken>,
    records: &BTreeMap<UserId, UserRecord>,
) -> Vec<(UserId, FillToken, UserRecord)> {
    tokens.iter().filter_map(|(id, token)| Some((id.clone(), *token, records.get(id)?.clone()))).collect()
}

fn all_from_postgres(records: BTreeMap<UserId, UserRecord>) -> BTreeMap<UserId, UserRead> {
    records.into_iter().map(|(id, record)| (id, from_postgres(record))).collect()
}
