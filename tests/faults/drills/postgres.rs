//! A Postgres that is away or busy: what was acknowledged is there afterwards, once; locks and channels go on meanwhile.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::sleep;

use super::Recovery;
use crate::drill::Drill;
use crate::stage::Stage;

const RECOVERY: Recovery = [
    ("user", Some(Duration::from_secs(3))),
    ("history", Some(Duration::from_secs(3))),
    ("lock", None),
    ("broadcast", None),
];

/// The databases of the services that have one which they need for each call.
fn databases(stage: &Stage) -> [(String, &'static str); 2] {
    [(stage.user[0].database().to_owned(), "user_account"), (stage.history[0].database().to_owned(), "conversation")]
}

#[test]
fn a_postgres_that_is_killed_costs_nothing_that_was_acknowledged() {
    Drill::new("Postgres kill -9", RECOVERY).run(async |stage, times| {
        for _ in 0..times.either(50, 2) {
            stage.stack.postgres().kill().await;
            stage.stack.postgres().start().await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    });
}

#[test]
fn a_postgres_that_is_stopped_at_once_costs_nothing_that_was_acknowledged() {
    Drill::new("Postgres stopped, immediate", RECOVERY).run(async |stage, times| {
        let postgres = stage.stack.postgres();
        for _ in 0..times.either(10, 1) {
            let pid = Pid::from_raw(postgres.pid().unwrap().try_into().unwrap()).unwrap();
            kill_process(pid, Signal::QUIT).unwrap(); // no word to anybody, and recovery at the next start
            while postgres.running() {
                sleep(Duration::from_millis(10)).await;
            }
            postgres.start().await.unwrap();
            sleep(Duration::from_millis(500)).await;
        }
    });
}

#[test]
fn a_postgres_that_stands_still_costs_nothing_that_was_acknowledged() {
    Drill::new("Postgres SIGSTOP", RECOVERY).run(async |stage, times| {
        stage.stack.postgres().pause();
        sleep(times.either(Duration::from_secs(30), Duration::from_secs(3))).await;
        stage.stack.postgres().resume();
    });
}

#[test]
fn a_postgres_whose_connections_are_cut_all_the_time_costs_nothing_that_was_acknowledged() {
    Drill::new("Postgres backends ended every 100 ms", RECOVERY).run(async |stage, times| {
        let url = stage.stack.postgres().maintenance_url();
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
fn tables_that_somebody_has_locked_cost_nothing_that_was_acknowledged() {
    Drill::new("tables locked", RECOVERY).run(async |stage, times| {
        let mut held = Vec::new();
        for (database, table) in databases(stage) {
            let mut connection = PgConnection::connect(&stage.stack.postgres().url(&database)).await.unwrap();
            let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
            sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap();
            held.push(connection);
        }
        sleep(times.either(Duration::from_secs(10), Duration::from_secs(3))).await;
    });
}
