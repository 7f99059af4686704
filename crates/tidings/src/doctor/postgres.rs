//! The Postgres of the user service: what an acknowledgement survives, migrations, the outbox.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tidings_postgres::{Args, Migrations, PostgresUrl};
use tokio::time::timeout;

use super::findings::Findings;

/// The oldest that the services use.
const OLDEST: u32 = 150_000;
/// The relay takes a row within a quarter of a second; one this old waits for something.
const ROW_WAITS: f64 = 5.0;
/// The most rows of the outbox that are counted.
const COUNTED: i64 = 100_000;

/// What this looks at.
struct Look<'a> {
    title: String,
    connection: PgConnection,
    findings: &'a mut Findings,
}

/// Looks at the database behind `url`.
pub(super) async fn look(url: PostgresUrl, patience: Duration, findings: &mut Findings) {
    let title = url.to_string();
    let options = url.options().clone().application_name("tidings-doctor");
    let connection = match timeout(patience, options.connect()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let advice = "is it running, and are user, password and database right?";
            return findings.fail(&title, "reachable", error.to_string(), advice);
        }
        Err(_) => {
            let advice = "it lets nobody in: is it stopped, or full (max_connections)?";
            return findings.fail(&title, "reachable", "no answer", advice);
        }
    };
    let mut look = Look { title, connection, findings };
    let looked = timeout(patience, look.all()).await;
    let failed = match looked {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("no answer".to_owned()),
    };
    if let Some(problem) = failed {
        look.findings.fail(&look.title, "reachable", problem, "it stopped answering in the middle: see its log");
    }
    let _ = timeout(patience, look.connection.close()).await;
    migrations(url, findings).await;
}

impl Look<'_> {
    async fn all(&mut self) -> Result<(), sqlx::Error> {
        self.version().await?;
        self.crash().await?;
        self.loss().await?;
        self.outbox().await
    }

    async fn setting(&mut self, name: &str) -> Result<String, sqlx::Error> {
        sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut self.connection).await
    }

    async fn version(&mut self) -> Result<(), sqlx::Error> {
        let found = self.setting("server_version").await?;
        if self.connection.server_version_num().is_some_and(|version| version < OLDEST) {
            self.findings.fail(&self.title, "version", found, "the services need 15 or newer: upgrade it");
        } else {
            self.findings.ok(&self.title, "version", found);
        }
        let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut self.connection).await?;
        if standby {
            let advice = "the services write: give them the primary";
            self.findings.fail(&self.title, "role", "it is a standby", advice);
        }
        Ok(())
    }

    /// Does an acknowledgement survive a crash of the machine?
    async fn crash(&mut self) -> Result<(), sqlx::Error> {
        let check = "an OK survives a crash";
        for (name, advice) in [
            ("fsync", "set fsync = on, unless the data may be lost: what was acknowledged is not on the disk"),
            ("full_page_writes", "set full_page_writes = on, unless the disk writes whole pages at once"),
            ("synchronous_commit", "set it to on: what was acknowledged in the last moments before a crash is lost"),
        ] {
            if self.setting(name).await? == "off" {
                self.findings.fail(&self.title, check, format!("no: {name} is off"), advice);
                return Ok(());
            }
        }
        self.findings.ok(&self.title, check, "yes: fsync, full_page_writes and synchronous_commit are on");
        Ok(())
    }

    /// Does an acknowledgement survive the loss of the primary?
    async fn loss(&mut self) -> Result<(), sqlx::Error> {
        let check = "an OK survives the primary";
        let names = self.setting("synchronous_standby_names").await?;
        let commit = self.setting("synchronous_commit").await?;
        if names.is_empty() || ["local", "off"].contains(&commit.as_str()) {
            let found = format!("no: synchronous_standby_names is '{names}', synchronous_commit {commit}");
            let advice = "if losing the primary's disk must lose nothing, name a standby that commits wait for";
            self.findings.warn(&self.title, check, found, advice);
            return Ok(());
        }
        // Without pg_monitor the states of others are hidden, not absent.
        let query = "SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), count(*) FILTER (WHERE sync_state IS NULL) FROM pg_stat_replication";
        let (waited_for, hidden): (i64, i64) = sqlx::query_as(query).fetch_one(&mut self.connection).await?;
        match (waited_for, hidden) {
            (1.., _) => {
                let found = format!("yes: commits wait ({commit}) for '{names}', {waited_for} there");
                self.findings.ok(&self.title, check, found);
            }
            (_, 1..) => {
                let found = format!("commits wait ({commit}) for '{names}'; whether it is there we may not see");
                self.findings.warn(&self.title, check, found, "ask as a member of pg_monitor");
            }
            _ => {
                let found = format!("commits wait ({commit}) for '{names}', and none of them is there");
                self.findings.fail(&self.title, check, found, "writes hang until a standby is back: start it");
            }
        }
        Ok(())
    }

    /// Do changes reach the cache?
    async fn outbox(&mut self) -> Result<(), sqlx::Error> {
        let check = "outbox";
        let there: bool = sqlx::query_scalar("SELECT to_regclass('cache_outbox') IS NOT NULL")
            .fetch_one(&mut self.connection)
            .await?;
        if !there {
            return Ok(()); // the migrations say it
        }
        let query = "SELECT count(*), coalesce(extract(epoch FROM now() - min(create_time)), 0)::float8 \
                     FROM (SELECT create_time FROM cache_outbox ORDER BY id LIMIT $1) AS oldest";
        let (rows, seconds): (i64, f64) = sqlx::query_as(query).bind(COUNTED).fetch_one(&mut self.connection).await?;
        let found = match rows {
            0 => "empty: the cache knows of every change".to_owned(),
            _ => format!("{rows} changes wait for the cache, the oldest for {seconds:.1}s"),
        };
        if seconds <= ROW_WAITS {
            self.findings.ok(&self.title, check, found);
        } else {
            let advice = "plain reads may be as old: is redis away, or no instance running?";
            self.findings.warn(&self.title, check, found, advice);
        }
        Ok(())
    }
}

async fn migrations(url: PostgresUrl, findings: &mut Findings) {
    let title = url.to_string();
    match Migrations::new(&tidings_user::MIGRATOR).check(&Args::new(url)).await {
        Ok(()) => findings.ok(&title, "migrations", "none is pending"),
        Err(error) => findings.fail(&title, "migrations", error.to_string(), "apply them: tidings-user migrate"),
    }
}
