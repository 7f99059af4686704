//! Postgres unavailable or blocked: acknowledged writes of user and history are applied once; lock
//! and broadcast are not affected.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::sleep;

use super::RecoveryTimes;
use crate::drill::Drill;
use crate::installation::DrillInstallation;

const RECOVERY: RecoveryTimes = [
    ("user", Some(Duration::from_secs(3))),
    ("history", Some(Duration::from_secs(3))),
    ("lock", None),
    ("broadcast", None),
];

/// Returns the databases of the services that need one for each call, with a table of each.
fn databases(installation: &DrillInstallation) -> [(String, &'static str); 2] {
    [
        (installation.user[0].database().to_owned(), "user_account"),
        (installation.history[0].database().to_owned(), "conversation"),
    ]
}

#[test]
fn nothing_acknowledged_is_lost_when_postgres_is_killed() {
    Drill::new("Postgres kill -9", RECOVERY).run(async |installation, times| {
        for _ in 0..times.either(50, 2) {
            installation.stack.postgres().kill().await;
            installation.stack.postgres().start().await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_postgres_shuts_down() {
    Drill::new("Postgres immediate shutdown", RECOVERY).run(async |installation, times| {
        let postgres = installation.stack.postgres();
        for _ in 0..times.either(10, 1) {
            let pid = Pid::from_raw(postgres.pid().unwrap().try_into().unwrap()).unwrap();
            kill_process(pid, Signal::QUIT).unwrap(); // immediate shutdown; the next start runs crash recovery
            while postgres.running() {
                sleep(Duration::from_millis(10)).await;
            }
            postgres.start().await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_while_postgres_is_paused() {
    Drill::new("Postgres SIGSTOP", RECOVERY).run(async |installation, times| {
        installation.stack.postgres().pause();
        sleep(times.either(Duration::from_secs(30), Duration::from_secs(3))).await;
        installation.stack.postgres().resume();
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_postgres_drops_connections() {
    Drill::new("Postgres connections terminated every 100 ms", RECOVERY).run(async |installation, times| {
        let url = installation.stack.postgres().maintenance_url();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for _ in 0..times.either(100, 20) {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            sqlx::raw_sql(end).execute(&mut connection).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_while_tables_are_locked() {
    Drill::new("Postgres tables locked", RECOVERY).run(async |installation, times| {
        let mut lock_holders = Vec::new();
        for (database, table) in databases(installation) {
            let mut connection = PgConnection::connect(&installation.stack.postgres().url(&database)).await.unwrap();
            let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
            sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap();
            lock_holders.push(connection);
        }
        sleep(times.either(Duration::from_secs(10), Duration::from_secs(3))).await;
    });
}
