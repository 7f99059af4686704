//! Metrics of the user service. The handles are looked up once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::cache::FillLease;
use crate::model::{ReadSource, UserRead};

/// Metrics of reads, of the caches and of the relay.
pub(crate) struct Metrics {
    from_local_cache: Counter,
    from_redis: Counter,
    from_postgres: Counter,
    stale: Counter,
    granted: Counter,
    taken: Counter,
    present: Counter,
    unreadable: Counter,
    redis_skipped: Counter,
    refreshed: Counter,
    relayed: Counter,
    local_cache_users: Gauge,
    local_cache_bytes: Gauge,
    outbox_age: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        describe();
        let reads = |source| counter!("tidings_user_reads_total", "source" => source);
        let leases = |outcome| counter!("tidings_user_leases_total", "outcome" => outcome);
        Arc::new(Self {
            from_local_cache: reads("local_cache"),
            from_redis: reads("redis"),
            from_postgres: reads("postgres"),
            stale: counter!("tidings_user_stale_reads_total"),
            granted: leases("granted"),
            taken: leases("taken"),
            present: leases("present"),
            unreadable: leases("unreadable"),
            redis_skipped: counter!("tidings_user_redis_skipped_total"),
            refreshed: counter!("tidings_user_refreshed_total"),
            local_cache_users: gauge!("tidings_user_local_cache_users"),
            local_cache_bytes: gauge!("tidings_user_local_cache_bytes"),
            relayed: counter!("tidings_user_relayed_total"),
            outbox_age: gauge!("tidings_user_outbox_oldest_seconds"),
        })
    }

    /// Counts a read by its source, and also if it is stale.
    pub(crate) fn record_read(&self, read: &UserRead) {
        match read.source {
            ReadSource::LocalCache => self.from_local_cache.increment(1),
            ReadSource::Redis => self.from_redis.increment(1),
            ReadSource::Postgres => self.from_postgres.increment(1),
        }
        if read.stale {
            self.stale.increment(1);
        }
    }

    /// Counts the reply to a request for a fill lease.
    pub(crate) fn record_lease(&self, leased: &FillLease) {
        match leased {
            FillLease::Granted(_) => self.granted.increment(1),
            FillLease::Taken => self.taken.increment(1),
            FillLease::Present(_) => self.present.increment(1),
            FillLease::Unreadable => self.unreadable.increment(1),
        }
    }

    /// Counts a step that continued without Redis.
    pub(crate) fn record_redis_skipped(&self) {
        self.redis_skipped.increment(1);
    }

    /// Counts profiles that were refreshed after their soft TTL.
    pub(crate) fn record_refreshed(&self, users: usize) {
        self.refreshed.increment(users as u64);
    }

    /// Sets the size of the local cache: users and bytes.
    #[expect(clippy::cast_precision_loss, reason = "2^52 bytes are more than there are")]
    pub(crate) fn set_local_cache(&self, (users, bytes): (u64, u64)) {
        self.local_cache_users.set(users as f64);
        self.local_cache_bytes.set(bytes as f64);
    }

    /// Counts outbox rows that the relay has processed.
    pub(crate) fn record_relayed(&self, rows: usize) {
        self.relayed.increment(rows as u64);
    }

    /// Sets the age of the oldest outbox row; `None` if the outbox is empty.
    pub(crate) fn set_outbox_age(&self, age: Option<Duration>) {
        self.outbox_age.set(age.unwrap_or_default());
    }
}

/// Metrics of the streams of WatchUsers.
pub(crate) struct WatchMetrics {
    streams: Gauge,
    ids: Gauge,
    sent: Counter,
    reconciled: Counter,
}

impl WatchMetrics {
    pub(crate) fn new() -> Self {
        describe_watches();
        Self {
            streams: gauge!("tidings_user_watches"),
            ids: gauge!("tidings_user_watched_ids"),
            sent: counter!("tidings_user_versions_sent_total"),
            reconciled: counter!("tidings_user_versions_reconciled_total"),
        }
    }

    /// Sets the number of open streams, and of the ids they watch.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn set_size(&self, (streams, ids): (usize, usize)) {
        self.streams.set(streams as f64);
        self.ids.set(ids as f64);
    }

    /// Counts versions that a stream takes to send.
    pub(crate) fn record_sent(&self, versions: usize) {
        self.sent.increment(versions as u64);
    }

    /// Counts versions that a comparison found before a notification arrived.
    pub(crate) fn record_reconciled(&self, versions: usize) {
        self.reconciled.increment(versions as u64);
    }
}

impl fmt::Debug for WatchMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchMetrics")
    }
}

fn describe_watches() {
    describe_gauge!("tidings_user_watches", "Open streams of WatchUsers on this instance.");
    describe_gauge!("tidings_user_watched_ids", "Ids watched by these streams; an id counts once for each stream.");
    describe_counter!(
        "tidings_user_versions_sent_total",
        "Versions sent on these streams; a version counts once for each stream."
    );
    describe_counter!(
        "tidings_user_versions_reconciled_total",
        "Versions found by a comparison with Postgres before a notification arrived: lost or late notifications from Redis."
    );
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn describe() {
    describe_counter!(
        "tidings_user_reads_total",
        "Users read, by the layer that answered: local_cache and redis are hits. A batch counts each user."
    );
    describe_counter!("tidings_user_stale_reads_total", "Users served from a cache while Postgres was unavailable.");
    describe_counter!(
        "tidings_user_leases_total",
        "Requests for fill leases after a cache miss: granted (this reader fills), taken (another reader fills), present (already filled), unreadable (unknown format)."
    );
    describe_counter!(
        "tidings_user_redis_skipped_total",
        "Steps that continued without Redis because a command failed or was refused."
    );
    describe_counter!(
        "tidings_user_refreshed_total",
        "Cached profiles refreshed in the background after their soft TTL."
    );
    describe_gauge!("tidings_user_local_cache_users", "Approximate number of users in the local cache.");
    describe_gauge!(
        "tidings_user_local_cache_bytes",
        Unit::Bytes,
        "Approximate bytes in the local cache; the limit is --user-local-cache-bytes."
    );
    describe_counter!(
        "tidings_user_relayed_total",
        "Outbox rows relayed: their users are up to date in the Redis cache, or removed from it."
    );
    describe_gauge!(
        "tidings_user_outbox_oldest_seconds",
        Unit::Seconds,
        "Age of the oldest unrelayed outbox row: an upper bound on cache staleness."
    );
}
