//! Settings of roles and databases that the services do not expect.

use sqlx::Row as _;
use tidings_devstack::testing::{self, eventually};
use tidings_postgres::{Args, Fault, Postgres, StartError};

use super::support::{MIGRATIONS, SOON, execute};

/// Creates a database, and a role for it with a setting of its own per statement.
async fn database_with(statements: &[&str]) -> (String, Args) {
    let url = testing::database(testing::shared().await, &MIGRATIONS, "postgres").await;
    let (_, database) = url.rsplit_once('/').unwrap();
    let role = format!("app_{database}");
    testing::execute(&url, &format!("CREATE ROLE \"{role}\" LOGIN")).await;
    for statement in statements {
        let statement =
            statement.replace("ROLE", &format!("\"{role}\"")).replace("DATABASE", &format!("\"{database}\""));
        testing::execute(&url, &statement).await;
    }
    let app = url.replace("tidings@", &format!("{role}@"));
    let args = Args { postgres_acquire_timeout: SOON.into(), ..Args::new(app.parse().unwrap()) };
    (url, args)
}

async fn setting(postgres: &Postgres, name: &str) -> String {
    let row = postgres
        .run(async |connection| sqlx::query("SELECT current_setting($1)").bind(name).fetch_one(connection).await)
        .await;
    row.unwrap().get(0)
}

#[tokio::test]
async fn settings_of_the_role_do_not_apply() {
    let (_, args) = database_with(&[
        "ALTER role ROLE SET default_transaction_isolation = 'serializable'",
        "ALTER role ROLE SET idle_session_timeout = '1ms'",
        "ALTER role ROLE SET idle_in_transaction_session_timeout = '1ms'",
        "ALTER role ROLE SET statement_timeout = '1ms'",
    ])
    .await;

    let postgres = Postgres::connect(&args, "tidings-test").await.unwrap();

    for (name, value) in [
        ("default_transaction_isolation", "read committed"),
        ("transaction_isolation", "read committed"),
        ("idle_session_timeout", "0"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("statement_timeout", "2s"),
        ("tcp_keepalives_idle", "60"),
    ] {
        assert_eq!(setting(&postgres, name).await, value, "{name}");
    }
}

#[tokio::test]
async fn a_transaction_that_idles_too_long_is_retryable() {
    let (url, args) = database_with(&[]).await;
    let postgres = Postgres::connect(&args, "tidings-test").await.unwrap();

    let interrupted = postgres.run(async |connection| {
        execute(connection, "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '1ms'").await?;
        let open =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        eventually("Postgres ends the session", async || testing::query_number(&url, open).await == 0).await;
        execute(connection, "SELECT 1").await
    });
    let fault = interrupted.await.unwrap_err();

    assert!(matches!(fault, Fault::Retryable(_)), "{fault:?}");
    assert_eq!(setting(&postgres, "statement_timeout").await, "2s", "another connection is used");
}

#[tokio::test]
async fn the_probe_of_a_full_server_needs_no_privilege() {
    let (_, args) = database_with(&["REVOKE TEMPORARY ON database DATABASE FROM public"]).await;
    let postgres = Postgres::connect(&args, "tidings-test").await.unwrap();
    let full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$";
    let fault = postgres.run(async |connection| execute(connection, full).await).await.unwrap_err();
    assert!(matches!(fault, Fault::Full(_)), "{fault:?}");

    let serves = postgres.ping(SOON).await;

    assert!(serves, "{:?}", postgres.problem());
}

#[tokio::test]
async fn a_read_only_server_is_reported_with_its_reason() {
    let (url, args) = database_with(&[]).await;
    let postgres = Postgres::connect(&args, "tidings-test").await.unwrap();
    let (_, database) = url.rsplit_once('/').unwrap();
    assert!(postgres.ping(SOON).await);

    testing::execute(&url, &format!("ALTER DATABASE \"{database}\" SET default_transaction_read_only = on")).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    testing::execute(&url, end).await;

    eventually("the probe reports it", async || {
        !postgres.ping(SOON).await && postgres.problem().is_some_and(|problem| problem.contains("read-only"))
    })
    .await;
    let start = Postgres::connect(&args, "tidings-test").await.unwrap_err();
    assert!(matches!(start, StartError::ReadOnly(_)) && start.is_away(), "{start}");
    assert!(start.to_string().contains("postgres is read-only"), "{start}");
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused() {
    let (url, args) = database_with(&[]).await;
    let (_, database) = url.rsplit_once('/').unwrap();
    let create = format!("CREATE DATABASE \"{database}_latin1\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    testing::execute(&url, &create).await;
    let latin1 = format!("{url}_latin1").parse().unwrap();

    let error = Postgres::connect(&Args { postgres_url: latin1, ..args }, "tidings-test").await.unwrap_err();

    assert!(matches!(error, StartError::Encoding { .. }) && !error.is_away(), "{error}");
    assert!(error.to_string().contains("encoding LATIN1") && error.to_string().contains("ENCODING 'UTF8'"), "{error}");
}
