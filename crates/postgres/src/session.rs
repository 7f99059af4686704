//! Settings of a session: those of the role and of the database do not apply.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::args::{Args, Pooler};

/// Limit of a transaction without a statement, in milliseconds: far above any pause between two
/// statements of a service.
const IDLE_IN_TRANSACTION_MS: u64 = 5_000;

/// Settings of the sessions of one kind of work.
#[derive(Clone, Debug)]
pub(crate) struct SessionSettings {
    pooler: Pooler,
    /// Name and value of each setting; values need no quoting.
    settings: Vec<(&'static str, String)>,
}

impl SessionSettings {
    /// Returns the settings of a service, with its limits.
    pub(crate) fn of_service(args: &Args) -> Self {
        Self::new(args.postgres_pooler, Some(*args.postgres_statement_timeout))
    }

    /// Returns the settings of migrations, without limits: one may run long, or wait for another
    /// instance.
    pub(crate) fn of_migrations(args: &Args) -> Self {
        Self::new(args.postgres_pooler, None)
    }

    fn new(pooler: Pooler, statement: Option<Duration>) -> Self {
        let ms = |limit: Option<Duration>| limit.map_or(0, |limit| limit.as_millis()).to_string();
        let idle = if statement.is_some() { IDLE_IN_TRANSACTION_MS } else { 0 };
        let mut settings = vec![
            ("statement_timeout", ms(statement)),
            ("lock_timeout", ms(statement.map(|limit| limit / 2))),
            ("idle_in_transaction_session_timeout", idle.to_string()),
        ];
        if pooler != Pooler::Transaction {
            settings.extend([
                ("idle_session_timeout", "0".to_owned()),
                ("default_transaction_isolation", "read committed".to_owned()),
                ("default_transaction_deferrable", "off".to_owned()),
                // Probes of the server keep the entries of NAT and firewalls on the way alive, and
                // end sessions whose client is unreachable.
                ("tcp_keepalives_idle", "60".to_owned()),
                ("tcp_keepalives_interval", "10".to_owned()),
                ("tcp_keepalives_count", "3".to_owned()),
                ("tcp_user_timeout", "30000".to_owned()),
            ]);
        }
        Self { pooler, settings }
    }

    /// Adds to connect options what the log-in carries.
    pub(crate) fn start_with(&self, options: PgConnectOptions) -> PgConnectOptions {
        match self.pooler {
            Pooler::None => options.options(self.settings.iter().map(|(name, value)| (*name, value.as_str()))),
            // A pooler refuses start-up parameters that it does not know.
            Pooler::Session => options.extra_float_digits(None),
            // The next transaction may reach another server: no statement is kept.
            Pooler::Transaction => options.extra_float_digits(None).statement_cache_capacity(0),
        }
    }

    /// Makes the settings on a new connection that could not carry them.
    pub(crate) async fn apply(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.pooler != Pooler::Session {
            return Ok(());
        }
        let set = self.settings.iter().map(|(name, value)| format!("SET {name} = '{value}'")).collect::<Vec<_>>();
        sqlx::raw_sql(AssertSqlSafe(set.join("; "))).execute(connection).await.map(drop)
    }

    /// Returns true if a pooler is configured to keep a server for each session.
    pub(crate) fn shares_a_pooler(&self) -> bool {
        self.pooler == Pooler::Session
    }

    /// Returns the value of `statement_timeout` that a session must have, in milliseconds.
    pub(crate) fn expects(&self) -> Option<&str> {
        let (_, statement_timeout) = self.settings.first()?;
        (self.pooler != Pooler::Transaction).then_some(statement_timeout.as_str())
    }

    /// Returns the statements that begin the transaction of each piece of work, if a pooler gives a
    /// server to a transaction only: without one, limits would not hold, and two messages of one
    /// statement could reach different servers. Statements that other clients prepared on that
    /// server may have the names that the driver uses.
    pub(crate) fn begin(&self) -> Option<String> {
        if self.pooler != Pooler::Transaction {
            return None;
        }
        let set = self.settings.iter().map(|(name, value)| format!("SET LOCAL {name} = '{value}'"));
        let begin = ["BEGIN ISOLATION LEVEL READ COMMITTED", "DEALLOCATE ALL"].map(str::to_owned);
        Some(begin.into_iter().chain(set).collect::<Vec<_>>().join("; "))
    }
}
