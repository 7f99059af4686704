//! Migrations: concurrent, pending, and without a server.

use std::borrow::Cow;

use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection};
use tidings_devstack::testing::{self, own_stack};
use tidings_postgres::{Args, Fault, MigrateError, Migrations, Postgres, StartError};

use super::support::MIGRATIONS;

/// Creates an empty database.
async fn empty() -> Args {
    static NOTHING: Migrator = Migrator::DEFAULT;
    let url = testing::database(testing::shared().await, &NOTHING, "empty").await;
    // An empty list of migrations leaves this table behind.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("DROP TABLE _sqlx_migrations").execute(&mut connection).await.unwrap();
    Args::new(url.parse().unwrap())
}

#[tokio::test]
async fn of_five_concurrent_migrations_one_applies_and_all_succeed() {
    let args = empty().await;
    let migrations = Migrations::new("notes", &MIGRATIONS);

    let five: Vec<_> = (0..5)
        .map(|_| {
            let args = args.clone();
            tokio::spawn(async move { migrations.apply(&args).await })
        })
        .collect();
    for one in five {
        one.await.unwrap().unwrap();
    }

    migrations.check(&args).await.unwrap();
    let mut connection = PgConnection::connect_with(args.postgres_url.options()).await.unwrap();
    let applied: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(&mut connection).await.unwrap();
    assert_eq!(applied, 2);
}

#[tokio::test]
async fn pending_migrations_are_counted_and_the_first_is_named() {
    static FIRST: std::sync::LazyLock<Migrator> = std::sync::LazyLock::new(|| {
        let first: Vec<_> = MIGRATIONS.iter().take(1).cloned().collect();
        Migrator { migrations: Cow::Owned(first), ..Migrator::DEFAULT }
    });
    let args = empty().await;
    let all = Migrations::new("notes", &MIGRATIONS);

    let never = all.check(&args).await.unwrap_err();
    Migrations::new("notes", &FIRST).apply(&args).await.unwrap();
    let older = all.check(&args).await.unwrap_err();

    assert!(matches!(&never, MigrateError::Pending { count: 2, first } if first == "note"), "{never}");
    assert!(matches!(&older, MigrateError::Pending { count: 1, first } if first == "note author"), "{older}");
    all.apply(&args).await.unwrap();
    all.check(&args).await.unwrap();
    // An older release runs beside a newer one.
    Migrations::new("notes", &FIRST).check(&args).await.unwrap();
    Migrations::new("notes", &FIRST).apply(&args).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_postgres_is_named() {
    let stack = own_stack().await;
    let args = Args::new(stack.postgres().maintenance_url().parse().unwrap());
    stack.postgres().kill().await;

    let applied = Migrations::new("notes", &MIGRATIONS).apply(&args).await.unwrap_err();
    let checked = Migrations::new("notes", &MIGRATIONS).check(&args).await.unwrap_err();
    let connected = Postgres::connect(&args, "tidings-test").await.unwrap_err();

    for error in [&applied, &checked] {
        assert!(matches!(error, MigrateError::Start(StartError::Connect(_, Fault::Away(_)))), "{error:?}");
        assert!(error.is_away());
        assert!(error.to_string().contains(&args.postgres_url.to_string()), "{error}");
    }
    assert!(matches!(connected, StartError::Connect(_, Fault::Away(_))), "{connected:?}");
}

#[tokio::test]
async fn a_missing_database_is_reported_at_once() {
    let url = testing::shared().await.postgres().url("nowhere");
    let args = Args::new(url.parse().unwrap());

    let checked = Migrations::new("notes", &MIGRATIONS).check(&args).await.unwrap_err();

    assert!(matches!(checked, MigrateError::Start(StartError::Connect(_, Fault::Refused(_)))), "{checked:?}");
    assert!(!checked.is_away(), "an operator must act");
}
