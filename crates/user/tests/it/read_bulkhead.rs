//! More callers than connections to Postgres.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture, join_all};
use sqlx::Connection as _;
use tidings_proto::user as pb;
use tidings_status::Failure;

use super::support::{SOON, TestEnv, UserInstance, eventually, into_result};

/// Counts statements that wait for a lock in Postgres.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name = 'tidings-user' AND wait_event_type = 'Lock'";

/// One read of each kind that reads Postgres.
fn reads(users: &UserInstance, number: usize) -> Vec<LocalBoxFuture<'_, Result<(), Failure>>> {
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
        async move { into_result(users.client().watch_users(watch).await).map(drop) }.boxed_local(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_all_kinds_leave_connections_to_writes() {
    let env = TestEnv::own().await;
    let users = env
        .serve_with(|config| {
            config.postgres.postgres_connections = 10;
            config.postgres.postgres_acquire_timeout = SOON.into();
            config.postgres.postgres_statement_timeout = (2 * SOON).into(); // half of it for a lock
        })
        .await;
    users.create_with_handle("ada", "ada").await.unwrap();
    eventually("the outbox is empty", SOON, async || env.outbox("ada").await == 0).await;
    let mut locking = env.sql().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE user_account IN ACCESS EXCLUSIVE MODE").execute(&mut locking).await.unwrap();

    let mut pending = pin!(join_all((0..10).flat_map(|number| reads(&users, number))));
    let mut write = pin!(users.create("bob"));
    let waiting = async |count: i64| {
        eventually(&format!("{count} statements wait"), SOON, async || env.count(WAITING).await == count).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(env.count(WAITING).await, count);
    };
    tokio::select! {
        _ = &mut pending => panic!("all reads wait"),
        () = waiting(7) => {} // of 10
    }
    tokio::select! {
        _ = &mut pending => panic!("all reads wait"),
        _ = &mut write => panic!("the write waits, too"),
        () = waiting(7 + 1) => {}
    }

    locking.close().await.unwrap();
    write.await.unwrap();
    for read in pending.await {
        read.unwrap();
    }
}
