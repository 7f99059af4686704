//! What is counted, beside what the server, Redis and Postgres count of themselves. The handles are looked up once.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::model::{Appended, Page, Source};
use crate::store::Backlog;

/// The numbers of the service.
pub(crate) struct Numbers {
    from_redis: Counter,
    from_postgres: Counter,
    stale: Counter,
    new: Counter,
    repeated: Counter,
    refused: Counter,
    without_redis: Counter,
    /// Tails that lacked what was committed, and got it from the relay.
    pub(crate) repairs: Counter,
    published: Counter,
    /// Rows that broadcast refused.
    pub(crate) refusals: Counter,
    shards: Gauge,
    rows: Gauge,
    parked: Gauge,
    oldest: Gauge,
}

impl Numbers {
    pub(crate) fn new() -> Arc<Self> {
        describe();
        let reads = |source| counter!("tidings_history_reads_total", "source" => source);
        let appends = |outcome| counter!("tidings_history_appends_total", "outcome" => outcome);
        Arc::new(Self {
            from_redis: reads("redis"),
            from_postgres: reads("postgres"),
            stale: counter!("tidings_history_stale_reads_total"),
            new: appends("new"),
            repeated: appends("repeated"),
            refused: appends("refused"),
            without_redis: counter!("tidings_history_without_redis_total"),
            repairs: counter!("tidings_history_relay_tail_repairs_total"),
            published: counter!("tidings_history_relay_published_messages_total"),
            refusals: counter!("tidings_history_relay_refusals_total"),
            shards: gauge!("tidings_history_relay_shards"),
            rows: gauge!("tidings_history_outbox_rows"),
            parked: gauge!("tidings_history_outbox_parked_rows"),
            oldest: gauge!("tidings_history_outbox_oldest_seconds"),
        })
    }

    /// A page was read.
    pub(crate) fn read(&self, page: &Page) {
        match page.source {
            Source::Redis => self.from_redis.increment(1),
            Source::Postgres => self.from_postgres.increment(1),
        }
        if page.stale {
            self.stale.increment(1);
        }
    }

    /// A message was appended, or not.
    pub(crate) fn appended(&self, outcome: &Appended) {
        match outcome {
            Appended::Done { deduplicated: false, .. } => self.new.increment(1),
            Appended::Done { deduplicated: true, .. } => self.repeated.increment(1),
            Appended::NoConversation | Appended::KeyReused { .. } | Appended::NoReplyTarget { .. } => {
                self.refused.increment(1);
            }
        }
    }

    /// A step went on without Redis.
    pub(crate) fn without_redis(&self) {
        self.without_redis.increment(1);
    }

    /// Broadcast has taken so many messages.
    pub(crate) fn published(&self, messages: usize) {
        self.published.increment(messages as u64);
    }

    /// So many shards are ours.
    pub(crate) fn leases(&self, shards: usize) {
        self.shards.set(u32::try_from(shards).unwrap_or(u32::MAX));
    }

    /// There is so much to relay, in all shards.
    pub(crate) fn waits(&self, backlog: &Backlog) {
        #[expect(clippy::cast_precision_loss, reason = "at most 100,000 are counted")]
        let count = |rows: i64| rows as f64;
        self.rows.set(count(backlog.rows));
        self.parked.set(count(backlog.parked));
        self.oldest.set(backlog.age);
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

fn describe() {
    describe_counter!(
        "tidings_history_reads_total",
        "Pages that were read, by the layer that answered: redis is a hit of the tail."
    );
    describe_counter!("tidings_history_stale_reads_total", "Pages that were read from a tail while Postgres was away.");
    describe_counter!(
        "tidings_history_appends_total",
        "Messages that were appended, each of a batch for itself: new, repeated (an earlier append had done it), refused."
    );
    describe_counter!(
        "tidings_history_without_redis_total",
        "Steps that went on without Redis, because it did not do them."
    );
    describe_counter!("tidings_history_relay_tail_repairs_total", "Tails that got from the relay what they lacked.");
    describe_counter!(
        "tidings_history_relay_published_messages_total",
        "Messages that broadcast has taken from this instance, those that it had before among them."
    );
    describe_counter!("tidings_history_relay_refusals_total", "Rows of the outbox that broadcast refused.");
    describe_gauge!("tidings_history_relay_shards", "Shards of the outbox that this instance relays, of 16.");
    describe_gauge!(
        "tidings_history_outbox_rows",
        "Rows of the outbox that wait to be relayed, by any instance; at most 100,000 are counted."
    );
    describe_gauge!(
        "tidings_history_outbox_parked_rows",
        "Rows of the outbox that were given up: their messages are not published until somebody sees to it."
    );
    describe_gauge!(
        "tidings_history_outbox_oldest_seconds",
        Unit::Seconds,
        "How long the oldest row that waits has waited: so late are pushes."
    );
}
