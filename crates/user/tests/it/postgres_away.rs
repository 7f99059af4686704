//! Postgres killed and stopped: what is cached is answered and said to be stale, nothing is made up, nothing half done.

use std::time::Duration;

use tidings_proto::user as pb;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;
use tidings_status::Failure;
use tonic::Code;

use super::support::{SOON, Users, World, eventually, renaming};

/// What it takes to find out that there is no connection: long enough to get one on a busy machine.
const ACQUIRE: Duration = Duration::from_millis(600);

async fn start() -> (World, Users) {
    let world = World::own().await;
    let users = world
        .serve_with(|config| {
            config.postgres.postgres_acquire_timeout = ACQUIRE.into();
            config.postgres.postgres_statement_timeout = Duration::from_millis(500).into();
            config.cache.user_absent_ttl = Duration::from_mins(10).into();
        })
        .await;
    for id in ["ada", "bob", "cold"] {
        users.create(id).await.unwrap();
    }
    users.cache("ada").await;
    users.cache("bob").await;
    users.get("nobody").await.unwrap_err();
    assert!(world.cached("nobody"));
    (world, users)
}

fn expect_away<T: std::fmt::Debug>(answer: Result<T, Failure>) {
    let failure = answer.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{failure}");
    assert!(failure.retry_after.is_some());
}

async fn expect_noticed(users: &Users) {
    eventually("cached users are said to be stale", SOON, async || users.get("ada").await.unwrap().stale).await;
}

async fn expect_no_answer_is_made_up(users: &Users) {
    let read = users.get("ada").await.unwrap();
    assert_eq!((read.version, read.source, read.stale), (1, Source::Redis, true));
    expect_away(users.get("cold").await);
    expect_away(users.get("never-seen").await);
    expect_away(users.get("nobody").await); // known to be absent when Postgres was last heard of; who knows now
    expect_away(users.get_strong("ada").await);
    expect_away(users.get_at_least("ada", 2).await);

    let results = users.batch(&["ada", "cold", "nobody", "bob"]).await.unwrap();
    let outcomes: Vec<_> = results.iter().map(pb::BatchGetUsersResult::outcome).collect();
    assert_eq!(outcomes, [Outcome::Found, Outcome::Unavailable, Outcome::Unavailable, Outcome::Found]);
    assert!(results[0].read_info.unwrap().stale && results[3].read_info.unwrap().stale);
    expect_away(users.batch(&["cold", "nobody"]).await);
}

async fn expect_writes_refused(users: &Users) {
    expect_away(users.rename("ada", "lost").await);
    expect_away(users.create("new").await);
    expect_away(users.delete("bob").await);
}

/// Waits until everything works, then compares the layers.
async fn expect_recovery(world: &World, users: &Users) {
    eventually("reads are not stale", SOON, async || !users.get("ada").await.unwrap().stale).await;
    eventually("the relay is done", SOON, async || world.count("SELECT count(*) FROM cache_outbox").await == 0).await;
    for id in ["ada", "bob", "cold", "new"] {
        let (read, strong) = (users.get(id).await, users.get_strong(id).await);
        let version = |answer: &Result<super::support::Answer, Failure>| match answer {
            Ok(read) => Some((read.version, read.user.clone())),
            Err(failure) => {
                assert_eq!(failure.reason, "USER_NOT_FOUND");
                None
            }
        };
        assert_eq!(version(&read), version(&strong), "{id}");
    }
    assert_eq!(users.get("nobody").await.unwrap_err().code, Code::NotFound);
    let version = users.get_strong("ada").await.unwrap().version;
    let request = pb::UpdateUserRequest { expected_version: version, ..renaming("ada", "back") };
    assert_eq!(users.call_update(request).await.unwrap().version, version + 1);
    assert_eq!(users.get("ada").await.unwrap().version, version + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_is_unavailable_with_retry_info_or_stale_and_said_so() {
    let (world, users) = start().await;
    let postgres = world.stack().postgres();

    postgres.kill().await;
    expect_noticed(&users).await;
    expect_no_answer_is_made_up(&users).await;
    expect_writes_refused(&users).await;
    postgres.start().await.unwrap();

    expect_recovery(&world, &users).await;
    assert_eq!(users.get_strong("ada").await.unwrap().version, 2, "what was refused was not done");
    assert_eq!(users.get("new").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stopped_is_unavailable_with_retry_info_or_stale_and_said_so() {
    let (world, users) = start().await;
    let postgres = world.stack().postgres();

    postgres.pause();
    expect_noticed(&users).await;
    expect_no_answer_is_made_up(&users).await;
    expect_writes_refused(&users).await;
    postgres.resume();

    expect_recovery(&world, &users).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_ends_in_time_while_postgres_is_silent() {
    let (world, users) = start().await;
    world.stack().postgres().pause();
    let mut client = users.client();
    let waiting = tokio::spawn(async move { client.update_user(renaming("ada", "lost")).await });

    let ended = tokio::time::timeout(SOON, users.stop()).await;

    world.stack().postgres().resume();
    ended.unwrap();
    waiting.await.unwrap().unwrap_err();
}
