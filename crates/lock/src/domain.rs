//! Use cases, and the order in which each of them touches Redis and Postgres.
//!
//! Redis keeps the holds and the wait queues; every step there is one script. Postgres keeps the
//! epochs, so that tokens grow even when Redis loses its state; the usual call never reads it.
//!
//! Invariants:
//! - **L1** The tokens of a lock strictly grow in the order of its grants. Redis counts them within
//!   an epoch. Postgres opens each epoch once, above all earlier ones, and no instance works in an
//!   epoch that Postgres does not name (module `epoch`).
//! - **L2** At most one client at a time considers itself the holder. A hold stays in Redis for
//!   longer than its holder's deadline (`grace`), by a logical clock that no jump of the host's
//!   clock speeds up. After Redis lost its holds, nothing is granted for as long as the longest of
//!   them may be held (quarantine). A lease longer than any before is recorded in Postgres before
//!   it is granted.
//! - **L3** The script that frees a lock offers it to the first live waiter in the same step. An
//!   instance that may have missed the notification rechecks its waiters once a second; no other
//!   waiter depends on that recheck.
//! - **L4** An offer is not a hold: it is worth nothing until it is claimed, and an unclaimed one
//!   passes to the next waiter.
//! - **L5** An entry in Redis belongs to one call, named by a random id, until a retry of the
//!   request takes it over. From then on claim and cancel of the older call do nothing. A hold that
//!   was granted to two calls belongs to neither, so that no cancelled call ends the hold of the
//!   other.
//! - **L6** A call leaves nothing behind: state that its caller did not receive is cancelled, at
//!   once or by a task that outlives the call. Anything that could not be cancelled expires. Only
//!   the position of a request that has an id outlives its call, by 2 s and without an offer.
//! - **L7** A reply from Redis is used only in the epoch in which its script was sent.
//! - **L8** Waiters of this instance that Redis lost are queued again, in order of their arrival
//!   here.

mod acquire;
mod epoch;
mod error;
mod upkeep;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{Error, NoEpochCause};

use crate::leases::{self, CancelReply, CancelScope, Leases, RenewReply};
use crate::metrics::Metrics;
use crate::model::{
    AcquireOutcome, AcquireRequest, FencingToken, InstanceId, LeaseId, Lock, LockEpoch, LockName, LockRelease,
    TokenState,
};
use crate::store::Store;
use acquire::AcquireCall;
use epoch::EpochTracker;
use waiters::{LocalWaiters, PendingAcquire};

/// Attempts per script when the epoch changes meanwhile. More than one change in a row is rare;
/// after this many the call fails.
const EPOCH_ATTEMPTS: usize = 3;
/// Attempts to cancel unwanted state. Anything left after that expires with its `ttl` or its wait.
const CANCEL_ATTEMPTS: u32 = 5;
/// Pause after the first failed attempt; it doubles each time. All pauses together outlast a short
/// restart of Redis.
const CANCEL_BACKOFF: Duration = Duration::from_millis(100);
/// Most waiters that GetLock lists.
const WAITERS_SHOWN: usize = 100;

/// The lock service's use cases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LockManager {
    store: Store,
    leases: Arc<Leases>,
    epochs: EpochTracker,
    instance: InstanceId,
    waiters: Arc<LocalWaiters>,
    /// Held by the one task that queues lost waiters again.
    requeue_lock: Arc<tokio::sync::Mutex<()>>,
    draining: CancellationToken,
    metrics: Arc<Metrics>,
    jobs: TaskTracker,
    /// Bounds the background cancellations: no more than calls that may wait.
    cancel_permits: Arc<Semaphore>,
    /// Runtime of the jobs, also of those started by a call that is dropped outside of it.
    runtime: Handle,
}

impl LockManager {
    /// Creates the use cases over one Redis and one store.
    ///
    /// At most `max_waiters` calls wait at a time, and none of them once `draining` is cancelled.
    ///
    /// # Panics
    /// Panics outside of a Tokio runtime.
    pub fn new(
        store: Store,
        leases: Leases,
        default_ttl: Duration,
        max_waiters: usize,
        draining: CancellationToken,
    ) -> Self {
        let (leases, jobs, metrics) = (Arc::new(leases), TaskTracker::new(), Metrics::new());
        Self {
            epochs: EpochTracker::new(
                store.epochs.clone(),
                Arc::clone(&leases),
                default_ttl,
                jobs.clone(),
                Arc::clone(&metrics),
            ),
            store,
            leases,
            instance: InstanceId::random(),
            waiters: Arc::new(LocalWaiters::new(max_waiters, Arc::clone(&metrics))),
            requeue_lock: Arc::default(),
            draining,
            metrics,
            jobs,
            cancel_permits: Arc::new(Semaphore::new(max_waiters)),
            runtime: Handle::current(),
        }
    }

    /// Returns the id of this instance, which names its notification channel.
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Acquires a lock, waits for it, or reports its holder.
    pub async fn acquire(&self, request: AcquireRequest) -> Result<AcquireOutcome, Error> {
        let (arrived, waits) = (request.arrived, request.wait_until.is_some());
        let acquired = match AcquireCall::begin(self, request) {
            Ok(call) => call.run().await,
            Err(error) => Err(error),
        };
        self.metrics.acquired(&acquired, waits.then(|| arrived.elapsed()));
        acquired
    }

