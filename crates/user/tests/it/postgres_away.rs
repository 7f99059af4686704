//! Postgres killed and paused: cached users are served as stale, all other calls fail, no write is
//! half done.

use std::time::Duration;

use tidings_proto::user as pb;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;
use tidings_status::Failure;
use tonic::Code;

use super::support::{SOON, TestEnv, UserInstance, eventually, renaming};

/// Acquire timeout: short for an outage, long enough to get a connection on a busy machine.
const ACQUIRE: Duration = Duration::from_millis(600);

async fn start() -> (TestEnv, UserInstance) {
    let env = TestEnv::own().await;
    let users = env
        .serve_with(|config| {
            config.postgres.postgres_acquire_timeout = ACQUIRE.into();
            config.postgres.postgres_statement_timeout = Duration::from_millis(500).into();
            config.cache.user_absent_ttl = Duration::from_mins(10).into();
        })
        .await;
    for id in ["ada", "bob", "cold"] {
        users.create(id).await.unwrap();
    }
    users.warm_redis("ada").await;
    users.warm_redis("bob").await;
    users.get("nobody").await.unwrap_err();
    assert!(env.cached("nobody"));
    (env, users)
}

fn expect_unavailable<T: std::fmt::Debug>(answer: Result<T, Failure>) {
    let failure = answer.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "STORE_AWAY"), "{failure}");
    assert!(failure.retry_after.is_some());
}

async fn expect_outage_noticed(users: &UserInstance) {
    eventually("cached users are stale", SOON, async || users.get("ada").await.unwrap().stale).await;
}

async fn expect_stale_answers_or_unavailable(users: &UserInstance) {
    let read = users.get("ada").await.unwrap();
    assert_eq!((read.version, read.source, read.stale), (1, Source::Redis, true));
    expect_unavailable(users.get("cold").await);
    expect_unavailable(users.get("never-seen").await);
    expect_unavailable(users.get("nobody").await); // cached as absent, but may exist by now
    expect_unavailable(users.get_strong("ada").await);
    expect_unavailable(users.get_at_least("ada", 2).await);

    let results = users.batch(&["ada", "cold", "nobody", "bob"]).await.unwrap();
    let outcomes: Vec<_> = results.iter().map(pb::BatchGetUsersResult::outcome).collect();
    assert_eq!(outcomes, [Outcome::Found, Outcome::Unavailable, Outcome::Unavailable, Outcome::Found]);
    assert!(results[0].read_info.unwrap().stale && results[3].read_info.unwrap().stale);
    expect_unavailable(users.batch(&["cold", "nobody"]).await);
}

async fn expect_writes_refused(users: &UserInstance) {
    expect_unavailable(users.rename("ada", "lost").await);
    expect_unavailable(users.create("new").await);
    expect_unavailable(users.delete("bob").await);
}

/// Waits for the recovery, then compares the layers.
async fn expect_recovery(env: &TestEnv, users: &UserInstance) {
    eventually("reads are not stale", SOON, async || !users.get("ada").await.unwrap().stale).await;
    eventually("the outbox is empty", SOON, async || env.count("SELECT count(*) FROM cache_outbox").await == 0).await;
    for id in ["ada", "bob", "cold", "new"] {
        let (read, strong) = (users.get(id).await, users.get_strong(id).await);
        let version = |answer: &Result<super::support::FoundUser, Failure>| match answer {
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
async fn killed_postgres_means_stale_answers_or_unavailable() {
    let (env, users) = start().await;
    let postgres = env.stack().postgres();

    postgres.kill().await;
    expect_outage_noticed(&users).await;
    expect_stale_answers_or_unavailable(&users).await;
    expect_writes_refused(&users).await;
    postgres.start().await.unwrap();

    expect_recovery(&env, &users).await;
    assert_eq!(users.get_strong("ada").await.unwrap().version, 2, "refused writes were not done");
    assert_eq!(users.get("new").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_postgres_means_stale_answers_or_unavailable() {
    let (env, users) = start().await;
    let postgres = env.stack().postgres();

    postgres.pause();
    expect_outage_noticed(&users).await;
    expect_stale_answers_or_unavailable(&users).await;
    expect_writes_refused(&users).await;
    postgres.resume();

    expect_recovery(&env, &users).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_ends_in_time_while_postgres_is_paused() {
    let (env, users) = start().await;
    env.stack().postgres().pause();
    let mut client = users.client();
    let waiting = tokio::spawn(async move { client.update_user(renaming("ada", "lost")).await });

    let ended = tokio::time::timeout(SOON, users.stop()).await;

    env.stack().postgres().resume();
    ended.unwrap();
    waiting.await.unwrap().unwrap_err();
}
