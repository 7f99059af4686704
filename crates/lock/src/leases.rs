//! Redis: the holds and the wait queues. Each step is one Lua script. Redis has the only copy;
//! after it has lost that, an instance opens another epoch in Postgres.
//!
//! All keys belong to one partition and share the hash tag `{lk00}`. [`KEYS`] and the head of
//! `leases/prelude.lua` describe them. Every script names its caller's epoch and changes nothing in
//! any other epoch.

mod permissions;
mod replies;
mod script_reply;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use tidings_redis::{Call, Lane, Redis, Script, Value, WriteOutcome, millis};
use tokio::time::Instant;

pub use permissions::PERMISSIONS;
pub use replies::{
    AcquireReply, ActivateReply, CancelReply, ClaimReply, EpochReply, LockView, RenewReply, StoredEpoch, SweepReply,
    WaiterStatus,
};
use script_reply::ScriptReply;

use crate::model::{AcquireRequest, CallId, InstanceId, LeaseId, LockEpoch, LockName, LockRelease};

/// Keys of the partition, in the order in which every script declares them.
pub const KEYS: [&str; 8] = ["meta", "holds", "queue", "waiters", "due", "requests", "ended", "instances"];
/// Most waiters that one `recheck` compares: it takes well below a millisecond.
pub const RECHECK_MAX: usize = 500;

/// Builds a script from the shared prelude and its own file. The first line has to hold the flags.
macro_rules! script {
    ($flags:literal, $file:literal) => {
        Script::new(concat!(
            "#!lua",
            $flags,
            "\n",
            include_str!("leases/prelude.lua"),
            "\n",
            include_str!(concat!("leases/", $file, ".lua"))
        ))
    };
}

/// Error of a script call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis is in another epoch or in none; nothing was done.
    #[error("redis is not in this epoch")]
    NoEpoch,
    /// Nothing was done: Redis was unavailable, refused the write, or did not answer a read.
    #[error(transparent)]
    Redis(#[from] tidings_redis::Error),
    /// Write with unknown outcome: the script may have run, or may run yet.
    #[error("outcome unknown: no reply from redis after the script was sent")]
    Unknown(#[source] tidings_redis::Error),
    /// Reply with an unexpected shape.
    #[error("unexpected reply of a script")]
    Malformed,
}

impl Error {
    /// Returns true if the script may have run, or may run yet.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::NoEpoch | Self::Redis(_) => false,
            Self::Unknown(_) | Self::Malformed => true,
        }
    }
}

/// Entries of a call that a cancel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelScope {
    /// The queue entry and the offer; a hold stays.
    Unclaimed,
    /// The queue entry, the offer and the hold.
    All,
    /// The offer and the hold. The queue entry waits 2 s for a retry, without an offer.
    KeepPosition,
}

impl CancelScope {
    fn name(self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::All => "all",
            Self::KeepPosition => "keep",
        }
    }
}

/// Limits of the state in Redis.
#[derive(Clone, Copy, Debug)]
pub struct LockLimits {
    /// Most waiters of one lock.
    pub waiters_per_lock: usize,
    /// Most remembered requests whose hold is over.
    pub ended_requests: usize,
}

impl Default for LockLimits {
    /// Returns the limits that the contract promises.
    fn default() -> Self {
        Self { waiters_per_lock: 10_000, ended_requests: 1_000_000 }
    }
}

/// Scripts over the holds and wait queues of one Redis.
#[derive(Clone)]
pub struct Leases {
    redis: Redis,
    limits: LockLimits,
    /// Names of the keys, and the prefix of the instances' channels.
    names: OnceLock<([String; KEYS.len()], String)>,
    acquire: Script,
    claim: Script,
    cancel: Script,
    release: Script,
    renew: Script,
    sweep: Script,
    recheck: Script,
    get: Script,
    epoch: Script,
    activate: Script,
}

impl Leases {
    /// Creates the scripts for one Redis.
    pub fn new(redis: Redis, limits: LockLimits) -> Self {
        Self {
            redis,
            limits,
            names: OnceLock::new(),
            acquire: script!("", "acquire"),
            claim: script!(" flags=allow-oom", "claim"),
            cancel: script!(" flags=allow-oom", "cancel"),
            release: script!(" flags=allow-oom", "release"),
            renew: script!(" flags=allow-oom", "renew"),
            sweep: script!(" flags=allow-oom", "sweep"),
            recheck: script!(" flags=allow-oom", "recheck"),
            get: script!(" flags=no-writes", "get"),
            epoch: script!(" flags=no-writes", "epoch"),
            activate: script!(" flags=allow-oom", "activate"),
        }
    }

