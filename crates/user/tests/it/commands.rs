//! What calls cost. One round trip more is a regression.

use tidings_proto::user as pb;
use tidings_proto::user::read_info::Source;
use tokio::task::JoinSet;

use super::costs::{Cost, Costs, Numbers};
use super::support::{Answer, NEVER, SOON, Users, World, eventually, told};

/// Round trips to Redis, statements in Postgres, and the commands that Redis runs for it.
fn cost<const N: usize>(round_trips: u64, statements: u64, commands: [(&str, u64); N]) -> Cost {
    let commands = commands.into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect();
    Cost { round_trips, statements, commands }
}

async fn start(world: &World) -> Users {
    let users = world.serve_without_relay().await;
    users.create("first").await.unwrap(); // Redis learns the scripts
    users.get("first").await.unwrap();
    users.get("first").await.unwrap();
    users.rename("first", "second").await.unwrap();
    users.batch(&["nobody"]).await.unwrap();
    users
}

#[tokio::test]
async fn every_call_costs_the_round_trips_and_statements_that_it_must() {
    let (world, numbers) = (World::own().await, Numbers::default());
    let costs = Costs::count(&world, &numbers);
    let users = start(&world).await;
    let ids: Vec<String> = (0..500).map(|number| format!("nobody-{number}")).collect();
    costs.spent().await;

    users.create("ada").await.unwrap();
    let apply = cost(1, 1, [("evalsha", 1), ("del", 1), ("get", 1)]);
    assert_eq!(costs.spent().await, apply, "a creation: one apply");

    assert_eq!(users.get("ada").await.unwrap().source, Source::Postgres);
    let lease_and_fill = cost(3, 1, [("mget", 1), ("evalsha", 2), ("get", 1 + 2), ("set", 2), ("del", 1)]);
    assert_eq!(costs.spent().await, lease_and_fill, "a cold read: a look, a lease, a fill");

    assert_eq!(users.get("ada").await.unwrap().source, Source::Redis);
    assert_eq!(costs.spent().await, cost(1, 0, [("mget", 1)]), "a warm read: a look");

    users.rename("ada", "second").await.unwrap();
    let apply = cost(1, 1, [("evalsha", 1), ("del", 1), ("get", 1), ("set", 1)]);
    assert_eq!(costs.spent().await, apply, "a change: one apply");

    users.batch(&ids).await.unwrap();
    let batch = cost(3, 1, [("mget", 1), ("evalsha", 1000), ("get", 1500), ("set", 1000), ("del", 500)]);
    assert_eq!(costs.spent().await, batch, "a cold batch: a look, 500 leases at once, 500 fills at once");

    users.batch(&ids).await.unwrap();
    assert_eq!(costs.spent().await, cost(1, 0, [("mget", 1)]), "a warm batch: a look");

    users.get_strong("ada").await.unwrap();
    assert_eq!(costs.spent().await, cost(0, 1, []), "a strong read: nothing of Redis");
}

#[tokio::test]
async fn the_relay_tells_only_those_who_watch_of_what_the_writer_told_the_cache() {
    let (world, numbers) = (World::own().await, Numbers::default());
    let costs = Costs::count(&world, &numbers);
    let users = world.serve_with(|config| config.cache.user_relay_tick = NEVER.into()).await;
    let relayed = async || eventually("the relay is done", SOON, async || world.outbox("ada").await == 0).await;
    users.create("ada").await.unwrap(); // Redis learns the scripts
    relayed().await;
    costs.spent().await;

    users.rename("ada", "second").await.unwrap();
    relayed().await;

    let apply_and_news = cost(2, 1, [("evalsha", 1), ("del", 1), ("get", 1), ("publish", 1)]);
    assert_eq!(costs.spent().await, apply_and_news);
}

