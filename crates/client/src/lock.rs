//! Locks from the holder's side.
//!
//! `acquire` acquires a lock, with retries. A [`LockGuard`] holds it: `renewer` renews its lease,
//! `lease_state` decides if the lease is lost, by the clock in `boot_instant`.

mod acquire;
mod boot_instant;
mod lease_state;
mod renewer;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::Granted;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::acquire::{AcquireOptions, Acquisition};
pub use self::boot_instant::BootInstant;
pub use self::lease_state::Lost;
use self::renewer::Lease;
use crate::error::Error;

/// A held lock, renewed in the background until the guard is dropped.
///
/// The lock is held until [`deadline`](Self::deadline), which each renewal extends. After the
/// deadline the lock counts as lost, also while the service is unavailable or a response is late. A
/// lost lock stays lost.
///
/// Run work that needs the lock inside [`guard`](Self::guard), and send the
/// [`token`](Self::token) with every write. A paused process cannot notice the loss before it
/// resumes; only the resource can refuse the writes that it then sends.
///
/// Dropping the guard releases the lock in the background, on a best-effort basis;
/// [`release`](Self::release) releases it and waits.
#[derive(Debug)]
pub struct LockGuard {
    lease: Arc<Lease>,
    renewer: JoinHandle<()>,
    /// Dropped with the guard, which makes the renewer release the lock.
    _dropped: oneshot::Sender<()>,
}

impl LockGuard {
    /// Starts to renew a granted lease.
    fn new(lease: Lease) -> Self {
        let lease = Arc::new(lease);
        let (sender, dropped) = oneshot::channel();
        let renewer = tokio::spawn(renewer::run(Arc::clone(&lease), dropped));
        Self { lease, renewer, _dropped: sender }
    }

    /// Returns the fencing token. It is larger than that of every earlier hold of this lock.
    pub fn token(&self) -> i64 {
        self.lease.grant.token
    }

    /// Returns the id of the lease. Any client that knows it can release the lock.
    pub fn lease_id(&self) -> &str {
        &self.lease.grant.lease_id
    }

    /// Returns the grant as the service sent it.
    pub fn grant(&self) -> &Granted {
        &self.lease.grant
    }

    /// Returns the end of the lease by this clock, as extended by renewals so far.
    pub fn deadline(&self) -> BootInstant {
        self.lease.state.deadline()
    }

    /// Returns true if the lock is lost.
    pub fn is_lost(&self) -> bool {
        self.lease.state.lost().is_some()
    }

    /// Waits until the lock is lost: the service reports it, or the deadline passes.
    pub async fn lost(&self) -> Lost {
        self.lease.state.until_lost().await
    }

    /// Runs `work` under the lock, and cancels it when the lock is lost.
    ///
    /// # Errors
    /// The cause of the loss. Requests that `work` sent before may still arrive later: the fencing
    /// token protects against them.
    pub async fn guard<F: Future>(&self, work: F) -> Result<F::Output, Lost> {
        tokio::select! {
            biased; // after a pause both may be ready; the loss must win
            lost = self.lost() => Err(lost),
            done = work => Ok(done),
        }
    }

    /// Releases the lock. Returns false if the lock was not held any more.
    ///
    /// # Errors
    /// The lock may still have been released; if not, it is free when its lease expires.
    pub async fn release(self) -> Result<bool, Error> {
        self.renewer.abort();
        self.lease.release(self.lease.patience()).await
    }

    /// Stops renewing the lock without releasing it: it stays held until its lease expires.
    ///
    /// Another process can continue with the lease id and token.
    pub fn detach(self) {
        self.renewer.abort();
    }
}

/// Converts a duration for a request. One that is too long becomes the longest of the contract.
fn to_proto(time: Duration) -> prost_types::Duration {
    time.try_into().unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// Converts a duration of a response. An absent or negative one becomes zero.
fn from_proto(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|time| time.try_into().ok()).unwrap_or_default()
}
