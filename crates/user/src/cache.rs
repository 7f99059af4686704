//! Redis: cached profiles, filled under leases.
//!
//! `u:{id}` holds the value (see `cache/value.rs`), `l:{id}` the token of the reader that may fill
//! it, and `h:{handle}` a hint to the owner of a handle (see `cache/hints.rs`). Losing any key at
//! any time costs a miss and nothing else.
//!
//! Every script may run twice or late, so a write without a reply needs no special care: a lease
//! expires, a fill requires its lease, and the relay applies each write that its writer could not.

mod hints;
mod mget_batcher;
pub mod notifications;
mod outcomes;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidings_redis::{
    Args, Call, Lane, OpenError, Permissions, Redis, Script, SourceIncarnation, Tracker, jittered_ttl, millis,
};

pub use outcomes::FillOutcome;
pub use tidings_redis::{Error, Incarnation, TrackingEvent};
pub use value::CachedRecord;

use self::mget_batcher::MgetBatcher;
use self::outcomes::{ApplyOutcome, LeaseReply, ReleaseOutcome, UnlinkOutcome};
use crate::model::{UserId, UserRecord, UserVersion};

/// First part of this service's keys, after the prefix.
pub const SERVICE: &str = "user";

/// Commands of the scripts, of reads and of notifications.
pub const PERMISSIONS: Permissions = Permissions {
    required: &["del K", "get K", "mget K", "publish C message", "subscribe C", "unlink K", "unsubscribe"],
    optional: Some(("client tracking on", "the local cache")),
};

/// First part of the names of all values.
const VALUE_PREFIX: &str = "u:{";

/// TTLs of cached items, before jitter.
#[derive(Clone, Copy, Debug)]
pub struct ProfileTtls {
    /// TTL of a profile.
    pub present: Duration,
    /// Soft TTL of a profile or its absence: beyond it, the value is served while it is refreshed.
    pub soft: Duration,
    /// TTL of the absence of a user, cached as a value.
    pub absent: Duration,
    /// TTL of a fill lease; it has no jitter.
    pub lease: Duration,
}

/// The profiles cached in Redis.
pub struct Cache {
    redis: Redis,
    batcher: MgetBatcher,
    ttls: ProfileTtls,
    lease: Script,
    fill: Script,
    release: Script,
    apply: Script,
    unlink: Script,
    hint: Script,
}

/// Token of a granted lease: its reader may fill one value.
#[derive(Clone, Copy, Debug)]
pub struct FillToken([u8; 16]);

/// Kind of value that a lease is requested for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillTarget {
    /// A value that is missing.
    Missing,
    /// A value that is present or missing: the reader found it past its soft TTL.
    SoftExpired,
}

/// Reply to a request for a fill lease.
#[derive(Debug)]
pub enum FillLease {
    /// Granted: the reader reads Postgres and fills.
    Granted(FillToken),
    /// Another reader holds this lease and is about to fill.
    Taken,
    /// Not needed: the value is present by now.
    Present(CachedRecord),
    /// Not granted: the key holds a value that this release cannot read. It is left as it is.
    Unreadable,
}

