//! One AcquireLock call, from its arrival to its reply.
//!
//! The end of a call cancels every entry in Redis whose result the caller did not receive. The call
//! itself does this, or a background task if the caller disconnected. The position of a waiter with
//! a request id is kept for a moment: a proxy may have ended the call, and its retry is under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::waiters::{PendingAcquire, WaiterEvent, WaiterGuard};
use super::{Error, LockManager};
use crate::leases::{self, AcquireReply, CancelReply, CancelScope, ClaimReply};
use crate::model::{AcquireOutcome, AcquireRequest, CallId, Grant, LeaseId};

/// An AcquireLock call in progress.
pub(super) struct AcquireCall<'a> {
    locks: &'a LockManager,
    pending: Arc<PendingAcquire>,
    /// Registration as a waiter; `None` for a request without a wait.
    guard: Option<WaiterGuard>,
    /// True while Redis may hold state of this call that its caller did not receive.
    needs_cleanup: bool,
}

impl<'a> AcquireCall<'a> {
    /// Registers the call if its request may wait.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too many calls wait at this instance.
    pub(super) fn begin(locks: &'a LockManager, request: AcquireRequest) -> Result<Self, Error> {
        let waits = request.wait_until.is_some();
        let pending = Arc::new(PendingAcquire { call: CallId::random(), id: LeaseId::random(), request });
        let guard = waits.then(|| locks.waiters.register(&pending)).transpose()?;
        Ok(Self { locks, pending, guard, needs_cleanup: false })
    }

    /// Runs the call until it is granted, refused or timed out.
    pub(super) async fn run(mut self) -> Result<AcquireOutcome, Error> {
        self.needs_cleanup = true;
        let result = self.execute().await;
        if let Ok(AcquireOutcome::Granted(_)) = &result {
            fail::fail_point!("lock::granted");
            // Lets tonic drop this future if the caller has disconnected; the drop cancels the
            // grant.
            yield_now().await;
        }
        self.needs_cleanup = match &result {
            Ok(_) => false,
            Err(error) => error.outcome_unknown() || matches!(error, Error::Draining),
        };
        result
    }

    /// Acquires once, then waits if the reply says so. The rare branches are boxed: without that,
    /// each call would be a future of several kilobytes.
    async fn execute(&self) -> Result<AcquireOutcome, Error> {
        let PendingAcquire { call, id, request } = &*self.pending;
        // Waiters that arrived earlier and lost their queue entries go first.
        if self.locks.waiters.any_lost(Some(&request.name)) {
            Box::pin(self.locks.requeue_lost(Some(&request.name))).await?;
        }
        let sent = Instant::now();
        let acquire = async |epoch| {
            let reply = self.locks.leases.acquire(epoch, &self.locks.instance, (id, call), request, sent).await;
            fail::fail_point!("lock::acquired");
            reply
        };
        let (_, reply) = self.locks.in_epoch(request.ttl, acquire).await?;
        match (reply, &self.guard) {
            (AcquireReply::Held { holder, waiting }, None) => Ok(AcquireOutcome::Held { holder, waiting }),
            (AcquireReply::Waiting { id }, Some(guard)) => {
                self.locks.waiters.set_queued(call, id);
                Box::pin(self.wait(guard)).await
            }
            (AcquireReply::Quarantine(_), Some(guard)) => {
                self.locks.waiters.set_lost(call);
                Box::pin(self.wait(guard)).await
            }
            (reply, _) => into_grant(reply, sent - request.arrived).map(AcquireOutcome::Granted),
        }
    }

    /// Waits for an offer, in the queue or until the call is queued again.
    async fn wait(&self, guard: &WaiterGuard) -> Result<AcquireOutcome, Error> {
        let until = self.pending.request.wait_until.unwrap_or(self.pending.request.arrived);
        loop {
            let event = tokio::select! {
                biased;
                event = guard.event() => event,
                () = self.locks.draining.cancelled() => return Err(Error::Draining),
                () = sleep_until(until) => return self.time_out(guard).await,
            };
            let granted = match event {
                WaiterEvent::Offered => self.claim(guard).await?,
                WaiterEvent::Granted(grant) => Some(grant),
                WaiterEvent::Failed(error) => return Err(error),
            };
            if let Some(grant) = granted {
                return Ok(AcquireOutcome::Granted(grant));
            }
        }
    }

