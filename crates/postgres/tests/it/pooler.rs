//! A connection pooler between the service and Postgres.

use std::time::Duration;

use sqlx::Connection as _;
use tidings_devstack::testing;
use tidings_postgres::{Args, Fault, Migrations, Pooler, Postgres, StartError};

use super::pgbouncer::PgBouncer;
use super::support::{MIGRATIONS, SOON, ask, execute};

/// Starts a pooler; returns it with settings for a database behind it.
async fn pooled(configuration: &str, pooler: Pooler) -> Option<(PgBouncer, Args)> {
    let bouncer = PgBouncer::start(configuration).await?;
    let url = testing::database(testing::shared().await, &MIGRATIONS, "postgres").await;
    let args = Args {
        postgres_pooler: pooler,
        postgres_acquire_timeout: SOON.into(),
        postgres_statement_timeout: Duration::from_millis(500).into(),
        ..Args::new(bouncer.url(&url).await.parse().unwrap())
    };
    Some((bouncer, args))
}

/// Applies migrations, works from many callers at once, and meets the limits.
async fn work_through(args: &Args) {
    Migrations::new("notes", &MIGRATIONS).apply(args).await.unwrap();
    Migrations::new("notes", &MIGRATIONS).check(args).await.unwrap();
    let postgres = Postgres::connect(args, "tidings-test").await.unwrap();

    let calls = (0..60_i32).map(|number| {
        let postgres = postgres.clone();
        tokio::spawn(async move {
            let work = postgres.run(async |connection| {
                let mut transaction = connection.begin().await?;
                let insert = sqlx::query("INSERT INTO note (id, body) VALUES ($1, $2)");
                insert.bind(i64::from(number)).bind(format!("note {number}")).execute(&mut *transaction).await?;
                let query = sqlx::query_scalar::<_, String>("SELECT body FROM note WHERE id = $1");
                let body = query.bind(i64::from(number)).fetch_one(&mut *transaction).await?;
                transaction.commit().await?;
                Ok(body)
            });
            (number, work.await)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        let (number, body) = call.await.unwrap();
        assert_eq!(body.unwrap(), format!("note {number}"));
    }
    assert_eq!(ask(&postgres, "SELECT count(*)::int FROM note").await.unwrap(), 60);

    let slow = ask(&postgres, "SELECT 1 FROM pg_sleep(60)").await.unwrap_err();
    assert!(matches!(slow, Fault::Retryable(_)), "{slow:?}");
    let twice = postgres.run(async |connection| execute(connection, "INSERT INTO note VALUES (1, 'x')").await).await;
    assert!(matches!(twice, Err(Fault::Unique(_))), "{twice:?}");
    assert!(postgres.ping(SOON).await, "{:?}", postgres.problem());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_through_a_pooler_in_transaction_mode_succeeds() {
    let configuration = "pool_mode = transaction\ndefault_pool_size = 3";
    let Some((_bouncer, args)) = pooled(configuration, Pooler::Transaction).await else { return };

    work_through(&args).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_through_a_pooler_in_session_mode_succeeds() {
    let configuration = "pool_mode = session\ndefault_pool_size = 25";
    let Some((_bouncer, args)) = pooled(configuration, Pooler::Session).await else { return };

    work_through(&args).await;
}

/// It refuses start-up parameters, ignores them, or shares servers between sessions.
#[tokio::test]
async fn a_pooler_that_is_not_configured_is_refused_with_the_cure() {
    let ignoring = "pool_mode = transaction\nignore_startup_parameters = extra_float_digits,options";
    for (configuration, pooler) in
        [("pool_mode = session", Pooler::None), (ignoring, Pooler::None), ("pool_mode = transaction", Pooler::Session)]
    {
        let Some((_bouncer, args)) = pooled(configuration, pooler).await else { return };

        let error = Postgres::connect(&args, "tidings-test").await.unwrap_err();

        let text = match &error {
            StartError::Connect(_, fault @ Fault::Refused(cause)) => format!("{error}: {fault}: {cause}"),
            error => error.to_string(),
        };
        assert!(!error.is_away(), "{text}");
        assert!(text.contains("set --postgres-pooler (TIDINGS_POSTGRES_POOLER) to its mode"), "{text}");
    }
}