#[tokio::test]
async fn every_call_about_handles_costs_the_round_trips_and_statements_that_it_must() {
    let (world, numbers) = (World::own().await, Numbers::default());
    let costs = Costs::count(&world, &numbers);
    let users = start(&world).await;
    users.create_with_handle("other", "other").await.unwrap();
    assert!(world.evict("h", "other"));
    users.by_handle("other").await.unwrap(); // Redis learns the script
    costs.spent().await;

    users.create_with_handle("ada", "Ada").await.unwrap();
    let apply_and_hint = cost(2, 1, [("evalsha", 1), ("del", 1), ("get", 1), ("set", 1)]);
    assert_eq!(costs.spent().await, apply_and_hint, "who gets a handle says so, at once with the apply");
    users.rename("ada", "Countess").await.unwrap();
    let apply = cost(1, 1, [("evalsha", 1), ("del", 1), ("get", 1)]);
    assert_eq!(costs.spent().await, apply, "the handle is no news");
    users.cache("ada").await;
    costs.spent().await;

    assert_eq!(users.by_handle("ada").await.unwrap().source, Source::Redis);
    assert_eq!(costs.spent().await, cost(2, 0, [("get", 1), ("mget", 1)]), "warm: the hint, the profile");

    assert!(world.evict("h", "ada"));
    costs.spent().await;
    assert_eq!(users.by_handle("ada").await.unwrap().source, Source::Postgres);
    let look_and_hint = cost(2, 1, [("get", 1 + 1), ("evalsha", 1), ("set", 1)]);
    assert_eq!(costs.spent().await, look_and_hint, "cold: a look, and a hint for the next");

    users.by_handle("nobody").await.unwrap_err();
    assert_eq!(costs.spent().await, cost(1, 1, [("get", 1)]), "of nobody there is no hint");

    users.call_list(pb::ListUsersRequest::default()).await.unwrap();
    assert_eq!(costs.spent().await, cost(0, 1, []), "a list: nothing of Redis");
}

#[tokio::test]
async fn every_key_expires() {
    let world = World::shared().await;
    let users = world.serve_without_relay().await;
    users.create_with_handle("ada", "ada").await.unwrap();
    users.get("ada").await.unwrap();
    users.get("nobody").await.unwrap_err();

    let hint = || -> i64 { redis::cmd("PTTL").arg(&world.keys("h", "ada")[0]).query(&mut world.redis()).unwrap() };
    assert!((480_000..=690_000).contains(&hint()), "{}", hint());
    assert!(world.evict("h", "ada"));
    users.by_handle("ada").await.unwrap();
    assert!((480_000..=690_000).contains(&hint()), "{}", hint());

    let life = |id: &str| -> i64 { redis::cmd("PTTL").arg(&world.keys("u", id)[0]).query(&mut world.redis()).unwrap() };
    let hours = 3_600_000;
    assert!((20 * hours..=28 * hours).contains(&life("ada")), "{}", life("ada"));
    assert!((1..=17_250).contains(&life("nobody")), "{}", life("nobody"));

    users.rename("ada", "second").await.unwrap();
    assert!((20 * hours..=28 * hours).contains(&life("ada")));
    users.delete("ada").await.unwrap();
    assert!((1..=17_250).contains(&life("ada")));
}

#[tokio::test]
async fn a_read_from_memory_costs_nothing() {
    let (world, numbers) = (World::own().await, Numbers::default());
    let costs = Costs::count(&world, &numbers);
    let users = world
        .serve_near_with(|config| {
            config.cache.user_relay_tick = NEVER.into();
        })
        .await;
    users.create("ada").await.unwrap();
    eventually("the relay is done", SOON, async || world.outbox("ada").await == 0).await;
    users.remember("ada").await;
    costs.spent().await;

    for _ in 0..100 {
        assert_eq!(users.get("ada").await.unwrap().source, Source::Near);
        assert_eq!(users.batch(&["ada"]).await.unwrap()[0].read_info.unwrap().source(), Source::Near);
    }

    assert_eq!(costs.spent().await, cost(0, 0, []));
}

#[tokio::test]
async fn reads_at_once_share_their_looks_and_each_gets_its_own_answer() {
    const USERS: usize = 200;
    let (world, numbers) = (World::own().await, Numbers::default());
    let costs = Costs::count(&world, &numbers);
    let users = start(&world).await;
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
            let answer = Answer::from(told(client.get_user(request).await).unwrap());
            assert_eq!((answer.user.id, answer.source), (id, Source::Redis));
        });
    }
    while let Some(read) = reads.join_next().await {
        read.unwrap();
    }

    let looks = costs.spent().await.round_trips;
    assert!(looks < USERS as u64 / 2, "{looks} questions for {USERS} reads");
}
