//! Tests of BatchGetUsers.

use std::time::Duration;

use tidings_proto::user as pb;
use tidings_proto::user::batch_get_users_result::Outcome;
use tidings_proto::user::read_info::Source;
use tonic::Code;

use super::support::{SOON, TestEnv, UserInstance, eventually};

/// Repeated and unknown ids have a result each.
#[tokio::test]
async fn results_have_the_order_of_the_ids() {
    let users = UserInstance::start().await;
    for id in ["ada", "bob", "cleo"] {
        users.create(id).await.unwrap();
    }
    users.warm_redis("bob").await;
    users.delete("cleo").await.unwrap();
    let ids = ["bob", "nobody", "ada", "bob", "cleo", "ada"];

    let results = users.batch(&ids).await.unwrap();

    let received: Vec<_> = results.iter().map(|result| (result.id.as_str(), result.outcome())).collect();
    let expected =
        [Outcome::Found, Outcome::NotFound, Outcome::Found, Outcome::Found, Outcome::NotFound, Outcome::Found];
    assert_eq!(received, ids.into_iter().zip(expected).collect::<Vec<_>>());
    for result in &results {
        let id = result.user.as_ref().map(|user| user.id.as_str());
        assert_eq!(id, (result.outcome() == Outcome::Found).then_some(result.id.as_str()));
        assert!(result.read_info.is_some());
    }
    assert_eq!(results[0].read_info.unwrap().source(), Source::Redis);
    assert_eq!(results[2].read_info.unwrap().source(), Source::Postgres);
}

#[tokio::test]
async fn five_hundred_ids_are_answered_and_more_or_none_are_refused() {
    let env = TestEnv::shared().await;
    env.execute(
        "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
         SELECT 'user-' || n, '', 'number ' || n, '', '', '{}', 1 FROM generate_series(0, 499) AS n",
    )
    .await;
    let users = env.serve().await;
    let ids: Vec<String> = (0..501).map(|number| format!("user-{number}")).collect();

    let cold = users.batch(&ids[..500]).await.unwrap();
    let warm = users.batch(&ids[..500]).await.unwrap();
    let failure = users.batch(&ids).await.unwrap_err();
    let none = users.batch::<&str>(&[]).await.unwrap_err();

    for (number, (cold, warm)) in cold.iter().zip(&warm).enumerate() {
        let user = cold.user.as_ref().unwrap();
        assert_eq!((user.id.as_str(), user.display_name.as_str()), (&*ids[number], &*format!("number {number}")));
        assert_eq!(warm.user.as_ref(), Some(user));
        assert_eq!(warm.read_info.unwrap().source(), Source::Redis);
    }
    for failure in [failure, none] {
        assert_eq!(failure.code, Code::InvalidArgument);
        assert_eq!(failure.violations[0].field, "ids");
    }
}

#[tokio::test]
async fn a_strong_batch_is_answered_by_postgres() {
    let env = TestEnv::shared().await;
    let users = env.serve_without_relay().await;
    users.create("ada").await.unwrap();
    users.warm_redis("ada").await;
    env.execute("UPDATE user_account SET version = 7").await; // bypasses the caches

    let ids = vec!["ada".to_owned()];
    let request = pb::BatchGetUsersRequest { ids, consistency: pb::Consistency::Strong.into() };
    let results = users.call_batch(request).await.unwrap();

    assert_eq!(results[0].user.as_ref().unwrap().version, 7);
    assert_eq!(users.get("ada").await.unwrap().version, 1);
}

#[tokio::test]
async fn a_batch_of_the_largest_users_fits_what_clients_can_read() {
    let env = TestEnv::shared().await;
    env.execute(
        "INSERT INTO user_account (id, handle, display_name, avatar_uri, bio, attributes, version) \
         SELECT 'user-' || n, '', repeat('x', 256), repeat('x', 2048), repeat('x', 4096), \
                jsonb_build_object('x', repeat('x', 4095)), 1 FROM generate_series(0, 499) AS n",
    )
    .await;
    let users = env.serve().await;
    let ids: Vec<String> = (0..500).map(|number| format!("user-{number}")).collect();

    let results = users.batch(&ids).await.unwrap();

    let found = results.iter().filter(|result| result.outcome() == Outcome::Found).count();
    assert!((300..500).contains(&found), "{found}");
    assert!(results[found..].iter().all(|result| result.outcome() == Outcome::Unavailable), "the rest is UNAVAILABLE");
    let rest = users.batch(&ids[found..]).await.unwrap();
    assert!(rest.iter().all(|result| result.outcome() == Outcome::Found));
}

/// Other readers of its users would wait for a fill that never comes.
#[tokio::test]
async fn a_cancelled_batch_fills_what_it_has_leased() {
    let env = TestEnv::shared().await;
    let users = env.serve_without_relay().await;
    users.create("ada").await.unwrap();
    let mut locking = env.sql().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE user_account IN ACCESS EXCLUSIVE MODE").execute(&mut locking).await.unwrap();

    let leased = eventually("the batch has its leases", SOON, async || !env.keys("l", "ada").is_empty());
    tokio::select! {
        _ = users.batch(&["ada"]) => panic!("the batch waits for Postgres"),
        () = leased => {} // the call is cancelled
    }
    tokio::time::sleep(Duration::from_millis(200)).await; // the server has noticed
    sqlx::raw_sql("ROLLBACK").execute(&mut locking).await.unwrap();

    eventually("the value is filled", SOON, async || env.cached("ada")).await;
    assert_eq!(env.keys("l", "ada"), [""; 0]);
}

#[tokio::test]
async fn a_batch_that_cannot_read_postgres_releases_its_leases() {
    let env = TestEnv::shared().await;
    let users = env
        .serve_with(|config| {
            config.postgres.postgres_statement_timeout = Duration::from_millis(500).into();
            config.cache.user_lease_ttl = Duration::from_mins(1).into();
        })
        .await;
    users.create("ada").await.unwrap();
    let mut locking = env.sql().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE user_account IN ACCESS EXCLUSIVE MODE").execute(&mut locking).await.unwrap();

    let leased = eventually("the batch has its leases", SOON, async || !env.keys("l", "ada").is_empty());
    let (answer, ()) = tokio::join!(users.batch(&["ada"]), leased);

    answer.unwrap_err();
    assert_eq!(env.keys("l", "ada"), [""; 0]);
}
