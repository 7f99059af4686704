//! Background work of an instance: sweeps, rechecks of its waiters, requeues, and notifications.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::acquire::into_grant;
use super::waiters::{PendingAcquire, WaiterEvent};
use super::{Error, LockManager};
use crate::leases::{
    AcquireReply, CancelReply, CancelScope, NotificationEvent, RECHECK_MAX, WaiterNotification, WaiterStatus,
};
use crate::model::LockName;

/// Most entries that one sweep ends: it takes well below a millisecond, in which Redis runs nothing
/// else.
const SWEEP_MAX: usize = 200;
/// Waiters that are queued again in one round trip.
const REQUEUE_MAX: usize = 50;
/// Longest wait for another requeue to finish, as long as one reply of Redis may take. After that a
/// caller proceeds without a requeue of its own.
const REQUEUE_LOCK_TIMEOUT: Duration = Duration::from_millis(150);
/// Attempts of a fresh start. With the pauses they take two seconds or more, enough for servers
/// that start at the same time as this instance.
const FRESH_START_ATTEMPTS: usize = 20;
/// Pause after each attempt of a fresh start.
const FRESH_START_PAUSE: Duration = Duration::from_millis(100);

impl LockManager {
    /// Ends expired entries in Redis and reports this instance as live. Returns true if more is
    /// due.
    pub async fn sweep(&self) -> Result<bool, Error> {
        let sweep = |epoch| self.leases.sweep(epoch, &self.instance, SWEEP_MAX);
        let (epoch, swept) = self.in_epoch(Duration::ZERO, sweep).await?;
        self.metrics.quarantine(swept.quarantine);
        if swept.quarantine.is_zero() {
            self.epochs.clear_carried_ttl(epoch);
            if self.waiters.any_lost(None) {
                self.waiters.request_recheck();
            }
        }
        Ok(swept.more)
    }

    /// Compares all queued waiters with Redis: notifications and queue entries may have been lost.
    pub async fn recheck(&self) -> Result<(), Error> {
        let queued = self.waiters.queued();
        for chunk in queued.chunks(RECHECK_MAX) {
            let waiters = || chunk.iter().map(|(pending, id)| (&pending.request.name, id, &pending.call));
            let recheck = |epoch| self.leases.recheck(epoch, &self.instance, waiters());
            let (_, statuses) = self.in_epoch(Duration::ZERO, recheck).await?;
            for ((pending, _), status) in chunk.iter().zip(statuses) {
                match status {
                    WaiterStatus::Waiting => {}
                    WaiterStatus::Absent => self.waiters.set_lost(&pending.call),
                    WaiterStatus::Offered => {
                        self.waiters.notify(&pending.call, WaiterEvent::Offered);
                    }
                    WaiterStatus::TakenOver => {
                        self.waiters.notify(&pending.call, WaiterEvent::Failed(Error::TakenOver));
                    }
                }
            }
        }
        self.requeue_lost(None).await
    }

    /// Waits for a requested recheck, for at most `timeout_after`. Returns true if one was
    /// requested.
    pub async fn recheck_requested(&self, timeout_after: Duration) -> bool {
        timeout(timeout_after, self.waiters.recheck_requested()).await.is_ok()
    }

    /// Requests a recheck after a (re)subscription: notifications published before it are lost.
    pub fn on_subscribed(&self) {
        self.waiters.request_recheck();
    }

    /// Finds the epoch before anything is served, given that no client of an earlier run is alive:
    /// an epoch that has to be opened gets no quarantine. Gives up after two seconds or more if a
    /// server is unavailable; the usual quarantine applies then.
    pub async fn start_fresh(&self) {
        for _ in 0..FRESH_START_ATTEMPTS {
            if self.epochs.start_fresh().await {
                return;
            }
            sleep(FRESH_START_PAUSE).await;
        }
        tracing::warn!("fresh start failed: redis or postgres is unavailable; a new epoch begins with a quarantine");
    }

