//! Checks of the user service's Postgres: TLS, version, durability, outbox, migrations.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tidings_postgres::{Args, MigrateError, Migrations, PostgresUrl};
use tokio::time::timeout;

use super::findings::DoctorFindings;

/// The oldest version that the services support, as `server_version_num`.
const VERSION_MIN: u32 = 150_000;
/// Age at which an outbox row counts as stuck: the relay normally takes a row within 250 ms.
const STUCK_ROW_SECONDS: f64 = 5.0;
/// The largest number of outbox rows that are counted.
const COUNTED_ROWS_MAX: i64 = 100_000;

/// A connection to the checked database, and the findings.
struct PostgresChecks<'a> {
    title: String,
    connection: PgConnection,
    findings: &'a mut DoctorFindings,
}

/// Checks the database at `url`; each step takes at most `limit`.
pub(super) async fn check(url: PostgresUrl, limit: Duration, findings: &mut DoctorFindings) {
    let title = url.to_string();
    let options = url.options().clone().application_name("tidings-doctor");
    let connection = match timeout(limit, options.connect()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let advice = "is it running, and are user, password and database right?";
            return findings.fail(&title, "reachable", error.to_string(), advice);
        }
        Err(_) => {
            let advice = "is it stopped, or are all connections taken (max_connections)?";
            return findings.fail(&title, "reachable", "timeout: no response", advice);
        }
    };
    let mut checks = PostgresChecks { title, connection, findings };
    let outcome = timeout(limit, checks.run(&url)).await;
    let failed = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("timeout: no response".to_owned()),
    };
    if let Some(problem) = failed {
        checks.findings.fail(
            &checks.title,
            "reachable",
            problem,
            "it stopped responding during the checks: see its log",
        );
    }
    let _ = timeout(limit, checks.connection.close()).await;
    migrations(url, findings).await;
}