    /// Acquires a lock for a call, or queues it. `now` is the time of sending.
    pub async fn acquire(
        &self,
        epoch: LockEpoch,
        instance: &InstanceId,
        (id, call): (&LeaseId, &CallId),
        request: &AcquireRequest,
        now: Instant,
    ) -> Result<AcquireReply, Error> {
        let mut lane = self.redis.writer(request.name.as_str()).await?;
        let mut invocation = self.prepare_acquire(&lane, epoch, instance, (id, call), request, now);
        invocation.arg(0);
        replies::acquire(epoch, ScriptReply::new(into_result(lane.write(&invocation).await)?)?)
    }

    /// Acquires again for calls whose queue entries were lost with Redis, in their order. One round
    /// trip; if it fails, any of the acquires may have been done.
    pub async fn requeue<'a>(
        &self,
        epoch: LockEpoch,
        instance: &InstanceId,
        requests: impl Iterator<Item = (&'a LeaseId, &'a CallId, &'a AcquireRequest)>,
        now: Instant,
    ) -> Result<Vec<AcquireReply>, Error> {
        let mut lane = self.redis.reader().await?;
        let prepare = |(id, call, request)| {
            let mut invocation = self.prepare_acquire(&lane, epoch, instance, (id, call), request, now);
            invocation.arg(1);
            invocation
        };
        let calls: Vec<_> = requests.map(prepare).collect();
        let replies: Vec<Vec<Value>> = into_result(lane.write_all(&calls).await)?;
        replies.into_iter().map(|reply| replies::acquire(epoch, ScriptReply::new(reply)?)).collect()
    }

    /// Claims the offer that was made to a call.
    pub async fn claim(
        &self,
        epoch: LockEpoch,
        name: &LockName,
        id: &LeaseId,
        call: &CallId,
    ) -> Result<ClaimReply, Error> {
        let mut lane = self.redis.writer(name.as_str()).await?;
        let mut invocation = self.prepare(&self.claim, &lane, epoch);
        invocation.arg(name.as_str()).arg(id.as_str()).arg(call.as_str());
        replies::claim(epoch, ScriptReply::new(into_result(lane.write(&invocation).await)?)?)
    }

    /// Cancels what a call has, as far as `scope` reaches. `request_id` finds an entry that the
    /// call took over under another id.
    pub async fn cancel(
        &self,
        epoch: LockEpoch,
        name: &LockName,
        (id, call): (&LeaseId, &CallId),
        request_id: &str,
        scope: CancelScope,
    ) -> Result<CancelReply, Error> {
        let mut lane = self.redis.writer(name.as_str()).await?;
        let mut invocation = self.prepare(&self.cancel, &lane, epoch);
        invocation.arg(name.as_str()).arg(id.as_str()).arg(call.as_str()).arg(request_id).arg(scope.name());
        replies::cancel(epoch, ScriptReply::new(into_result(lane.write(&invocation).await)?)?)
    }

    /// Ends a hold if lease and sequence number match.
    pub async fn release(
        &self,
        epoch: LockEpoch,
        name: &LockName,
        id: &LeaseId,
        seq: i64,
    ) -> Result<LockRelease, Error> {
        let mut lane = self.redis.writer(name.as_str()).await?;
        let mut invocation = self.prepare(&self.release, &lane, epoch);
        invocation.arg(name.as_str()).arg(id.as_str()).arg(seq);
        replies::release(&ScriptReply::new(into_result(lane.write(&invocation).await)?)?)
    }

    /// Renews a lease for its whole TTL.
    pub async fn renew(&self, epoch: LockEpoch, name: &LockName, id: &LeaseId, seq: i64) -> Result<RenewReply, Error> {
        let mut lane = self.redis.writer(name.as_str()).await?;
        let mut invocation = self.prepare(&self.renew, &lane, epoch);
        invocation.arg(name.as_str()).arg(id.as_str()).arg(seq);
        replies::renew(ScriptReply::new(into_result(lane.write(&invocation).await)?)?)
    }

    /// Ends at most `limit` expired entries, and reports an instance as live.
    pub async fn sweep(&self, epoch: LockEpoch, instance: &InstanceId, limit: usize) -> Result<SweepReply, Error> {
        let mut lane = self.redis.reader().await?;
        let mut invocation = self.prepare(&self.sweep, &lane, epoch);
        invocation.arg(instance.as_str()).arg(limit);
        replies::sweep(ScriptReply::new(into_result(lane.write(&invocation).await)?)?)
    }

    /// Returns the status of at most [`RECHECK_MAX`] waiters, in their order.
    pub async fn recheck<'a>(
        &self,
        epoch: LockEpoch,
        instance: &InstanceId,
        waiters: impl Iterator<Item = (&'a LockName, &'a LeaseId, &'a CallId)>,
    ) -> Result<Vec<WaiterStatus>, Error> {
        let mut lane = self.redis.reader().await?;
        let mut invocation = self.prepare(&self.recheck, &lane, epoch);
        invocation.arg(instance.as_str());
        for (name, id, call) in waiters {
            invocation.arg(name.as_str()).arg(id.as_str()).arg(call.as_str());
        }
        replies::statuses(ScriptReply::new(into_result(lane.write(&invocation).await)?)?)
    }

