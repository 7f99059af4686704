//! Metrics of Postgres. Handles are looked up once.

use std::fmt;
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};

use crate::fault::Fault;

/// Metrics of one pool.
pub(crate) struct Metrics {
    acquire: Histogram,
    run: Histogram,
    in_use: Gauge,
    idle: Gauge,
    unique: Counter,
    retryable: Counter,
    exhausted: Counter,
    away: Counter,
    refused: Counter,
    ambiguous: Counter,
    full: Counter,
    other: Counter,
}

impl Metrics {
    /// Registers the metrics of the pool with this name.
    pub(crate) fn new(pool: &'static str) -> Self {
        describe();
        let connections =
            |state| gauge!("tidings_postgres_connections", &[("pool", pool), ("state", state)] as &[(&str, &str)]);
        let errors =
            |kind| counter!("tidings_postgres_errors_total", &[("pool", pool), ("kind", kind)] as &[(&str, &str)]);
        Self {
            acquire: histogram!("tidings_postgres_acquire_seconds", "pool" => pool),
            run: histogram!("tidings_postgres_run_seconds", "pool" => pool),
            in_use: connections("in_use"),
            idle: connections("idle"),
            unique: errors("unique"),
            retryable: errors("retryable"),
            exhausted: errors("exhausted"),
            away: errors("away"),
            refused: errors("refused"),
            ambiguous: errors("ambiguous"),
            full: errors("full"),
            other: errors("other"),
        }
    }

    /// Records a wait for a connection, successful or not.
    pub(crate) fn waited(&self, since: Instant) {
        self.acquire.record(since.elapsed());
    }

    /// Records the duration of work, successful or not.
    pub(crate) fn worked(&self, since: Instant) {
        self.run.record(since.elapsed());
    }

    /// Updates the connection gauges.
    pub(crate) fn update_connections(&self, in_use: u32, idle: u32) {
        self.in_use.set(in_use);
        self.idle.set(idle);
    }

    /// Counts a fault and returns it.
    pub(crate) fn failed(&self, fault: Fault) -> Fault {
        let kind = match &fault {
            Fault::Unique(_) => &self.unique,
            Fault::Retryable(_) => &self.retryable,
            Fault::Exhausted => &self.exhausted,
            Fault::Away(_) => &self.away,
            Fault::Refused(_) => &self.refused,
            Fault::Ambiguous(_) => &self.ambiguous,
            Fault::Full(_) => &self.full,
            Fault::Other(_) => &self.other,
        };
        kind.increment(1);
        fault
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn describe() {
    describe_histogram!(
        "tidings_postgres_acquire_seconds",
        Unit::Seconds,
        "Wait for a connection, including unsuccessful waits; callers and background work have separate pools."
    );
    describe_histogram!(
        "tidings_postgres_run_seconds",
        Unit::Seconds,
        "Duration of work on a connection: one statement or transaction, including failed ones."
    );
    describe_gauge!("tidings_postgres_connections", "Open connections by pool and state.");
    describe_counter!(
        "tidings_postgres_errors_total",
        "Failed work by kind: unique (constraint violated), retryable (conflict with other work), exhausted (no free \
         connection), away (postgres unavailable, nothing done), refused (password, database, permission or TLS), \
         ambiguous (connection lost, may have committed), full (out of disk space or memory), other (unexpected)."
    );
}
