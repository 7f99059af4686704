//! The use cases and their order of steps.
//!
//! Redis holds who holds and who waits, and each step there is a script. Postgres keeps the epochs, from which tokens grow
//! whatever Redis forgets; the usual call never asks it. These invariants hold:
//! - **L1** the tokens of a lock strictly grow in the order of its grants: within an epoch Redis counts them; an epoch is
//!   opened in Postgres above all that were, once, and nobody works in one that Postgres does not name ([`epoch`]);
//! - **L2** at most one holder believes: a hold stands in Redis for longer than its holder was told (`grace`, by a clock that
//!   no jump of the host's makes go faster); and after Redis lost its holds nobody is granted anything for as long as the
//!   longest of them (quarantine). A longer one than ever is made known to Postgres before it is granted;
//! - **L3** a free lock with a live waiter is offered to the first of them in the step that freed it; whoever may not have heard
//!   of it looks after its place once a second; nobody else depends on that;
//! - **L4** an offer is not a hold: nobody believes in it until it is claimed, and one that is not claimed passes on;
//! - **L5** what a call has in Redis is its own, by a random name, until a repeat of its request takes it over: then the
//!   older call's claim and cancel do nothing. A hold that two calls were told of is neither's, so that no caller who goes
//!   away ends what another believes in;
//! - **L6** a call leaves nothing behind: what its caller did not get is given up, at once or by a task that outlives it; what
//!   that could not, ends by itself;
//! - **L7** an answer of Redis is used only in the epoch in which it was asked for;
//! - **L8** who waits at this instance and lost its place with Redis comes back into the queue in order of arrival here.

mod call;
mod epoch;
mod error;
mod upkeep;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{Error, Missing};

use crate::leases::{self, Cancel, Leases, Release, Renew};
use crate::model::{Acquired, Epoch, InstanceId, LeaseId, Lock, LockName, Token, Wish, Worth};
use crate::numbers::Numbers;
use crate::store::Store;
use call::Call;
use epoch::Epochs;
use waiting::{Asked, Waiting};

/// How often a script is sent again because the epoch had changed meanwhile. More than one change in a row is rare; more than
/// this is no state to work in.
const ROUNDS: usize = 3;
/// How often it is tried to give up what nobody wants. What is left after that ends by itself, within its `ttl` or its wait.
const GIVE_UPS: u32 = 5;
/// The pause after the first try; it doubles with each. All of them outlast a short restart of Redis.
const GIVE_UP_PAUSE: Duration = Duration::from_millis(100);
/// The waiters that GetLock tells of.
const WAITERS_SHOWN: usize = 100;

/// The locks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Locks {
    store: Store,
    leases: Arc<Leases>,
    epochs: Epochs,
    instance: InstanceId,
    waiting: Arc<Waiting>,
    /// One at a time puts waiters back into queues.
    returning: Arc<tokio::sync::Mutex<()>>,
    draining: CancellationToken,
    numbers: Arc<Numbers>,
    jobs: TaskTracker,
    /// Bounds the jobs that give something up: there are no more than calls that may wait.
    giving_up: Arc<Semaphore>,
    /// Where jobs run, also those of a call that is dropped outside.
    runtime: Handle,
}

