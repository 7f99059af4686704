//! The handles of both servers: start, kill, pause and databases.

use redis::Commands;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use tidings_devstack::{Dir, testing};

use super::{execute, ping, query_text, redis, start};

static MIGRATIONS: Migrator = sqlx::migrate!("tests/migrations");

#[tokio::test]
async fn both_servers_answer_and_listen_on_loopback_only() {
    let stack = testing::shared().await;

    assert_eq!(ping(stack).unwrap(), "PONG");
    let bind: Vec<String> = redis::cmd("CONFIG").arg("GET").arg("bind").query(&mut redis(stack).unwrap()).unwrap();
    assert_eq!(bind[1], "127.0.0.1");
    assert_eq!(query_text(stack, "SHOW listen_addresses").await.unwrap(), "127.0.0.1");
    assert_eq!(query_text(stack, "SHOW unix_socket_directories").await.unwrap(), "");
    assert_eq!(query_text(stack, "SHOW max_connections").await.unwrap(), "400");
    assert_eq!(query_text(stack, "SHOW server_encoding").await.unwrap(), "UTF8");
    assert_eq!(query_text(stack, "SHOW synchronous_commit").await.unwrap(), "on");
}

#[tokio::test]
async fn every_test_gets_a_migrated_database_of_its_own() {
    let stack = testing::shared().await;
    let make = || testing::database(stack, &MIGRATIONS, "note");

    let (first, second, third) = tokio::join!(make(), make(), make());

    assert!(first != second && second != third && first != third);
    for url in [first, second, third] {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::query("INSERT INTO note (id, body) VALUES (1, 'mine')").execute(&mut connection).await.unwrap();
    }
    assert_ne!(testing::key_prefix(), testing::key_prefix());
}

#[tokio::test]
async fn a_database_may_be_created_twice_and_dropped_twice() {
    let stack = testing::shared().await;
    let postgres = stack.postgres();

    postgres.create_database("with \"quotes\"").await.unwrap();
    postgres.create_database("with \"quotes\"").await.unwrap();
    postgres.drop_database("with \"quotes\"").await.unwrap();
    postgres.drop_database("with \"quotes\"").await.unwrap();
}

#[tokio::test]
async fn killed_postgres_keeps_committed_rows_and_its_port() {
    let stack = start(Dir::Temporary).await;
    let (port, pid) = (stack.postgres().port(), stack.postgres().pid());
    execute(&stack, "CREATE TABLE kept AS SELECT 'committed' AS word").await;

    stack.postgres().kill().await;
    assert!(!stack.postgres().running());
    assert!(query_text(&stack, "SELECT word FROM kept").await.is_err());
    stack.postgres().start().await.unwrap();

    assert_eq!(query_text(&stack, "SELECT word FROM kept").await.unwrap(), "committed");
    assert_eq!(stack.postgres().port(), port);
    assert_ne!(stack.postgres().pid(), pid);
}

#[tokio::test]
async fn postgres_killed_amid_work_leaves_no_backend_behind() {
    let stack = start(Dir::Temporary).await;
    let mut busy = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut busy).await.unwrap();
    let work = tokio::spawn(async move { sqlx::query("SELECT pg_sleep(60)").execute(&mut busy).await.map(drop) });

    stack.postgres().kill().await;

    assert!(!super::alive(backend.cast_unsigned()));
    assert!(work.await.unwrap().is_err());
    stack.postgres().start().await.unwrap();
}

#[tokio::test]
async fn killed_redis_answers_again_on_the_same_port() {
    let stack = start(Dir::Temporary).await;
    let port = stack.redis().port();
    let mut connection = redis(&stack).unwrap();
    let () = connection.set("saved", 1).unwrap();
    let () = redis::cmd("SAVE").query(&mut connection).unwrap();
    let () = connection.set("unsaved", 1).unwrap();

    stack.redis().kill().await;
    assert!(ping(&stack).is_err());
    stack.redis().start().await.unwrap();

    let found: (bool, bool) = {
        let mut connection = redis(&stack).unwrap();
        (connection.exists("saved").unwrap(), connection.exists("unsaved").unwrap())
    };
    assert_eq!(found, (true, false));
    assert_eq!(stack.redis().port(), port);
}

#[tokio::test]
async fn paused_servers_answer_only_after_a_resume() {
    let stack = start(Dir::Temporary).await;
    let mut open = PgConnection::connect(&stack.postgres().maintenance_url()).await.unwrap();

    stack.redis().pause();
    stack.postgres().pause();
    assert!(ping(&stack).is_err());
    let silent = tokio::time::timeout(std::time::Duration::from_millis(300), open.ping()).await;
    assert!(silent.is_err());
    assert!(stack.redis().running() && stack.postgres().running());

    stack.redis().resume();
    stack.postgres().resume();
    assert_eq!(ping(&stack).unwrap(), "PONG");
    assert_eq!(query_text(&stack, "SELECT 'awake'").await.unwrap(), "awake");
}

#[tokio::test]
async fn stopped_servers_start_again() {
    let stack = start(Dir::Temporary).await;
    tokio::join!(stack.postgres().stop(), stack.redis().stop());
    assert!(!stack.postgres().running() && !stack.redis().running());

    stack.postgres().start().await.unwrap();
    stack.redis().start().await.unwrap();

    assert_eq!(ping(&stack).unwrap(), "PONG");
    assert_eq!(query_text(&stack, "SELECT 'back'").await.unwrap(), "back");
}

#[tokio::test]
async fn a_paused_stack_can_be_stopped() {
    let stack = start(Dir::Temporary).await;
    let (postgres, redis) = (stack.postgres().pid().unwrap(), stack.redis().pid().unwrap());
    let dir = stack.dir().to_owned();
    stack.postgres().pause();
    stack.redis().pause();

    stack.stop().await;

    assert!(!super::alive(postgres) && !super::alive(redis));
    assert!(!dir.exists());
}
