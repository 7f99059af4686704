//! What is counted of Postgres. The handles are looked up once.

use std::fmt;
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};
use sqlx::postgres::PgPool;

use crate::Fault;

/// The numbers of one pool.
pub(crate) struct Numbers {
    acquire: Histogram,
    run: Histogram,
    in_use: Gauge,
    idle: Gauge,
    unique: Counter,
    retryable: Counter,
    exhausted: Counter,
    away: Counter,
    ambiguous: Counter,
    full: Counter,
    other: Counter,
}

impl Numbers {
    /// The numbers of the pool of this name.
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
            ambiguous: errors("ambiguous"),
            full: errors("full"),
            other: errors("other"),
        }
    }

    /// A connection was waited for since then, and came or did not.
    pub(crate) fn waited(&self, since: Instant) {
        self.acquire.record(since.elapsed());
    }

    /// Work was done since then, and succeeded or did not.
    pub(crate) fn worked(&self, since: Instant) {
        self.run.record(since.elapsed());
    }

    /// Looks how many connections there are, after one came or went.
    pub(crate) fn look(&self, pool: &PgPool) {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        self.idle.set(idle);
        self.in_use.set(pool.size().saturating_sub(idle));
    }

    /// Counts a fault on its way to its caller.
    pub(crate) fn failed(&self, fault: Fault) -> Fault {
        let kind = match &fault {
            Fault::Unique(_) => &self.unique,
            Fault::Retryable(_) => &self.retryable,
            Fault::Exhausted => &self.exhausted,
            Fault::Away(_) => &self.away,
            Fault::Ambiguous(_) => &self.ambiguous,
            Fault::Full(_) => &self.full,
            Fault::Other(_) => &self.other,
        };
        kind.increment(1);
        fault
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

fn describe() {
    describe_histogram!(
        "tidings_postgres_acquire_seconds",
        Unit::Seconds,
        "Time that work waited for a connection, or in vain; callers and background work have pools of their own."
    );
    describe_histogram!(
        "tidings_postgres_run_seconds",
        Unit::Seconds,
        "Time of work on a connection: one statement or a transaction, also one that failed."
    );
    describe_gauge!("tidings_postgres_connections", "Connections that are in use, and that are idle, by pool.");
    describe_counter!(
        "tidings_postgres_errors_total",
        "Work that failed: unique (a constraint stands against it), retryable (it collided with other work), exhausted (no \
         connection became free), away (no answer, and nothing was done), ambiguous (no answer, and it may have been done), \
         full (no room on its disk or in its memory), other (unexpected)."
    );
}
