//! Passwords that change while a service runs.

use std::fs;
use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_devstack::testing::{self, eventually, own_stack};
use tidings_postgres::{Args, Fault, Postgres};

use super::support::{MIGRATIONS, SOON, ask};

/// Lets the role `app` log in with a password only.
async fn require_password(stack: &Devstack, password: &str) {
    let admin = stack.postgres().maintenance_url();
    testing::execute(&admin, &format!("CREATE ROLE app LOGIN PASSWORD '{password}'")).await;
    let rules = "COPY (VALUES ('host all app 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust')) TO";
    let write =
        format!("DO $$ BEGIN EXECUTE format('{} %L', current_setting('hba_file')); END $$", rules.replace('\'', "''"));
    testing::execute(&admin, &write).await;
    testing::execute(&admin, "SELECT pg_reload_conf()").await;
}

#[tokio::test]
async fn a_rotated_password_is_used_without_a_restart() {
    let stack = own_stack().await;
    require_password(&stack, "old-secret").await;
    let url = testing::database(&stack, &MIGRATIONS, "postgres").await;
    let dir = testing::key_prefix();
    let file = std::env::temp_dir().join(format!("tidings-url-{}-{}", std::process::id(), dir.replace('/', "-")));
    let with = |password: &str| url.replace("tidings@", &format!("app:{password}@"));
    fs::write(&file, with("old-secret")).unwrap();
    let args = Args {
        postgres_url_file: Some(file.clone()),
        postgres_acquire_timeout: SOON.into(),
        ..Args::new(with("old-secret").parse().unwrap())
    };
    // The new rules may not be in force yet.
    eventually("the password is asked for", async || {
        let wrong = Args { postgres_url_file: None, ..Args::new(with("wrong").parse().unwrap()) };
        Postgres::connect(&wrong, "tidings-test").await.is_err()
    })
    .await;
    let postgres = Postgres::connect(&args, "tidings-test").await.unwrap();
    assert_eq!(ask(&postgres, "SELECT 1").await.unwrap(), 1);

    let admin = stack.postgres().maintenance_url();
    testing::execute(&admin, "ALTER ROLE app PASSWORD 'new-secret'").await;
    testing::execute(&admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'").await;
    eventually("calls are refused", async || matches!(ask(&postgres, "SELECT 1").await, Err(Fault::Refused(_)))).await;
    assert!(!postgres.ping(Duration::from_secs(1)).await);
    let problem = postgres.problem().unwrap();
    assert!(problem.contains("password authentication failed") && !problem.contains("secret"), "{problem}");

    fs::write(&file, format!("\u{feff}{}\n", with("new-secret"))).unwrap();
    eventually("calls succeed", async || ask(&postgres, "SELECT 1").await.is_ok()).await;
    eventually("the probe succeeds", async || postgres.ping(SOON).await && postgres.problem().is_none()).await;
    fs::remove_file(file).unwrap();
}
