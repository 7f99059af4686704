//! Metrics of the service, in addition to those of the server, Redis and Postgres. The handles are
//! looked up once.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::model::{AppendOutcome, MessagePage, ReadSource};
use crate::store::Backlog;

/// Handles of the metrics of the service.
pub(crate) struct Metrics {
    from_redis: Counter,
    from_postgres: Counter,
    stale: Counter,
    new: Counter,
    duplicate: Counter,
    refused: Counter,
    redis_skipped: Counter,
    /// Tails that lacked committed messages and got them from the relay.
    pub(crate) repairs: Counter,
    published: Counter,
    /// Outbox rows that broadcast refused; one row counts once per refusal.
    pub(crate) refusals: Counter,
    shards: Gauge,
    rows: Gauge,
    parked: Gauge,
    oldest: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        describe();
        let reads = |source| counter!("tidings_history_reads_total", "source" => source);
        let appends = |outcome| counter!("tidings_history_appends_total", "outcome" => outcome);
        Arc::new(Self {
            from_redis: reads("redis"),
            from_postgres: reads("postgres"),
            stale: counter!("tidings_history_stale_reads_total"),
            new: appends("new"),
            duplicate: appends("repeated"),
            refused: appends("refused"),
            redis_skipped: counter!("tidings_history_redis_skipped_total"),
            repairs: counter!("tidings_history_relay_tail_repairs_total"),
            published: counter!("tidings_history_relay_published_messages_total"),
            refusals: counter!("tidings_history_relay_refusals_total"),
            shards: gauge!("tidings_history_relay_shards"),
            rows: gauge!("tidings_history_outbox_rows"),
            parked: gauge!("tidings_history_outbox_parked_rows"),
            oldest: gauge!("tidings_history_outbox_oldest_seconds"),
        })
    }

    /// Counts a page by the layer that answered.
    pub(crate) fn record_page(&self, page: &MessagePage) {
        match page.source {
            ReadSource::Redis => self.from_redis.increment(1),
            ReadSource::Postgres => self.from_postgres.increment(1),
        }
        if page.stale {
            self.stale.increment(1);
        }
    }

    /// Counts an append by its outcome.
    pub(crate) fn record_append(&self, outcome: &AppendOutcome) {
        match outcome {
            AppendOutcome::Done { deduplicated: false, .. } => self.new.increment(1),
            AppendOutcome::Done { deduplicated: true, .. } => self.duplicate.increment(1),
            AppendOutcome::NoConversation | AppendOutcome::KeyReused { .. } | AppendOutcome::NoReplyTarget { .. } => {
                self.refused.increment(1);
            }
        }
    }

    /// Counts a step that continued without Redis.
    pub(crate) fn record_redis_skip(&self) {
        self.redis_skipped.increment(1);
    }

    /// Counts messages that broadcast accepted.
    pub(crate) fn record_published(&self, messages: usize) {
        self.published.increment(messages as u64);
    }

    /// Sets the number of shards that this instance has leased.
    pub(crate) fn set_leased_shards(&self, shards: usize) {
        self.shards.set(u32::try_from(shards).unwrap_or(u32::MAX));
    }

    /// Sets the size and age of the outbox, over all shards.
    pub(crate) fn set_backlog(&self, backlog: &Backlog) {
        #[expect(clippy::cast_precision_loss, reason = "at most 100,000 are counted")]
        let count = |rows: i64| rows as f64;
        self.rows.set(count(backlog.rows));
        self.parked.set(count(backlog.parked));
        self.oldest.set(backlog.age);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn describe() {
    describe_counter!(
        "tidings_history_reads_total",
        "Pages read, by the layer that answered: redis is a hit in a tail."
    );
    describe_counter!("tidings_history_stale_reads_total", "Pages read from a tail while Postgres was unavailable.");
    describe_counter!(
        "tidings_history_appends_total",
        "Appends, with each message of a batch counted: new, repeated (an earlier append stored it), refused."
    );
    describe_counter!(
        "tidings_history_redis_skipped_total",
        "Steps that continued without Redis, because it did not answer or refused the command."
    );
    describe_counter!(
        "tidings_history_relay_tail_repairs_total",
        "Tails that lacked committed messages and got them from the relay."
    );
    describe_counter!(
        "tidings_history_relay_published_messages_total",
        "Messages from this instance that broadcast accepted, including those it had already."
    );
    describe_counter!("tidings_history_relay_refusals_total", "Refusals of outbox rows by broadcast.");
    describe_gauge!("tidings_history_relay_shards", "Outbox shards that this instance relays, of 16.");
    describe_gauge!(
        "tidings_history_outbox_rows",
        "Outbox rows that wait to be relayed, in all shards; at most 100,000 are counted."
    );
    describe_gauge!(
        "tidings_history_outbox_parked_rows",
        "Parked outbox rows: broadcast refused them too often. They are not published until an operator unparks them."
    );
    describe_gauge!(
        "tidings_history_outbox_oldest_seconds",
        Unit::Seconds,
        "Age of the oldest outbox row that waits to be relayed: the delay of pushes."
    );
}
