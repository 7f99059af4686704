//! Locks as a holder has them.
//!
//! `acquire` asks for a lock until it is granted or not; what is granted is held by a [`LockGuard`]: `keeper` renews it,
//! `belief` is what its holder may conclude, by the clock in `moment`.

mod acquire;
mod belief;
mod keeper;
mod moment;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::Granted;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::acquire::{AcquireOptions, Acquired};
pub use self::belief::Lost;
use self::keeper::Lease;
pub use self::moment::Moment;
use crate::caller::Error;

/// A hold of a lock, renewed in the background for as long as this lives.
///
/// Its holder may believe in it until [`deadline`](Self::deadline), which each renewal moves on, and no longer: not while the
/// service is away, and not while an answer is late. Once lost it stays lost. Put what must not go on without the lock
/// into [`guard`](Self::guard), and present the [`token`](Self::token) with everything that is done under it: a process that
/// is paused notices nothing until it goes on, and only the resource can refuse what it then still sends.
///
/// Dropping it releases the lock in the background, as far as the service answers; [`release`](Self::release) does so and
/// waits.
#[derive(Debug)]
pub struct LockGuard {
    lease: Arc<Lease>,
    keeper: JoinHandle<()>,
    /// Its end tells the keeper that the guard was dropped.
    _dropped: oneshot::Sender<()>,
}

impl LockGuard {
    /// Begins to hold what was granted.
    fn new(lease: Lease) -> Self {
        let lease = Arc::new(lease);
        let (sender, dropped) = oneshot::channel();
        let keeper = tokio::spawn(keeper::keep(Arc::clone(&lease), dropped));
        Self { lease, keeper, _dropped: sender }
    }

    /// The fencing token: larger than that of every earlier hold of this lock.
    pub fn token(&self) -> i64 {
        self.lease.grant.token
    }

    /// What names the lease to the service. Whoever has it can release the lock.
    pub fn lease_id(&self) -> &str {
        &self.lease.grant.lease_id
    }

    /// What the service answered when it granted the lock.
    pub fn grant(&self) -> &Granted {
        &self.lease.grant
    }

    /// Until when its holder may believe in it, as it stands now.
    pub fn deadline(&self) -> Moment {
        self.lease.belief.deadline()
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        self.lease.belief.lost().is_some()
    }

    /// Waits until it is lost: the service says so, or the deadline has passed by our clock.
    pub async fn lost(&self) -> Lost {
        self.lease.belief.until_lost().await
    }

    /// Runs `work` under the lock, and drops it unfinished when the lock is lost.
    ///
    /// # Errors
    /// How the lock was lost. What the work had sent before may still arrive somewhere: that is what the token is for.
    pub async fn guard<F: Future>(&self, work: F) -> Result<F::Output, Lost> {
        tokio::select! {
            biased; // after a pause of the process both may be ready: the loss comes first
            lost = self.lost() => Err(lost),
            done = work => Ok(done),
        }
    }

    /// Releases the lock. Returns whether it was held until then: if not, it was lost unnoticed.
    ///
    /// # Errors
    /// The lock may have been released nevertheless; if not, it is free when its lease has run out.
    pub async fn release(self) -> Result<bool, Error> {
        self.keeper.abort();
        self.lease.release(self.lease.patience()).await
    }

    /// Stops to renew the lock and leaves it held until its lease has run out, e.g. for another process that goes on with
    /// its lease id and token.
    pub fn leave(self) {
        self.keeper.abort();
    }
}

/// A length of time as the contract has it.
fn wire(time: Duration) -> prost_types::Duration {
    time.try_into().unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A length of time out of an answer; none is none, and so is one that is less.
fn length(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|time| time.try_into().ok()).unwrap_or_default()
}