    /// Claims an offer. If the outcome stays unknown, the next recheck of the waiters finds it.
    async fn claim(&self, guard: &WaiterGuard) -> Result<Option<Grant>, Error> {
        let Some(id) = guard.queued_id() else { return Ok(None) };
        let PendingAcquire { call, request, .. } = &*self.pending;
        let sent = Instant::now();
        let claim =
            self.locks.in_epoch(Duration::ZERO, |epoch| self.locks.leases.claim(epoch, &request.name, &id, call));
        match claim.await {
            Ok((_, ClaimReply::Claimed { token, lease })) => {
                let waited = sent - request.arrived;
                Ok(Some(Grant { token, lease_id: id, lease, waited, deduplicated: false }))
            }
            Ok((_, ClaimReply::Waiting)) => Ok(None),
            Ok((_, ClaimReply::TakenOver)) => Err(Error::TakenOver),
            Ok((_, ClaimReply::Absent)) => {
                self.locks.waiters.set_lost(call);
                self.locks.waiters.request_recheck();
                Ok(None)
            }
            Err(error) => {
                tracing::debug!(%error, "claim failed; the next recheck tries again");
                Ok(None)
            }
        }
    }

    /// Cancels the queue entry at the end of the wait, and reports its position.
    async fn time_out(&self, guard: &WaiterGuard) -> Result<AcquireOutcome, Error> {
        let queued_id = guard.queued_id();
        match guard.leave() {
            Some(WaiterEvent::Granted(grant)) => return Ok(AcquireOutcome::Granted(grant)),
            Some(WaiterEvent::Failed(error)) => return Err(error),
            Some(WaiterEvent::Offered) | None => {}
        }
        let cancelled = match &queued_id {
            Some(id) => self.locks.cancel(&self.pending, id, CancelScope::All).await.map(Some),
            None => Ok(None), // a requeue may be in progress
        };
        match cancelled {
            Ok(Some(CancelReply::Cancelled { position, holder })) => {
                return Ok(AcquireOutcome::TimedOut { holder, position });
            }
            Ok(Some(CancelReply::Kept | CancelReply::Nothing)) => {}
            Ok(None) | Err(_) => {
                self.locks.cancel_in_background(Arc::clone(&self.pending), queued_id, CancelScope::All);
            }
        }
        Ok(AcquireOutcome::TimedOut { holder: None, position: 0 })
    }
}

impl Drop for AcquireCall<'_> {
    fn drop(&mut self) {
        let queued_id = self.guard.take().and_then(|guard| {
            let queued_id = guard.queued_id();
            guard.leave(); // before the cancel, so that no requeue revives the waiter
            queued_id
        });
        if self.needs_cleanup {
            let named = self.pending.request.key.is_some();
            let scope = if named { CancelScope::KeepPosition } else { CancelScope::All };
            self.locks.cancel_in_background(Arc::clone(&self.pending), queued_id, scope);
        }
    }
}

/// Converts a reply into a grant or an error. `waited` is the time from the request's arrival to
/// the sending of its script.
pub(super) fn into_grant(reply: AcquireReply, waited: Duration) -> Result<Grant, Error> {
    match reply {
        AcquireReply::Granted { id, token, lease, deduplicated } => {
            Ok(Grant { token, lease_id: id, lease, waited, deduplicated })
        }
        AcquireReply::Quarantine(left) => Err(Error::Quarantine(left)),
        AcquireReply::LeaseOver(token) => Err(Error::LeaseOver(token)),
        AcquireReply::TakenOver => Err(Error::TakenOver),
        AcquireReply::Reused => Err(Error::RequestIdReused),
        AcquireReply::QueueFull => Err(Error::QueueFull),
        // A request without a wait is never queued, and one with a wait is never answered with
        // `Held`.
        AcquireReply::Waiting { .. } | AcquireReply::Held { .. } => Err(Error::State(leases::Error::Malformed)),
    }
}
