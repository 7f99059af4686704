//! What is counted, beside what the server, Redis and Postgres count of themselves. The handles are looked up once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::cache::Leased;
use crate::model::{Read, Source};

/// The numbers of the service.
pub(crate) struct Numbers {
    from_near: Counter,
    from_redis: Counter,
    from_postgres: Counter,
    stale: Counter,
    granted: Counter,
    taken: Counter,
    present: Counter,
    unreadable: Counter,
    without_redis: Counter,
    refreshed: Counter,
    relayed: Counter,
    near_users: Gauge,
    near_bytes: Gauge,
    outbox_age: Gauge,
}

impl Numbers {
    pub(crate) fn new() -> Arc<Self> {
        describe();
        let reads = |source| counter!("tidings_user_reads_total", "source" => source);
        let leases = |outcome| counter!("tidings_user_leases_total", "outcome" => outcome);
        Arc::new(Self {
            from_near: reads("near"),
            from_redis: reads("redis"),
            from_postgres: reads("postgres"),
            stale: counter!("tidings_user_stale_reads_total"),
            granted: leases("granted"),
            taken: leases("taken"),
            present: leases("present"),
            unreadable: leases("unreadable"),
            without_redis: counter!("tidings_user_without_redis_total"),
            refreshed: counter!("tidings_user_refreshed_total"),
            near_users: gauge!("tidings_user_near_users"),
            near_bytes: gauge!("tidings_user_near_bytes"),
            relayed: counter!("tidings_user_relayed_total"),
            outbox_age: gauge!("tidings_user_outbox_oldest_seconds"),
        })
    }

    /// A user was read.
    pub(crate) fn read(&self, read: &Read) {
        match read.source {
            Source::Near => self.from_near.increment(1),
            Source::Redis => self.from_redis.increment(1),
            Source::Postgres => self.from_postgres.increment(1),
        }
        if read.stale {
            self.stale.increment(1);
        }
    }

    /// The right to fill was asked for.
    pub(crate) fn leased(&self, leased: &Leased) {
        match leased {
            Leased::Granted(_) => self.granted.increment(1),
            Leased::Taken(_) => self.taken.increment(1),
            Leased::Present(_) => self.present.increment(1),
            Leased::Unreadable => self.unreadable.increment(1),
        }
    }

    /// A step went on without Redis.
    pub(crate) fn without_redis(&self) {
        self.without_redis.increment(1);
    }

    /// So many old profiles were read anew.
    pub(crate) fn refreshed(&self, users: usize) {
        self.refreshed.increment(users as u64);
    }

    /// So much is in the memory of this instance.
    #[expect(clippy::cast_precision_loss, reason = "2^52 bytes are more than there are")]
    pub(crate) fn near(&self, (users, bytes): (u64, u64)) {
        self.near_users.set(users as f64);
        self.near_bytes.set(bytes as f64);
    }

    /// The relay has told the cache of what so many rows of the outbox said.
    pub(crate) fn relayed(&self, rows: usize) {
        self.relayed.increment(rows as u64);
    }

    /// The oldest row of the outbox has waited so long; nothing if there is none.
    pub(crate) fn waits(&self, age: Option<Duration>) {
        self.outbox_age.set(age.unwrap_or_default());
    }
}

/// The numbers of the streams of versions.
pub(crate) struct WatchNumbers {
    streams: Gauge,
    ids: Gauge,
    told: Counter,
    found: Counter,
}

impl WatchNumbers {
    pub(crate) fn new() -> Self {
        describe_watches();
        Self {
            streams: gauge!("tidings_user_watches"),
            ids: gauge!("tidings_user_watched_ids"),
            told: counter!("tidings_user_versions_told_total"),
            found: counter!("tidings_user_versions_found_total"),
        }
    }

    /// So many streams watch so many ids.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(crate) fn size(&self, (streams, ids): (usize, usize)) {
        self.streams.set(streams as f64);
        self.ids.set(ids as f64);
    }

    /// A stream is told so many versions.
    pub(crate) fn told(&self, versions: usize) {
        self.told.increment(versions as u64);
    }

    /// A comparison has found so many versions of which nothing was heard.
    pub(crate) fn found(&self, versions: usize) {
        self.found.increment(versions as u64);
    }
}

impl fmt::Debug for WatchNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchNumbers")
    }
}

fn describe_watches() {
    describe_gauge!("tidings_user_watches", "Streams of WatchUsers of this instance.");
    describe_gauge!("tidings_user_watched_ids", "Ids that these streams watch, each stream's counted for itself.");
    describe_counter!("tidings_user_versions_told_total", "Versions that these streams were told, each for itself.");
    describe_counter!(
        "tidings_user_versions_found_total",
        "Versions that a comparison with Postgres found before anybody told of them, each once: news from Redis that were lost."
    );
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

fn describe() {
    describe_counter!(
        "tidings_user_reads_total",
        "Users that were read, each of a batch for itself, by the layer that answered: near and redis are hits."
    );
    describe_counter!("tidings_user_stale_reads_total", "Users that were read from the cache while Postgres was away.");
    describe_counter!(
        "tidings_user_leases_total",
        "Misses of the cache: granted (this reader fills), taken (another does), present (another just has), unreadable."
    );
    describe_counter!(
        "tidings_user_without_redis_total",
        "Steps that went on without Redis, because it did not do them."
    );
    describe_counter!(
        "tidings_user_refreshed_total",
        "Old profiles in Redis that were read anew, while they were still answered."
    );
    describe_gauge!("tidings_user_near_users", "Users in the memory of this instance, about.");
    describe_gauge!(
        "tidings_user_near_bytes",
        Unit::Bytes,
        "Bytes that they take, about; never more than --user-near-bytes."
    );
    describe_counter!("tidings_user_relayed_total", "Rows of the outbox whose users the relay has told the cache of.");
    describe_gauge!(
        "tidings_user_outbox_oldest_seconds",
        Unit::Seconds,
        "How long the oldest row of the outbox has waited: as old may be what the cache answers."
    );
}
