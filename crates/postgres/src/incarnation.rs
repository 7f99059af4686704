//! The incarnation of a database: it changes when commits may have been lost.
//!
//! A database that is restored from a copy, recovered to a point in time, or replaced by a promoted
//! standby lacks commits that caches have seen, and gives their numbers again. Each of these starts
//! another server process or creates another database. The incarnation is therefore derived from
//! the start time of the server and the identity of the database: all instances see the same value
//! without a table, a privilege or a message. A restart that loses nothing changes it as well,
//! which costs caches one load of each key.
//!
//! It is read on every new connection before its first use, and by every probe: a pooler may change
//! the server behind an open connection.

use std::fmt;
use std::sync::OnceLock;

use metrics::{Counter, Unit, counter, describe_counter};
use parking_lot::Mutex;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

/// Expression whose value is the incarnation: 10 hexadecimal digits.
pub(crate) const INCARNATION: &str = "(SELECT left(md5(concat_ws('.', \
     extract(epoch FROM pg_postmaster_start_time()), oid)), 10) \
     FROM pg_database WHERE datname = current_database())";

/// Receives the first incarnation and each other one.
type OnIncarnation = Box<dyn Fn(&str) + Send + Sync>;

/// The incarnation that the latest connection has found.
pub(crate) struct IncarnationWatch {
    found: Mutex<Option<String>>,
    listener: OnceLock<OnIncarnation>,
    changes: Counter,
}

impl IncarnationWatch {
    pub(crate) fn new() -> Self {
        describe_counter!(
            "tidings_postgres_incarnations_total",
            Unit::Count,
            "Incarnations of the database that were found, the first included: starts of its server, restores and \
             promotions. Caches of an earlier incarnation are not used."
        );
        Self {
            found: Mutex::new(None),
            listener: OnceLock::new(),
            changes: counter!("tidings_postgres_incarnations_total"),
        }
    }

    /// Sets the function that receives the first incarnation and each change. Only the first call
    /// has an effect.
    pub(crate) fn listen(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// Reads the incarnation on a new connection.
    pub(crate) async fn read(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // The simple protocol leaves no statement behind, which a pooler could give to others.
        let query = AssertSqlSafe(format!("SELECT {INCARNATION}"));
        let row = sqlx::raw_sql(query).fetch_one(connection).await?;
        self.note(&row.try_get_unchecked::<String, _>(0)?);
        Ok(())
    }

    /// Records the incarnation that a connection has found.
    pub(crate) fn note(&self, incarnation: &str) {
        let mut found = self.found.lock();
        match found.as_deref() {
            Some(known) if known == incarnation => return,
            None => tracing::info!(incarnation, "incarnation of the database"),
            Some(was) => tracing::warn!(
                incarnation,
                was,
                "postgres was restarted, restored or replaced: caches of the earlier incarnation are not used"
            ),
        }
        *found = Some(incarnation.to_owned());
        self.changes.increment(1);
        if let Some(listener) = self.listener.get() {
            listener(incarnation);
        }
    }
}

impl fmt::Debug for IncarnationWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IncarnationWatch").field(&*self.found.lock()).finish()
    }
}
