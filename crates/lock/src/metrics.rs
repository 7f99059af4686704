//! Metrics of the lock service, beside those of the server, Redis and Postgres. Handles are looked
//! up once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};

use crate::leases::RenewReply;
use crate::model::{AcquireOutcome, LockEpoch, LockRelease};

/// Handles of all metrics.
pub(crate) struct Metrics {
    granted: Counter,
    deduplicated: Counter,
    held: Counter,
    timed_out: Counter,
    failed: Counter,
    wait: Histogram,
    renewed: Counter,
    lost: Counter,
    released: Counter,
    /// Calls that wait at this instance.
    pub(crate) waiters: Gauge,
    /// Offers declined because their calls had ended.
    pub(crate) declined: Counter,
    /// Epochs opened by this instance.
    pub(crate) opened: Counter,
    epoch: Gauge,
    quarantine: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        describe();
        let acquires = |outcome| counter!("tidings_lock_acquires_total", "outcome" => outcome);
        let renewals = |outcome| counter!("tidings_lock_renewals_total", "outcome" => outcome);
        Arc::new(Self {
            granted: acquires("granted"),
            deduplicated: acquires("repeated"),
            held: acquires("held"),
            timed_out: acquires("timed_out"),
            failed: acquires("failed"),
            wait: histogram!("tidings_lock_wait_seconds"),
            renewed: renewals("renewed"),
            lost: renewals("lost"),
            released: counter!("tidings_lock_releases_total"),
            waiters: gauge!("tidings_lock_waiters"),
            declined: counter!("tidings_lock_offers_declined_total"),
            opened: counter!("tidings_lock_epochs_opened_total"),
            epoch: gauge!("tidings_lock_epoch"),
            quarantine: gauge!("tidings_lock_quarantine_seconds"),
        })
    }

    /// Counts an ended AcquireLock. `waited` is its duration, if the request had a wait.
    pub(crate) fn acquired<E>(&self, outcome: &Result<AcquireOutcome, E>, waited: Option<Duration>) {
        match outcome {
            Ok(AcquireOutcome::Granted(grant)) if grant.deduplicated => self.deduplicated.increment(1),
            Ok(AcquireOutcome::Granted(_)) => self.granted.increment(1),
            Ok(AcquireOutcome::Held { .. }) => self.held.increment(1),
            Ok(AcquireOutcome::TimedOut { .. }) => self.timed_out.increment(1),
            Err(_) => self.failed.increment(1),
        }
        if let Some(waited) = waited {
            self.wait.record(waited);
        }
    }

    /// Counts a renewal.
    pub(crate) fn renewed(&self, outcome: &RenewReply) {
        match outcome {
            RenewReply::Renewed(_) => self.renewed.increment(1),
            RenewReply::Lost => self.lost.increment(1),
        }
    }

    /// Counts a release that ended a hold.
    pub(crate) fn released(&self, outcome: LockRelease) {
        if outcome == LockRelease::Released {
            self.released.increment(1);
        }
    }

    /// Sets the epoch of this instance.
    #[expect(clippy::cast_precision_loss, reason = "epochs are below 2^23")]
    pub(crate) fn entered_epoch(&self, epoch: LockEpoch) {
        self.epoch.set(epoch.get() as f64);
    }

    /// Sets the time left of the quarantine.
    pub(crate) fn quarantine(&self, left: Duration) {
        self.quarantine.set(left);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn describe() {
    describe_counter!(
        "tidings_lock_acquires_total",
        "AcquireLock calls by outcome: granted, repeated (a retry of a granted request), held (by another, without a \
         wait), timed_out, failed."
    );
    describe_histogram!(
        "tidings_lock_wait_seconds",
        Unit::Seconds,
        "Duration of AcquireLock calls with a wait, with any outcome."
    );
    describe_counter!("tidings_lock_renewals_total", "RenewLock calls by outcome: renewed, lost (the lease was over).");
    describe_counter!("tidings_lock_releases_total", "Holds ended by ReleaseLock.");
    describe_gauge!("tidings_lock_waiters", "AcquireLock calls with a wait in progress at this instance.");
    describe_counter!(
        "tidings_lock_offers_declined_total",
        "Offers declined because the waiting call had ended; the next waiter was offered the lock."
    );
    describe_counter!(
        "tidings_lock_epochs_opened_total",
        "Epochs opened by this instance: Redis was empty, or had lost its state."
    );
    describe_gauge!("tidings_lock_epoch", "Current or last epoch of this instance; 0 before the first.");
    describe_gauge!(
        "tidings_lock_quarantine_seconds",
        Unit::Seconds,
        "Time left of the quarantine, in which no lock is granted: leases of an earlier epoch may still be held. 0 \
         without a quarantine."
    );
}
