//! More callers than there are connections to Postgres.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture, join_all};
use sqlx::Connection as _;
use tidings_proto::user as pb;
use tidings_status::Failure;

use super::support::{SOON, Users, World, eventually, told};

/// Calls that wait in Postgres.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name = 'tidings-user' AND wait_event_type = 'Lock'";

/// A read of every kind that Postgres answers.
fn reads(users: &Users, number: usize) -> Vec<LocalBoxFuture<'_, Result<(), Failure>>> {
    let id = format!("nobody-{number}");
    let strong = pb::BatchGetUsersRequest { ids: vec![id.clone()], consistency: pb::Consistency::Strong.into() };
    let handle = pb::GetUserByHandleRequest {
        handle: "ada".to_owned(),
        consistency: pb::Consistency::Strong.into(),
        ..Default::default()
    };
    let prefixed = pb::ListUsersRequest { handle_prefix: "a".to_owned(), ..Default::default() };
    let watch = pb::WatchUsersRequest { ids: vec!["ada".to_owned()] };
    vec![
        async move { users.batch(&[id]).await.map(drop) }.boxed_local(),
        async move { users.call_batch(strong).await.map(drop) }.boxed_local(),
        async move { users.get_strong("ada").await.map(drop) }.boxed_local(),
        async move { users.by_handle("ada").await.map(drop) }.boxed_local(),
        async move { users.call_by_handle(handle).await.map(drop) }.boxed_local(),
        async move { users.call_list(pb::ListUsersRequest::default()).await.map(drop) }.boxed_local(),
        async move { users.call_list(prefixed).await.map(drop) }.boxed_local(),
        async move { told(users.client().watch_users(watch).await).map(drop) }.boxed_local(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_every_kind_together_leave_connections_to_writes() {
    let world = World::own().await;
    let users = world
        .serve_with(|config| {
            config.postgres.postgres_connections = 10;
            config.postgres.postgres_acquire_timeout = SOON.into();
            config.postgres.postgres_statement_timeout = (2 * SOON).into(); // half of it for a lock
        })
        .await;
    users.create_with_handle("ada", "ada").await.unwrap();
    eventually("the relay is done", SOON, async || world.outbox("ada").await == 0).await;
    let mut locking = world.sql().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE user_account IN ACCESS EXCLUSIVE MODE").execute(&mut locking).await.unwrap();

    let mut crowd = pin!(join_all((0..10).flat_map(|number| reads(&users, number))));
    let mut write = pin!(users.create("bob"));
    let waiting = async |count: i64| {
        eventually(&format!("{count} wait"), SOON, async || world.count(WAITING).await == count).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(world.count(WAITING).await, count);
    };
    tokio::select! {
        _ = &mut crowd => panic!("all reads wait"),
        () = waiting(7) => {} // of 10
    }
    tokio::select! {
        _ = &mut crowd => panic!("all reads wait"),
        _ = &mut write => panic!("it waits, too"),
        () = waiting(7 + 1) => {}
    }

    locking.close().await.unwrap();
    write.await.unwrap();
    for read in crowd.await {
        read.unwrap();
    }
}