    /// Renews a lease for its whole TTL, and returns that TTL.
    pub async fn renew(&self, name: &LockName, lease: &LeaseId, token: FencingToken) -> Result<Duration, Error> {
        if token.epoch() < self.epochs.current().await?.epoch {
            self.metrics.renewed(&RenewReply::Lost);
            return Err(Error::LeaseLost);
        }
        let renew = |epoch| self.leases.renew(epoch, name, lease, token.seq_in(epoch));
        let (_, renewed) = self.in_epoch(Duration::ZERO, renew).await?;
        self.metrics.renewed(&renewed);
        match renewed {
            RenewReply::Renewed(lasts) => Ok(lasts),
            RenewReply::Lost => Err(Error::LeaseLost),
        }
    }

    /// Ends a hold.
    pub async fn release(&self, name: &LockName, lease: &LeaseId, token: FencingToken) -> Result<LockRelease, Error> {
        if token.epoch() < self.epochs.current().await?.epoch {
            return Ok(LockRelease::NotHeld); // the hold ended with its epoch
        }
        let release = |epoch| self.leases.release(epoch, name, lease, token.seq_in(epoch));
        let (_, released) = self.in_epoch(Duration::ZERO, release).await?;
        self.metrics.released(released);
        Ok(released)
    }

    /// Returns the state of a token: current, stale, or not granted yet.
    pub async fn check(&self, name: &LockName, token: FencingToken) -> Result<TokenState, Error> {
        let (epoch, view) = self.in_epoch(Duration::ZERO, |epoch| self.leases.get(epoch, name, 0)).await?;
        Ok(match view.holder {
            Some(holder) if holder.token == token => TokenState::Current(holder.remaining),
            _ if token > view.last_token || view.offered_token == Some(token) || !token.may_exist_by(epoch) => {
                TokenState::Unknown
            }
            _ => TokenState::Stale,
        })
    }

    /// Returns the holder and the first waiters of a lock.
    pub async fn get(&self, name: LockName) -> Result<Lock, Error> {
        let (_, view) = self.in_epoch(Duration::ZERO, |epoch| self.leases.get(epoch, &name, WAITERS_SHOWN)).await?;
        Ok(Lock {
            name,
            holder: view.holder,
            waiters: view.waiters,
            waiter_count: view.waiting,
            quarantine: view.quarantine,
        })
    }

    /// Compares the epoch with Postgres again, which may have lost commits. Does not block.
    pub fn verify_epoch(&self) {
        let _runtime = self.runtime.enter();
        self.epochs.verify();
    }

    /// Waits for the background jobs, then closes all connections.
    pub async fn close(&self) {
        self.jobs.close();
        self.jobs.wait().await;
        self.store.close().await;
    }

    /// Runs a script in the epoch of this instance, after Postgres has recorded that the epoch has
    /// leases of `ttl`. Runs it again in the next epoch if the epoch changed meanwhile, up to
    /// [`EPOCH_ATTEMPTS`] times. Returns the epoch and the reply.
    async fn in_epoch<T, F>(&self, ttl: Duration, script: impl Fn(LockEpoch) -> F) -> Result<(LockEpoch, T), Error>
    where
        F: Future<Output = Result<T, leases::Error>>,
    {
        for _ in 0..EPOCH_ATTEMPTS {
            let adopted = self.epochs.current().await?;
            if !self.epochs.ensure_max_ttl(adopted, ttl).await? {
                continue;
            }
            match script(adopted.epoch).await {
                Err(leases::Error::NoEpoch) => self.epochs.forget(adopted.epoch),
                Err(error) => return Err(error.into()),
                Ok(reply) if self.epochs.has(adopted.epoch) => return Ok((adopted.epoch, reply)),
                Ok(_) => {} // the epoch ended meanwhile: the reply is discarded
            }
        }
        Err(Error::NoEpoch(NoEpochCause::RedisUnavailable))
    }

    /// Cancels what a call has in Redis, under the id of its queue entry or under its own.
    async fn cancel(&self, pending: &PendingAcquire, id: &LeaseId, scope: CancelScope) -> Result<CancelReply, Error> {
        let PendingAcquire { call, request, .. } = pending;
        let request_id = request.key.as_ref().map_or("", |key| key.id.as_str());
        let cancel = |epoch| self.leases.cancel(epoch, &request.name, (id, call), request_id, scope);
        Ok(self.in_epoch(Duration::ZERO, cancel).await?.1)
    }

    /// Cancels like [`cancel`](Self::cancel), with retries, in a job that outlives the call.
    fn cancel_in_background(&self, pending: Arc<PendingAcquire>, queued_id: Option<LeaseId>, scope: CancelScope) {
        let Ok(permit) = Arc::clone(&self.cancel_permits).try_acquire_owned() else {
            tracing::warn!("background cancel skipped: too many in progress; the state expires by itself");
            return;
        };
        let locks = self.clone();
        let job = async move {
            let id = queued_id.as_ref().unwrap_or(&pending.id);
            for attempt in 0..CANCEL_ATTEMPTS {
                if attempt > 0 {
                    sleep(CANCEL_BACKOFF * 2_u32.pow(attempt - 1)).await;
                }
                match locks.cancel(&pending, id, scope).await {
                    Ok(_) => break,
                    Err(error) => tracing::debug!(%error, attempt, "background cancel failed"),
                }
            }
            drop(permit);
        };
        self.jobs.spawn_on(job, &self.runtime);
    }
}