    /// Reads a lock and the first `limit` of its waiters.
    pub async fn get(&self, epoch: LockEpoch, name: &LockName, limit: usize) -> Result<LockView, Error> {
        let mut lane = self.redis.reader().await?;
        let mut invocation = self.prepare(&self.get, &lane, epoch);
        invocation.arg(name.as_str()).arg(limit);
        replies::lock_view(epoch, ScriptReply::new(lane.read(&invocation).await?)?)
    }

    /// Reads the epoch and the incarnation of Redis, in any epoch.
    pub async fn epoch(&self) -> Result<EpochReply, Error> {
        let mut lane = self.redis.reader().await?;
        let invocation = self.prepare(&self.epoch, &lane, LockEpoch::new(0));
        replies::epoch(lane.read(&invocation).await?)
    }

    /// Begins an epoch, already committed in Postgres, with a quarantine.
    pub async fn activate(
        &self,
        epoch: LockEpoch,
        incarnation: &str,
        quarantine: Duration,
    ) -> Result<ActivateReply, Error> {
        let mut lane = self.redis.reader().await?;
        let mut invocation = self.prepare(&self.activate, &lane, epoch);
        invocation.arg(incarnation).arg(millis(quarantine));
        replies::activate(&ScriptReply::new(into_result(lane.write(&invocation).await)?)?)
    }

    fn prepare_acquire(
        &self,
        lane: &Lane,
        epoch: LockEpoch,
        instance: &InstanceId,
        (id, call): (&LeaseId, &CallId),
        request: &AcquireRequest,
        now: Instant,
    ) -> Call<'_> {
        // At least 1 ms, because 0 means no wait: a call whose wait is over cancels itself.
        let wait = request.wait_until.map_or(0, |until| millis(until - now).max(1));
        let (request_id, fingerprint) =
            request.key.as_ref().map_or(("", &[][..]), |key| (&key.id, &key.fingerprint[..]));
        let mut invocation = self.prepare(&self.acquire, lane, epoch);
        invocation
            .arg(request.name.as_str())
            .arg(id.as_str())
            .arg(call.as_str())
            .arg(instance.as_str())
            .arg(&request.owner);
        invocation.arg(millis(request.ttl)).arg(wait).arg(millis(now - request.arrived));
        invocation.arg(request_id).arg(fingerprint).arg(self.limits.waiters_per_lock);
        invocation
    }

    /// Starts a script call with the arguments that all scripts share.
    fn prepare<'a>(&self, script: &'a Script, lane: &Lane, epoch: LockEpoch) -> Call<'a> {
        let names = || (KEYS.map(|key| lane.key(format_args!("{{lk00}}:{key}"))), lane.channel(format_args!("n:")));
        let (keys, channel_prefix) = self.names.get_or_init(names);
        let mut call = script.prepare_invoke();
        call.key(keys).arg(epoch.get()).arg(channel_prefix).arg(self.limits.ended_requests);
        call
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("redis", &self.redis).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Separates a write that was not done from one with unknown outcome.
fn into_result<T>(written: WriteOutcome<T>) -> Result<T, Error> {
    match written {
        WriteOutcome::Done(reply) => Ok(reply),
        WriteOutcome::NotDone(error) => Err(Error::Redis(error)),
        WriteOutcome::Unknown(error) => Err(Error::Unknown(error)),
    }
}

/// Returns the notification channel of an instance, without the prefix of the service.
pub fn channel(instance: &InstanceId) -> String {
    format!("n:{}", instance.as_str())
}

/// Event that an instance is notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationEvent {
    /// The lock is offered to the call.
    Offered,
    /// A retry took the queue entry over.
    TakenOver,
}

/// Notification about one waiting call of an instance. Delivery is not guaranteed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterNotification {
    /// The event.
    pub event: NotificationEvent,
    /// Id of the call.
    pub call: CallId,
    /// Id of its queue entry.
    pub id: LeaseId,
    /// Name of the lock.
    pub name: LockName,
}

impl WaiterNotification {
    /// Parses a published message: `offer` or `taken`, then call, id and name.
    pub fn read(message: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(message).ok()?.splitn(4, ' ').map(str::to_owned);
        let event = match words.next()?.as_str() {
            "offer" => NotificationEvent::Offered,
            "taken" => NotificationEvent::TakenOver,
            _ => return None,
        };
        let (call, id, name) = (words.next()?, words.next()?, words.next()?);
        Some(Self { event, call: CallId::new(call), id: LeaseId::new(id), name: LockName::new(name) })
    }
}