impl Locks {
    /// The locks of one Redis and one store. At most `max_waiters` calls wait at a time, and none of them once `draining`.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(
        store: Store,
        leases: Leases,
        default_ttl: Duration,
        max_waiters: usize,
        draining: CancellationToken,
    ) -> Self {
        let (leases, jobs, numbers) = (Arc::new(leases), TaskTracker::new(), Numbers::new());
        Self {
            epochs: Epochs::new(
                store.epochs.clone(),
                Arc::clone(&leases),
                default_ttl,
                jobs.clone(),
                Arc::clone(&numbers),
            ),
            store,
            leases,
            instance: InstanceId::random(),
            waiting: Arc::new(Waiting::new(max_waiters, Arc::clone(&numbers))),
            returning: Arc::default(),
            draining,
            numbers,
            jobs,
            giving_up: Arc::new(Semaphore::new(max_waiters)),
            runtime: Handle::current(),
        }
    }

    /// The name of this instance, on whose channel it hears of its calls.
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    /// Acquires a lock, or waits for it, or says who holds it.
    pub async fn acquire(&self, wish: Wish) -> Result<Acquired, Error> {
        let (arrived, waits) = (wish.arrived, wish.until.is_some());
        let acquired = match Call::begin(self, wish) {
            Ok(call) => call.run().await,
            Err(error) => Err(error),
        };
        self.numbers.acquired(&acquired, waits.then(|| arrived.elapsed()));
        acquired
    }

    /// Lets a lease last its whole time again, and says how long that is.
    pub async fn renew(&self, name: &LockName, lease: &LeaseId, token: Token) -> Result<Duration, Error> {
        if token.epoch() < self.epochs.current().await?.epoch {
            self.numbers.renewed(&Renew::Lost);
            return Err(Error::LeaseLost);
        }
        let renew = |epoch| self.leases.renew(epoch, name, lease, token.seq_in(epoch));
        let (_, renewed) = self.in_epoch(Duration::ZERO, renew).await?;
        self.numbers.renewed(&renewed);
        match renewed {
            Renew::Renewed(lasts) => Ok(lasts),
            Renew::Lost => Err(Error::LeaseLost),
        }
    }

    /// Ends a hold. Returns whether there was one to end.
    pub async fn release(&self, name: &LockName, lease: &LeaseId, token: Token) -> Result<bool, Error> {
        if token.epoch() < self.epochs.current().await?.epoch {
            return Ok(false); // it ended with its epoch, whatever Redis says
        }
        let release = |epoch| self.leases.release(epoch, name, lease, token.seq_in(epoch));
        let (_, released) = self.in_epoch(Duration::ZERO, release).await?;
        self.numbers.released(released);
        Ok(released == Release::Released)
    }

    /// Says what a token is worth.
    pub async fn check(&self, name: &LockName, token: Token) -> Result<Worth, Error> {
        let (epoch, view) = self.in_epoch(Duration::ZERO, |epoch| self.leases.look(epoch, name, 0)).await?;
        Ok(match view.holder {
            Some(holder) if holder.token == token => Worth::Current(holder.remaining),
            _ if token > view.last || view.offered == Some(token) || !token.was_possible(epoch) => Worth::Unknown,
            _ => Worth::Stale,
        })
    }

    /// Says who holds a lock and who waits for it.
    pub async fn look(&self, name: LockName) -> Result<Lock, Error> {
        let (_, view) = self.in_epoch(Duration::ZERO, |epoch| self.leases.look(epoch, &name, WAITERS_SHOWN)).await?;
        Ok(Lock {
            name,
            holder: view.holder,
            waiters: view.waiters,
            waiter_count: view.waiting,
            quarantine: view.quarantine,
        })
    }

    /// Waits for what outlives its callers, then closes all connections.
    pub async fn close(&self) {
        self.jobs.close();
        self.jobs.wait().await;
        self.store.close().await;
    }

    /// Runs a script in the epoch of this instance, in which leases of `ttl` are allowed; again if that has changed meanwhile.
    /// Says in which it was.
    async fn in_epoch<T, F>(&self, ttl: Duration, script: impl Fn(Epoch) -> F) -> Result<(Epoch, T), Error>
    where
        F: Future<Output = Result<T, leases::Error>>,
    {
        for _ in 0..ROUNDS {
            let known = self.epochs.current().await?;
            if !self.epochs.allow(known, ttl).await? {
                continue;
            }
            match script(known.epoch).await {
                Err(leases::Error::NoEpoch) => self.epochs.forget(known.epoch),
                Err(error) => return Err(error.into()),
                Ok(answer) if self.epochs.has(known.epoch) => return Ok((known.epoch, answer)),
                Ok(_) => {} // of an epoch that is over
            }
        }
        Err(Error::NoEpoch(Missing::State))
    }

    /// Gives up what a call has in Redis, under the id of its place or under its own.
    async fn leave(&self, asked: &Asked, id: &LeaseId, claimed: bool) -> Result<Cancel, Error> {
        let Asked { call, wish, .. } = asked;
        let request = wish.request.as_ref().map_or("", |request| request.id.as_str());
        let cancel = |epoch| self.leases.cancel(epoch, &wish.name, (id, call), request, claimed);
        Ok(self.in_epoch(Duration::ZERO, cancel).await?.1)
    }

    /// Does the same in a job of its own, with some patience.
    fn give_up(&self, asked: Arc<Asked>, place: Option<LeaseId>, claimed: bool) {
        let Ok(permit) = Arc::clone(&self.giving_up).try_acquire_owned() else {
            tracing::warn!("too much to give up: what is left ends by itself");
            return;
        };
        let locks = self.clone();
        let job = async move {
            let id = place.as_ref().unwrap_or(&asked.id);
            for attempt in 0..GIVE_UPS {
                if attempt > 0 {
                    sleep(GIVE_UP_PAUSE * 2_u32.pow(attempt - 1)).await;
                }
                match locks.leave(&asked, id, claimed).await {
                    Ok(_) => break,
                    Err(error) => tracing::debug!(%error, "not given up yet"),
                }
            }
            drop(permit);
        };
        self.jobs.spawn_on(job, &self.runtime);
    }
}
