//! Costs of calls. One more round trip is a regression.

use std::time::Duration;

use futures_util::future::join_all;
use tidings_devstack::Proxy;
use tidings_proto::user as pb;
use tidings_proto::user::read_info::Source;
use tidings_user::Config;
use tokio::task::JoinSet;

use super::costs::{Cost, CostRecorder, Costs};
use super::support::{FoundUser, NEVER, SOON, TestEnv, UserInstance, eventually, into_result};

/// A cost of round trips to Redis, statements in Postgres, and commands in Redis.
fn cost<const N: usize>(round_trips: u64, statements: u64, commands: [(&str, u64); N]) -> Cost {
    let commands = commands.into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect();
    Cost { round_trips, statements, commands }
}

async fn start(env: &TestEnv) -> UserInstance {
    let users = env.serve_without_relay().await;
    users.create("first").await.unwrap(); // loads the scripts into Redis
    users.get("first").await.unwrap();
    users.get("first").await.unwrap();
    users.rename("first", "second").await.unwrap();
    users.batch(&["nobody"]).await.unwrap();
    users
}

#[tokio::test]
async fn calls_cost_the_expected_round_trips_and_statements() {
    let (env, metrics) = (TestEnv::own().await, CostRecorder::default());
    let costs = Costs::count(&env, &metrics);
    let users = start(&env).await;
    let ids: Vec<String> = (0..500).map(|number| format!("nobody-{number}")).collect();
    costs.spent().await;

    users.create("ada").await.unwrap();
    let apply = cost(1, 1, [("evalsha", 1), ("del", 1), ("get", 1)]);
    assert_eq!(costs.spent().await, apply, "a creation: one apply");

    assert_eq!(users.get("ada").await.unwrap().source, Source::Postgres);
    let lease_and_fill = cost(3, 1, [("mget", 1), ("evalsha", 2), ("get", 1 + 2), ("set", 2), ("del", 1)]);
    assert_eq!(costs.spent().await, lease_and_fill, "a cold read: an MGET, a lease, a fill");

    assert_eq!(users.get("ada").await.unwrap().source, Source::Redis);
    assert_eq!(costs.spent().await, cost(1, 0, [("mget", 1)]), "a warm read: an MGET");

    users.rename("ada", "second").await.unwrap();
    let apply = cost(1, 1, [("evalsha", 1), ("del", 1), ("get", 1), ("set", 1)]);
    assert_eq!(costs.spent().await, apply, "an update: one apply");

    users.batch(&ids).await.unwrap();
    let batch = cost(3, 1, [("mget", 1), ("evalsha", 1000), ("get", 1500), ("set", 1000), ("del", 500)]);
    assert_eq!(costs.spent().await, batch, "a cold batch: an MGET, a pipeline of 500 leases, a pipeline of 500 fills");

    users.batch(&ids).await.unwrap();
    assert_eq!(costs.spent().await, cost(1, 0, [("mget", 1)]), "a warm batch: an MGET");

    users.get_strong("ada").await.unwrap();
    assert_eq!(costs.spent().await, cost(0, 1, []), "a strong read: no round trip to Redis");
}

#[tokio::test]
async fn the_relay_only_notifies_of_writes_already_applied() {
    let (env, metrics) = (TestEnv::own().await, CostRecorder::default());
    let costs = Costs::count(&env, &metrics);
    let tune = |config: &mut Config| {
        config.cache.user_relay_tick = NEVER.into();
        // Longer than the reply to an apply takes on a busy machine.
        config.cache.user_relay_gather = Duration::from_millis(300).into();
    };
    let users = env.serve_with(tune).await;
    let relayed = async || eventually("the outbox is empty", SOON, async || env.outbox("ada").await == 0).await;
    users.create("ada").await.unwrap(); // loads the scripts into Redis
    relayed().await;
    costs.spent().await;

    users.rename("ada", "second").await.unwrap();
    relayed().await;

    let apply_and_publish = cost(2, 1, [("evalsha", 1), ("del", 1), ("get", 1), ("publish", 1)]);
    assert_eq!(costs.spent().await, apply_and_publish);
}

/// They also cost the expected statements.
#[tokio::test]
async fn calls_by_handle_cost_the_expected_round_trips() {
    let (env, metrics) = (TestEnv::own().await, CostRecorder::default());
    let costs = Costs::count(&env, &metrics);
    let users = start(&env).await;
    users.create_with_handle("other", "other").await.unwrap();
    assert!(env.evict("h", "other"));
    users.by_handle("other").await.unwrap(); // loads the script into Redis
    costs.spent().await;

    users.create_with_handle("ada", "Ada").await.unwrap();
    let apply_and_hint = cost(2, 1, [("evalsha", 1), ("del", 1), ("get", 1), ("set", 1)]);
    assert_eq!(
        costs.spent().await,
        apply_and_hint,
        "a creation with a handle: the hint is set together with the apply"
    );
    users.rename("ada", "Countess").await.unwrap();
    let apply = cost(1, 1, [("evalsha", 1), ("del", 1), ("get", 1)]);
    assert_eq!(costs.spent().await, apply, "an update without a new handle: no hint");
    users.warm_redis("ada").await;
    costs.spent().await;

    assert_eq!(users.by_handle("ada").await.unwrap().source, Source::Redis);
    assert_eq!(costs.spent().await, cost(2, 0, [("get", 1), ("mget", 1)]), "warm: the hint, the profile");

    assert!(env.evict("h", "ada"));
    costs.spent().await;
    assert_eq!(users.by_handle("ada").await.unwrap().source, Source::Postgres);
    let get_and_hint = cost(2, 1, [("get", 1 + 1), ("evalsha", 1), ("set", 1)]);
    assert_eq!(costs.spent().await, get_and_hint, "cold: a GET, and a hint for the next read");

    users.by_handle("nobody").await.unwrap_err();
    assert_eq!(costs.spent().await, cost(1, 1, [("get", 1)]), "an unused handle: no hint is set");

    users.call_list(pb::ListUsersRequest::default()).await.unwrap();
    assert_eq!(costs.spent().await, cost(0, 1, []), "a list: no round trip to Redis");
}

