//! What must be before the service starts.

use tidings_user::ServeError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::support::World;

/// A world whose database has nothing in it.
async fn bare() -> World {
    let world = World::shared().await;
    let name = format!("bare_{}", world.prefix);
    world.stack().postgres().create_database(&name).await.unwrap();
    World { postgres_url: world.stack().postgres().url(&name), ..world }
}

#[tokio::test]
async fn a_pending_migration_refuses_to_start_and_changes_nothing() {
    let world = bare().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();

    let refusal = tidings_user::serve(world.config(), listener, CancellationToken::new()).await.unwrap_err();

    assert!(matches!(refusal, ServeError::Migrate(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("run the service's `migrate` command"), "{refusal}");
    assert_eq!(world.count("SELECT count(*) FROM pg_stat_user_tables").await, 0);
}

#[tokio::test]
async fn a_service_that_may_migrate_does_and_serves() {
    let world = bare().await;

    let users = world.serve_with(|config| config.migrate = true).await;

    assert_eq!(users.create("ada").await.unwrap().version, 1);
}

#[tokio::test]
async fn a_service_that_was_told_to_stop_ends_though_clients_stay_connected() {
    let users = World::shared().await.serve().await;
    let _stays = users.client();
    users.create("ada").await.unwrap();

    tokio::time::timeout(super::support::SOON, users.stop()).await.unwrap();
}
