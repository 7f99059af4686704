//! Renews a lease until its guard is dropped, then releases it.

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::Granted;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::release_lock_response::Outcome;
use tidings_proto::lock::{ReleaseLockRequest, RenewLockRequest};
use tidings_status::Failure;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tonic::Request;

use super::belief::{Belief, Lost};
use super::length;
use super::moment::Moment;
use crate::attempt::within;
use crate::caller::{Caller, Error};

/// A lease: what names it in requests, whom they are sent to, and what its holder may believe.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) caller: Caller,
    pub(super) name: String,
    pub(super) ttl: Duration,
    pub(super) grant: Granted,
    pub(super) belief: Belief,
}

/// Keeps a lease until its guard is dropped.
pub(super) async fn keep(lease: Arc<Lease>, mut dropped: oneshot::Receiver<()>) {
    let lost = tokio::select! {
        _ = &mut dropped => None,
        lost = lease.renew_until_lost() => Some(lost),
    };
    if lost.is_some() {
        let _ = dropped.await;
    }
    // Also of a lease that has expired: a renewal whose answer was lost may have been done.
    if lost != Some(Lost::Over) {
        // If nobody hears it, the lease runs out by itself: to go on for longer than that is of no use.
        let _ = lease.release(lease.ttl.min(lease.patience())).await;
    }
}

impl Lease {
    /// How long a call may go on failing.
    pub(super) fn patience(&self) -> Duration {
        self.caller.policy().patience
    }

    /// Renews it whenever a third of it has passed. What fails is tried again until the deadline, whatever the budget: one
    /// lease is no load, and a holder that loses its lock is.
    async fn renew_until_lost(&self) -> Lost {
        let renewals = async {
            loop {
                sleep(self.belief.deadline().remaining().saturating_sub(self.ttl * 2 / 3)).await;
                while let Err(error) = self.renew().await {
                    if error.refused().is_some_and(|failure| failure.reason == "LEASE_LOST") {
                        self.belief.over();
                    }
                    sleep(self.attempt()).await;
                }
            }
        };
        tokio::select! {
            lost = self.belief.until_lost() => lost,
            never = renewals => never,
        }
    }

    /// Renews it once, at one instance or the other.
    async fn renew(&self) -> Result<(), Error> {
        let limit = self.attempt();
        let mut tries = self.caller.tries("RenewLock", self.belief.deadline().remaining(), None);
        loop {
            let (name, lease_id, token) = self.named();
            let mut request = Request::new(RenewLockRequest { name, lease_id, token });
            request.set_timeout(limit);
            tries.endpoint.authorize(&mut request);
            let mut service = LockServiceClient::new(tries.endpoint.channel());
            // Before it is sent: the lease can not end earlier at the service than by this clock.
            let sent = Moment::now();
            match within(limit, service.renew_lock(request)).await {
                Ok(answer) => {
                    tries.answered();
                    self.belief.renewed(sent + length(answer.into_inner().lease));
                    return Ok(());
                }
                Err(status) => {
                    self.belief.not_renewed(Failure::from(&status).to_string());
                    tries.failed(&status).await?;
                }
            }
        }
    }

    fn named(&self) -> (String, String, i64) {
        (self.name.clone(), self.grant.lease_id.clone(), self.grant.token)
    }

    /// How long one attempt to renew it may take: four of them fit between the first and the deadline, so that an instance
    /// that hangs does not cost the lease.
    fn attempt(&self) -> Duration {
        self.caller.policy().timeout.min(self.ttl / 6)
    }

    /// Releases it. Returns whether it was held.
    pub(super) async fn release(&self, patience: Duration) -> Result<bool, Error> {
        let limit = self.caller.policy().timeout;
        let mut tries = self.caller.tries("ReleaseLock", patience, None);
        loop {
            let (name, lease_id, token) = self.named();
            let mut request = Request::new(ReleaseLockRequest { name, lease_id, token });
            request.set_timeout(limit);
            tries.endpoint.authorize(&mut request);
            match within(limit, LockServiceClient::new(tries.endpoint.channel()).release_lock(request)).await {
                Ok(answer) => {
                    tries.answered();
                    return Ok(answer.into_inner().outcome() == Outcome::Released);
                }
                Err(status) => tries.failed(&status).await?,
            }
        }
    }
}