    /// Delivers a notification to its call. An offer to a call that is no longer registered is
    /// declined, so that the next waiter gets it.
    pub fn on_notification(&self, message: &[u8]) {
        let Some(notification) = WaiterNotification::read(message) else {
            tracing::debug!("notification ignored: its format is unknown");
            return;
        };
        match notification.event {
            NotificationEvent::TakenOver => {
                self.waiters.notify(&notification.call, WaiterEvent::Failed(Error::TakenOver));
            }
            NotificationEvent::Offered => {
                if !self.waiters.notify(&notification.call, WaiterEvent::Offered) {
                    self.decline(notification);
                }
            }
        }
    }

    /// Queues lost waiters again, of one lock or of all, in order of their arrival here, and
    /// delivers their grants. They stay lost during a quarantine, and while another requeue takes
    /// longer than [`REQUEUE_LOCK_TIMEOUT`].
    pub(super) async fn requeue_lost(&self, name: Option<&LockName>) -> Result<(), Error> {
        loop {
            let Ok(_guard) = timeout(REQUEUE_LOCK_TIMEOUT, self.requeue_lock.lock()).await else { return Ok(()) };
            let lost = self.waiters.lost(name, REQUEUE_MAX);
            let Some(longest) = lost.iter().map(|pending| pending.request.ttl).max() else { return Ok(()) };
            let requests = || lost.iter().map(|pending| (&pending.id, &pending.call, &pending.request));
            let sent = Instant::now();
            let acquire = |epoch| self.leases.requeue(epoch, &self.instance, requests(), sent);
            let (_, replies) = self.in_epoch(longest, acquire).await?;
            fail::fail_point!("lock::requeued");
            for (pending, reply) in lost.iter().zip(replies) {
                if matches!(reply, AcquireReply::Quarantine(_)) {
                    return Ok(());
                }
                self.apply_requeue_reply(pending, reply, sent);
            }
        }
    }

    /// Applies the reply to one requeued call; cancels the entry if the call is no longer
    /// registered.
    fn apply_requeue_reply(&self, pending: &Arc<PendingAcquire>, reply: AcquireReply, sent: Instant) {
        if let AcquireReply::Waiting { id } = reply {
            // An offer notified before `set_queued` could not be claimed: make the call try now.
            if !self.waiters.set_queued(&pending.call, id.clone())
                || !self.waiters.notify(&pending.call, WaiterEvent::Offered)
            {
                self.cancel_in_background(Arc::clone(pending), Some(id), CancelScope::Unclaimed);
            }
            return;
        }
        let granted = into_grant(reply, sent - pending.request.arrived);
        let lease_id = granted.as_ref().ok().map(|grant| grant.lease_id.clone());
        let delivered =
            self.waiters.finish(&pending.call, granted.map_or_else(WaiterEvent::Failed, WaiterEvent::Granted));
        if lease_id.is_some() && !delivered {
            self.cancel_in_background(Arc::clone(pending), lease_id, CancelScope::All);
        }
    }

    /// Cancels an unwanted offer, so that it need not expire. A hold that was claimed meanwhile
    /// stays.
    fn decline(&self, notification: WaiterNotification) {
        let Ok(permit) = Arc::clone(&self.cancel_permits).try_acquire_owned() else { return };
        let locks = self.clone();
        let job = async move {
            let WaiterNotification { call, id, name, .. } = &notification;
            let cancel = |epoch| locks.leases.cancel(epoch, name, (id, call), "", CancelScope::Unclaimed);
            match locks.in_epoch(Duration::ZERO, cancel).await {
                Ok((_, CancelReply::Cancelled { .. })) => {
                    locks.metrics.declined.increment(1);
                    tracing::debug!("offer declined: its call has ended");
                }
                Ok((_, CancelReply::Kept | CancelReply::Nothing)) => {}
                Err(error) => tracing::debug!(%error, "declining an offer failed; the offer expires by itself"),
            }
            drop(permit);
        };
        self.jobs.spawn_on(job, &self.runtime);
    }
}
