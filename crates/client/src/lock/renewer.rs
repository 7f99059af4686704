//! Renews a lease until its guard is dropped, then releases it.

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::Granted;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_proto::lock::release_lock_response::Outcome;
use tidings_proto::lock::{ErrorReason, ReleaseLockRequest, RenewLockRequest};
use tidings_status::Failure;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tonic::Request;

use super::boot_instant::BootInstant;
use super::from_proto;
use super::lease_state::{LeaseState, Lost};
use crate::attempt::with_timeout;
use crate::caller::Caller;
use crate::channel_pools::CallClass;
use crate::error::Error;

/// A granted lease, the service that holds it, and its state at this client.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) caller: Caller,
    pub(super) name: String,
    pub(super) ttl: Duration,
    pub(super) grant: Granted,
    pub(super) state: LeaseState,
}

/// Renews a lease until its guard is dropped or the lease is lost; releases it after the drop.
pub(super) async fn run(lease: Arc<Lease>, mut dropped: oneshot::Receiver<()>) {
    let lost = tokio::select! {
        _ = &mut dropped => None,
        lost = lease.renew_until_lost() => Some(lost),
    };
    if lost.is_some() {
        let _ = dropped.await;
    }
    // An expired lease is released too: a renewal whose response was lost may have extended it.
    if lost != Some(Lost::Ended) {
        // The lease expires by itself, so retrying for longer than its duration is useless.
        let _ = lease.release(lease.ttl.min(lease.patience())).await;
    }
}

impl Lease {
    /// Returns the patience of calls.
    pub(super) fn patience(&self) -> Duration {
        self.caller.policy().patience
    }

    /// Renews the lease whenever a third of it has passed.
    ///
    /// A failed renewal is retried until the deadline without a retry budget: the load of one lease
    /// is small, and losing it costs more.
    async fn renew_until_lost(&self) -> Lost {
        let renewals = async {
            loop {
                sleep(self.state.deadline().remaining().saturating_sub(self.ttl * 2 / 3)).await;
                while let Err(error) = self.renew().await {
                    if error.has_reason(ErrorReason::LeaseLost.text()) {
                        self.state.mark_ended();
                    }
                    sleep(self.attempt_timeout()).await;
                }
            }
        };
        tokio::select! {
            lost = self.state.until_lost() => lost,
            never = renewals => never,
        }
    }

    /// Renews the lease once; each retry goes to another instance, if any.
    async fn renew(&self) -> Result<(), Error> {
        let limit = self.attempt_timeout();
        let mut call = self.caller.start_call("RenewLock", self.state.deadline().remaining(), None);
        loop {
            let (name, lease_id, token) = self.identity();
            let mut request = Request::new(RenewLockRequest { name, lease_id, token });
            request.set_timeout(limit);
            call.endpoint.authorize(&mut request);
            let slot = call.endpoint.channel_for(CallClass::Short);
            let mut service = LockServiceClient::new(slot.channel());
            // Taken before sending, so the lease ends here no later than at the service.
            let sent = BootInstant::now();
            match with_timeout(limit, service.renew_lock(request)).await {
                Ok(response) => {
                    call.succeeded();
                    self.state.renewed(sent + from_proto(response.into_inner().lease));
                    return Ok(());
                }
                Err(status) => {
                    self.state.not_renewed(Failure::from(&status).to_string());
                    call.retry_if_transient(&status).await?;
                }
            }
        }
    }

    /// Returns lock name, lease id and token, as requests carry them.
    fn identity(&self) -> (String, String, i64) {
        (self.name.clone(), self.grant.lease_id.clone(), self.grant.token)
    }

    /// Returns the timeout of one attempt to renew.
    ///
    /// Four attempts fit between the first one and the deadline, so that one hanging instance does
    /// not cost the lease.
    fn attempt_timeout(&self) -> Duration {
        self.caller.policy().timeout.min(self.ttl / 6)
    }

    /// Releases the lease. Returns false if it was not held any more.
    pub(super) async fn release(&self, patience: Duration) -> Result<bool, Error> {
        let limit = self.caller.policy().timeout;
        let mut call = self.caller.start_call("ReleaseLock", patience, None);
        loop {
            let (name, lease_id, token) = self.identity();
            let mut request = Request::new(ReleaseLockRequest { name, lease_id, token });
            request.set_timeout(limit);
            call.endpoint.authorize(&mut request);
            let slot = call.endpoint.channel_for(CallClass::Short);
            match with_timeout(limit, LockServiceClient::new(slot.channel()).release_lock(request)).await {
                Ok(response) => {
                    call.succeeded();
                    return Ok(response.into_inner().outcome() == Outcome::Released);
                }
                Err(status) => call.retry_if_transient(&status).await?,
            }
        }
    }
}