/// Subscribes to invalidations of cached values for the lifetime of the returned tracker.
///
/// [`user_id_from_key`] parses the names of the values in the events.
///
/// # Errors
/// The driver's, if the URL cannot be used at all.
pub fn track(
    args: &Args,
    source: SourceIncarnation,
    on_event: impl Fn(TrackingEvent<'_>) + Send + Sync + 'static,
) -> Result<Tracker, OpenError> {
    Tracker::open(args, SERVICE, VALUE_PREFIX, source, on_event)
}

impl Cache {
    /// Creates the cache over a Redis client.
    pub fn new(redis: Redis, ttls: ProfileTtls) -> Self {
        Self {
            batcher: MgetBatcher::new(redis.clone()),
            redis,
            ttls,
            lease: Script::new(include_str!("cache/lease.lua")),
            fill: Script::new(include_str!("cache/fill.lua")),
            release: Script::new(include_str!("cache/release.lua")),
            apply: Script::new(include_str!("cache/apply.lua")),
            unlink: Script::new(include_str!("cache/unlink.lua")),
            hint: Script::new(include_str!("cache/hint.lua")),
        }
    }

    /// Returns the value of one id, and the incarnation that replied. One round trip, shared with
    /// concurrent callers.
    pub async fn get(&self, id: &UserId) -> Result<(Option<CachedRecord>, Incarnation), Error> {
        let (value, incarnation) = self.batcher.get(id).await?;
        Ok((value.and_then(|bytes| value::decode(id, bytes)), incarnation))
    }

    /// Returns the values of many ids in their order, and the incarnation that replied. One round
    /// trip.
    pub async fn get_many(&self, ids: &[UserId]) -> Result<(Vec<Option<CachedRecord>>, Incarnation), Error> {
        let (values, incarnation) = mget_batcher::mget(&self.redis, ids).await?;
        let values = ids.iter().zip(values).map(|(id, value)| value.and_then(|bytes| value::decode(id, bytes)));
        Ok((values.collect(), incarnation))
    }

    /// Requests the lease to fill a missing value. One round trip.
    pub async fn lease(&self, id: &UserId) -> Result<FillLease, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let token = FillToken(rand::random());
        let reply = lane.write(&self.lease_call(&lane, id, token, FillTarget::Missing)).await.assume_idempotent()?;
        Ok(fill_lease(id, token, reply))
    }

    /// Requests leases to fill many values; replies in the order of the ids. One round trip.
    pub async fn lease_many(&self, ids: &[UserId], target: FillTarget) -> Result<Vec<FillLease>, Error> {
        let mut lane = self.redis.reader().await?;
        let tokens: Vec<FillToken> = ids.iter().map(|_| FillToken(rand::random())).collect();
        let calls: Vec<_> =
            ids.iter().zip(&tokens).map(|(id, token)| self.lease_call(&lane, id, *token, target)).collect();
        let replies = lane.write_all(&calls).await.assume_idempotent()?;
        Ok(ids.iter().zip(tokens).zip(replies).map(|((id, token), reply)| fill_lease(id, token, reply)).collect())
    }

    /// Fills one value with a record read from Postgres under its lease. One round trip.
    pub async fn fill(&self, id: &UserId, token: FillToken, record: &UserRecord) -> Result<FillOutcome, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        lane.write(&self.fill_call(&lane, id, token, record)).await.assume_idempotent()
    }

    /// Releases the lease to fill one value. One round trip.
    pub async fn release(&self, id: &UserId, token: FillToken) -> Result<(), Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        let _outcome: ReleaseOutcome = lane.write(&self.release_call(&lane, id, token)).await.assume_idempotent()?;
        Ok(())
    }

    /// Releases the leases to fill many values. One round trip.
    pub async fn release_many(&self, tokens: &BTreeMap<UserId, FillToken>) -> Result<(), Error> {
        if tokens.is_empty() {
            return Ok(()); // do not wait for a lane
        }
        let mut lane = self.redis.reader().await?;
        let calls: Vec<_> = tokens.iter().map(|(id, token)| self.release_call(&lane, id, *token)).collect();
        let _outcomes: Vec<ReleaseOutcome> = lane.write_all(&calls).await.assume_idempotent()?;
        Ok(())
    }

    /// Fills many values. One round trip.
    pub async fn fill_many(&self, fills: &[(UserId, FillToken, UserRecord)]) -> Result<(), Error> {
        if fills.is_empty() {
            return Ok(()); // do not wait for a lane
        }
        let mut lane = self.redis.reader().await?;
        let calls: Vec<_> = fills.iter().map(|(id, token, record)| self.fill_call(&lane, id, *token, record)).collect();
        let _outcomes: Vec<FillOutcome> = lane.write_all(&calls).await.assume_idempotent()?;
        Ok(())
    }

    /// Applies a committed write; returns the incarnation that took it. One round trip. Idempotent,
    /// and safe in any order.
    pub async fn apply(&self, id: &UserId, record: &UserRecord) -> Result<Incarnation, Error> {
        let mut lane = self.redis.writer(id.as_str()).await?;
        match lane.write(&self.apply_call(&lane, id, record)).await.assume_idempotent()? {
            ApplyOutcome::OtherIncarnation => Err(lane.mark_stale()),
            ApplyOutcome::NoValue | ApplyOutcome::Replaced | ApplyOutcome::UpToDate => Ok(lane.incarnation().clone()),
        }
    }

    /// Applies committed writes, except those that `is_applied` reports for the incarnation, then
    /// notifies of all. One round trip.
    pub async fn apply_many<'a>(
        &self,
        writes: impl Iterator<Item = (&'a UserId, &'a UserRecord)>,
        is_applied: impl Fn(&UserId, i64, &Incarnation) -> bool,
    ) -> Result<(), Error> {
        let mut lane = self.redis.reader().await?;
        let writes: Vec<_> = writes.collect();
        if writes.is_empty() {
            return Ok(());
        }
        let pending = writes.iter().filter(|(id, record)| !is_applied(id, record.version(), lane.incarnation()));
        let calls: Vec<_> = pending.map(|(id, record)| self.apply_call(&lane, id, record)).collect();
        let publish = notifications::publish_command(&lane, writes.iter().map(|(id, record)| record.version_of(id)));
        let outcomes: Vec<ApplyOutcome> = lane.write_all_then(&calls, publish).await.assume_idempotent()?;
        if outcomes.contains(&ApplyOutcome::OtherIncarnation) {
            return Err(lane.mark_stale());
        }
        Ok(())
    }

    /// Unlinks the values of users that reached these versions, except those that `is_applied`
    /// reports for the incarnation, then notifies of all. One round trip.
    pub async fn unlink_many(
        &self,
        versions: Vec<UserVersion>,
        is_applied: impl Fn(&UserId, i64, &Incarnation) -> bool,
    ) -> Result<(), Error> {
        let mut lane = self.redis.reader().await?;
        let mut call = self.unlink.arg(lane.incarnation());
        for UserVersion { id, version, .. } in &versions {
            if !is_applied(id, *version, lane.incarnation()) {
                call.key(value_key(&lane, id)).key(lease_key(&lane, id));
            }
        }
        let publish = notifications::publish_command(&lane, versions);
        let outcomes: Vec<UnlinkOutcome> = lane.write_all_then(&[call], publish).await.assume_idempotent()?;
        if outcomes.contains(&UnlinkOutcome::OtherIncarnation) {
            return Err(lane.mark_stale());
        }
        Ok(())
    }

    fn lease_call(&self, lane: &Lane, id: &UserId, token: FillToken, target: FillTarget) -> Call<'_> {
        let mut call = self.lease.prepare_invoke();
        call.key(value_key(lane, id)).key(lease_key(lane, id));
        call.arg(&token.0[..]).arg(millis(self.ttls.lease)).arg(u8::from(target == FillTarget::SoftExpired));
        call
    }

    fn fill_call(&self, lane: &Lane, id: &UserId, token: FillToken, record: &UserRecord) -> Call<'_> {
        let mut call = self.fill.prepare_invoke();
        call.key(value_key(lane, id)).key(lease_key(lane, id)).arg(&token.0[..]);
        call.arg(value::encode(record, SystemTime::now())).arg(self.ttl(record));
        call
    }

    fn release_call(&self, lane: &Lane, id: &UserId, token: FillToken) -> Call<'_> {
        let mut call = self.release.prepare_invoke();
        call.key(lease_key(lane, id)).arg(&token.0[..]);
        call
    }

    fn apply_call(&self, lane: &Lane, id: &UserId, record: &UserRecord) -> Call<'_> {
        let mut call = self.apply.prepare_invoke();
        call.key(value_key(lane, id)).key(lease_key(lane, id));
        call.arg(value::encode(record, SystemTime::now())).arg(self.ttl(record)).arg(lane.incarnation());
        call
    }

    /// Returns true if a value is past its soft TTL. The jitter follows from the time it was read,
    /// so all instances agree.
    pub fn is_soft_expired(&self, cached: &CachedRecord) -> bool {
        let since = cached.read_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        millis(cached.age()) > jittered_ttl(self.ttls.soft, millis(since))
    }

    /// TTL of a record in milliseconds, with jitter.
    fn ttl(&self, record: &UserRecord) -> u64 {
        let ttl = match record {
            UserRecord::Present(_) => self.ttls.present,
            UserRecord::Absent { .. } => self.ttls.absent,
        };
        jittered_ttl(ttl, rand::random())
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("redis", &self.redis).field("ttls", &self.ttls).finish_non_exhaustive()
    }
}

/// Extracts the user id from the name of a value; `None` for any other name.
pub fn user_id_from_key(name: &str) -> Option<UserId> {
    let id = name.strip_prefix(VALUE_PREFIX)?.strip_suffix('}')?;
    Some(UserId::new(id.to_owned()))
}

fn value_key(lane: &Lane, id: &UserId) -> String {
    lane.key(format_args!("u:{{{id}}}"))
}

fn lease_key(lane: &Lane, id: &UserId) -> String {
    lane.key(format_args!("l:{{{id}}}"))
}

fn fill_lease(id: &UserId, token: FillToken, reply: LeaseReply) -> FillLease {
    match reply {
        LeaseReply::Granted => FillLease::Granted(token),
        LeaseReply::Taken => FillLease::Taken,
        LeaseReply::Present(value) => value::decode(id, value).map_or(FillLease::Unreadable, FillLease::Present),
    }
}