#[tokio::test]
async fn every_key_expires() {
    let env = TestEnv::shared().await;
    let users = env.serve_without_relay().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    users.get("ada").await.unwrap();
    users.get("nobody").await.unwrap_err();

    let hint = || -> i64 { redis::cmd("PTTL").arg(&env.keys("h", "ada")[0]).query(&mut env.redis()).unwrap() };
    assert!((480_000..=690_000).contains(&hint()), "{}", hint());
    assert!(env.evict("h", "ada"));
    users.by_handle("ada").await.unwrap();
    assert!((480_000..=690_000).contains(&hint()), "{}", hint());

    let ttl = |id: &str| -> i64 { redis::cmd("PTTL").arg(&env.keys("u", id)[0]).query(&mut env.redis()).unwrap() };
    let hours = 3_600_000;
    assert!((20 * hours..=28 * hours).contains(&ttl("ada")), "{}", ttl("ada"));
    assert!((1..=17_250).contains(&ttl("nobody")), "{}", ttl("nobody"));

    users.rename("ada", "second").await.unwrap();
    assert!((20 * hours..=28 * hours).contains(&ttl("ada")));
    users.delete("ada").await.unwrap();
    assert!((1..=17_250).contains(&ttl("ada")));
}

#[tokio::test]
async fn a_read_from_the_local_cache_costs_nothing() {
    let (env, metrics) = (TestEnv::own().await, CostRecorder::default());
    let costs = Costs::count(&env, &metrics);
    let users = env
        .serve_from_local_cache_with(|config| {
            config.cache.user_relay_tick = NEVER.into();
        })
        .await;
    users.create("ada").await.unwrap();
    eventually("the outbox is empty", SOON, async || env.outbox("ada").await == 0).await;
    users.warm_local_cache("ada").await;
    costs.spent().await;

    for _ in 0..100 {
        assert_eq!(users.get("ada").await.unwrap().source, Source::LocalCache);
        assert_eq!(users.batch(&["ada"]).await.unwrap()[0].read_info.unwrap().source(), Source::LocalCache);
    }

    assert_eq!(costs.spent().await, cost(0, 0, []));
}

#[tokio::test]
async fn concurrent_reads_share_mgets_and_get_their_own_values() {
    const USERS: usize = 200;
    let (env, metrics) = (TestEnv::own().await, CostRecorder::default());
    let costs = Costs::count(&env, &metrics);
    let users = start(&env).await;
    let ids: Vec<String> = (0..USERS).map(|number| format!("user-{number}")).collect();
    for id in &ids {
        users.create(id).await.unwrap();
    }
    users.batch(&ids).await.unwrap();
    costs.spent().await;

    let mut reads = JoinSet::new();
    for id in ids {
        let mut client = users.client();
        reads.spawn(async move {
            let request = pb::GetUserRequest { id: id.clone(), ..Default::default() };
            let answer = FoundUser::from(into_result(client.get_user(request).await).unwrap());
            assert_eq!((answer.user.id, answer.source), (id, Source::Redis));
        });
    }
    while let Some(read) = reads.join_next().await {
        read.unwrap();
    }

    let round_trips = costs.spent().await.round_trips;
    assert!(round_trips < USERS as u64 / 2, "{round_trips} round trips for {USERS} reads");
}

/// Redis has an older version, and each reader needs a load that started after its call: the first
/// load serves its own caller, the second one all others.
#[tokio::test]
async fn a_herd_with_min_version_costs_two_statements() {
    const READERS: usize = 200;
    let (env, metrics) = (TestEnv::own().await, CostRecorder::default());
    let costs = Costs::count(&env, &metrics);
    let port = env.stack().postgres().port();
    let proxy = Proxy::to(([127, 0, 0, 1], port).into()).await.unwrap();
    let postgres_url = env.postgres_url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let users = start(&TestEnv { postgres_url, ..env.clone() }).await;
    users.create("ada").await.unwrap();
    users.warm_redis("ada").await;
    env.execute("UPDATE user_account SET version = 2 WHERE id = 'ada'").await; // bypasses the caches
    costs.spent().await;

    proxy.delay(Duration::from_millis(500)); // the herd gathers during the first load
    for read in join_all((0..READERS).map(|_| users.get_at_least("ada", 2))).await {
        assert_eq!(read.unwrap().version, 2);
    }

    let statements = costs.spent().await.statements;
    assert!(statements <= 2, "{statements} statements for {READERS} readers");
}
