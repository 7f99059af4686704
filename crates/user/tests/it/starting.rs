//! Start and stop of the service.

use tidings_user::ServeError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::support::TestEnv;

/// An environment with an empty database.
async fn bare() -> TestEnv {
    let env = TestEnv::shared().await;
    let name = format!("bare_{}", env.prefix);
    env.stack().postgres().create_database(&name).await.unwrap();
    TestEnv { postgres_url: env.stack().postgres().url(&name), ..env }
}

#[tokio::test]
async fn a_pending_migration_refuses_to_start_and_changes_nothing() {
    let env = bare().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

    let refusal = tidings_user::serve(env.config(), listener, CancellationToken::new()).await.unwrap_err();

    assert!(matches!(refusal, ServeError::Migrate(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("run the service's `migrate` command"), "{refusal}");
    assert_eq!(env.count("SELECT count(*) FROM pg_stat_user_tables").await, 0);
}

#[tokio::test]
async fn a_service_with_migrate_applies_migrations_and_serves() {
    let env = bare().await;

    let users = env.serve_with(|config| config.migrate = true).await;

    assert_eq!(users.create("ada").await.unwrap().version, 1);
}

#[tokio::test]
async fn a_stopped_service_ends_though_clients_stay_connected() {
    let users = TestEnv::shared().await.serve().await;
    let _connected = users.client();
    users.create("ada").await.unwrap();

    tokio::time::timeout(super::support::SOON, users.stop()).await.unwrap();
}