impl PostgresChecks<'_> {
    async fn run(&mut self, url: &PostgresUrl) -> Result<(), sqlx::Error> {
        self.tls(url).await?;
        self.version().await?;
        self.crash_safety().await?;
        self.replication().await?;
        self.outbox().await
    }

    async fn setting(&mut self, name: &str) -> Result<String, sqlx::Error> {
        sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut self.connection).await
    }

    /// Checks that passwords and rows are protected on the network.
    async fn tls(&mut self, url: &PostgresUrl) -> Result<(), sqlx::Error> {
        let check = "tls";
        let query = "SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false)";
        let is_encrypted: bool = sqlx::query_scalar(query).fetch_one(&mut self.connection).await?;
        let mode = url.tls_mode();
        let advice = "add ?sslmode=verify-full&sslrootcert=CA_FILE to its URL";
        if url.is_local() {
            let found = format!("not needed: no network is in between (sslmode={mode})");
            self.findings.ok(&self.title, check, found);
        } else if !is_encrypted {
            let found = format!("plain text over the network (sslmode={mode})");
            self.findings.warn(&self.title, check, found, advice);
        } else if !url.verifies_server() {
            let found = format!("encrypted, but the certificate is not verified (sslmode={mode})");
            self.findings.warn(&self.title, check, found, advice);
        } else {
            self.findings.ok(&self.title, check, format!("encrypted and verified (sslmode={mode})"));
        }
        Ok(())
    }

    async fn version(&mut self) -> Result<(), sqlx::Error> {
        let found = self.setting("server_version").await?;
        if self.connection.server_version_num().is_some_and(|version| version < VERSION_MIN) {
            self.findings.fail(&self.title, "version", found, "upgrade it: the services need 15 or newer");
        } else {
            self.findings.ok(&self.title, "version", found);
        }
        let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut self.connection).await?;
        if standby {
            let advice = "connect the services to the primary: they need to write";
            self.findings.fail(&self.title, "role", "standby", advice);
        }
        Ok(())
    }

    /// Checks that acknowledged writes survive a crash of the machine.
    async fn crash_safety(&mut self) -> Result<(), sqlx::Error> {
        let check = "crash safety";
        for (name, advice) in [
            ("fsync", "set fsync = on: a crash can lose acknowledged writes and corrupt the data"),
            ("full_page_writes", "set full_page_writes = on, unless the disk writes whole pages atomically"),
            ("synchronous_commit", "set synchronous_commit = on: a crash loses the last acknowledged writes"),
        ] {
            if self.setting(name).await? == "off" {
                let found = format!("acknowledged writes may be lost: {name} is off");
                self.findings.fail(&self.title, check, found, advice);
                return Ok(());
            }
        }
        let found = "acknowledged writes survive: fsync, full_page_writes and synchronous_commit are on";
        self.findings.ok(&self.title, check, found);
        Ok(())
    }

    /// Checks that acknowledged writes survive the loss of the primary.
    async fn replication(&mut self) -> Result<(), sqlx::Error> {
        let check = "replication";
        let names = self.setting("synchronous_standby_names").await?;
        let commit = self.setting("synchronous_commit").await?;
        if names.is_empty() || ["local", "off"].contains(&commit.as_str()) {
            let found =
                format!("not synchronous: synchronous_standby_names is '{names}', synchronous_commit is {commit}");
            let advice = "losing the primary loses writes; to prevent that, name a standby that commits wait for";
            self.findings.warn(&self.title, check, found, advice);
            return Ok(());
        }
        // Without pg_monitor the sync_state of other users' connections is NULL.
        let query = "SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), count(*) FILTER (WHERE sync_state IS NULL) FROM pg_stat_replication";
        let (synchronous, hidden): (i64, i64) = sqlx::query_as(query).fetch_one(&mut self.connection).await?;
        match (synchronous, hidden) {
            (1.., _) => {
                let found = format!("commits wait ({commit}) for '{names}', {synchronous} connected");
                self.findings.ok(&self.title, check, found);
            }
            (_, 1..) => {
                let found = format!("commits wait ({commit}) for '{names}'; no permission to see their state");
                self.findings.warn(&self.title, check, found, "connect as a member of pg_monitor");
            }
            _ => {
                let found = format!("commits wait ({commit}) for '{names}', but none is connected");
                self.findings.fail(&self.title, check, found, "start a standby: writes hang until one is connected");
            }
        }
        Ok(())
    }

    /// Checks that the relay publishes changes to the cache.
    async fn outbox(&mut self) -> Result<(), sqlx::Error> {
        let check = "outbox";
        let exists: bool = sqlx::query_scalar("SELECT to_regclass('cache_outbox') IS NOT NULL")
            .fetch_one(&mut self.connection)
            .await?;
        if !exists {
            return Ok(()); // the check of migrations reports it
        }
        let query = "SELECT count(*), coalesce(extract(epoch FROM now() - min(create_time)), 0)::float8 \
                     FROM (SELECT create_time FROM cache_outbox ORDER BY id LIMIT $1) AS oldest";
        let (rows, seconds): (i64, f64) =
            sqlx::query_as(query).bind(COUNTED_ROWS_MAX).fetch_one(&mut self.connection).await?;
        let found = match rows {
            0 => "empty: all changes are published to the cache".to_owned(),
            _ => format!("{rows} changes not published to the cache yet, the oldest for {seconds:.1}s"),
        };
        if seconds <= STUCK_ROW_SECONDS {
            self.findings.ok(&self.title, check, found);
        } else {
            let advice = "cached reads may be as stale: is redis unavailable, or no instance running?";
            self.findings.warn(&self.title, check, found, advice);
        }
        Ok(())
    }
}

async fn migrations(url: PostgresUrl, findings: &mut DoctorFindings) {
    let title = url.to_string();
    match Migrations::new("user", &tidings_user::MIGRATOR).check(&Args::new(url)).await {
        Ok(()) => findings.ok(&title, "migrations", "none pending"),
        Err(error) => {
            let advice = match &error {
                MigrateError::Foreign(_) => "give the database of the user service",
                MigrateError::Start(_) => "see the finding",
                MigrateError::Failed(_) | MigrateError::Pending { .. } => "apply them: tidings-user migrate",
            };
            findings.fail(&title, "migrations", error_line(&error), advice);
        }
    }
}

/// Formats an error with its sources.
fn error_line(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |&error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
