//! What is counted, beside what the server, Redis and Postgres count of themselves. The handles are looked up once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};

use crate::leases::{Release, Renew};
use crate::model::{Acquired, Epoch};

/// The numbers of the service.
pub(crate) struct Numbers {
    granted: Counter,
    repeated: Counter,
    held: Counter,
    timed_out: Counter,
    failed: Counter,
    wait: Histogram,
    renewed: Counter,
    lost: Counter,
    released: Counter,
    /// Calls that wait at this instance.
    pub(crate) waiters: Gauge,
    /// Offers to calls that had gone.
    pub(crate) declined: Counter,
    /// Epochs that this instance has opened.
    pub(crate) opened: Counter,
    epoch: Gauge,
    quarantine: Gauge,
}

impl Numbers {
    pub(crate) fn new() -> Arc<Self> {
        describe();
        let acquires = |outcome| counter!("tidings_lock_acquires_total", "outcome" => outcome);
        let renewals = |outcome| counter!("tidings_lock_renewals_total", "outcome" => outcome);
        Arc::new(Self {
            granted: acquires("granted"),
            repeated: acquires("repeated"),
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

    /// A call that wanted a lock has ended; `waited` is how long it was here, if it was ready to wait.
    pub(crate) fn acquired<E>(&self, outcome: &Result<Acquired, E>, waited: Option<Duration>) {
        match outcome {
            Ok(Acquired::Granted(grant)) if grant.deduplicated => self.repeated.increment(1),
            Ok(Acquired::Granted(_)) => self.granted.increment(1),
            Ok(Acquired::Held { .. }) => self.held.increment(1),
            Ok(Acquired::TimedOut { .. }) => self.timed_out.increment(1),
            Err(_) => self.failed.increment(1),
        }
        if let Some(waited) = waited {
            self.wait.record(waited);
        }
    }

    /// A lease was to last its whole time again.
    pub(crate) fn renewed(&self, outcome: &Renew) {
        match outcome {
            Renew::Renewed(_) => self.renewed.increment(1),
            Renew::Lost => self.lost.increment(1),
        }
    }

    /// A hold was to end.
    pub(crate) fn released(&self, outcome: Release) {
        if outcome == Release::Released {
            self.released.increment(1);
        }
    }

    /// This instance is in an epoch.
    #[expect(clippy::cast_precision_loss, reason = "epochs are below 2^23")]
    pub(crate) fn is_in(&self, epoch: Epoch) {
        self.epoch.set(epoch.get() as f64);
    }

    /// So long nobody is granted anything.
    pub(crate) fn quarantine(&self, left: Duration) {
        self.quarantine.set(left);
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

fn describe() {
    describe_counter!(
        "tidings_lock_acquires_total",
        "Calls that wanted a lock: granted, repeated (an earlier call had been granted it), held (by another, and the caller \
         did not wait), timed_out, failed."
    );
    describe_histogram!(
        "tidings_lock_wait_seconds",
        Unit::Seconds,
        "Time that calls were here that were ready to wait, whatever they came to."
    );
    describe_counter!("tidings_lock_renewals_total", "Leases that were to last longer: renewed, lost.");
    describe_counter!("tidings_lock_releases_total", "Holds that were ended by their holders.");
    describe_gauge!("tidings_lock_waiters", "Calls that wait at this instance, or are ready to.");
    describe_counter!(
        "tidings_lock_offers_declined_total",
        "Offers to calls that had gone; the next in the queue had them."
    );
    describe_counter!(
        "tidings_lock_epochs_opened_total",
        "Epochs that this instance has opened: each time, Redis had lost all holds, or had never had any."
    );
    describe_gauge!("tidings_lock_epoch", "The epoch that this instance is or was last in, 0 before the first.");
    describe_gauge!(
        "tidings_lock_quarantine_seconds",
        Unit::Seconds,
        "How long nobody will be granted anything, because leases of an earlier epoch may be believed in; 0 as a rule."
    );
}
