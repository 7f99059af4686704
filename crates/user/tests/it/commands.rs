//! What calls cost: commands in Redis, counted by Redis.

use std::collections::BTreeMap;

use tidings_proto::user::read_info::Source;

use super::support::{NEVER, SOON, Users, World, eventually};

/// Calls of commands since the last look. What scripts call is counted, too.
fn commands(world: &World) -> BTreeMap<String, u64> {
    let mut redis = world.redis();
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut redis).unwrap();
    redis::cmd("CONFIG").arg("RESETSTAT").exec(&mut redis).unwrap();
    let count = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    let ours = |name: &String| ["get", "mget", "set", "del", "eval", "evalsha", "script|load"].contains(&name.as_str());
    info.lines().filter_map(count).filter(|(name, _)| ours(name)).collect()
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect()
}

async fn start(world: &World) -> Users {
    let users = world.serve_without_relay().await;
    users.create("first").await.unwrap(); // Redis learns the scripts
    users.get("first").await.unwrap();
    users.get("first").await.unwrap();
    users.rename("first", "second").await.unwrap();
    users
}

#[tokio::test]
async fn every_call_costs_the_commands_that_it_must() {
    let world = World::own().await;
    let users = start(&world).await;
    let ids: Vec<String> = (0..500).map(|number| format!("nobody-{number}")).collect();
    commands(&world);

    users.create("ada").await.unwrap();
    assert_eq!(commands(&world), counts([("evalsha", 1), ("del", 1), ("get", 1)]), "a creation: one apply");

    assert_eq!(users.get("ada").await.unwrap().source, Source::Postgres);
    let lease_and_fill = counts([("evalsha", 2), ("get", 1 + 1 + 2), ("set", 2), ("del", 1)]);
    assert_eq!(commands(&world), lease_and_fill, "a cold read: a look, a lease, a fill");

    assert_eq!(users.get("ada").await.unwrap().source, Source::Redis);
    assert_eq!(commands(&world), counts([("get", 1)]), "a warm read: a look");

    users.batch(&ids).await.unwrap();
    let batch = counts([("mget", 1), ("evalsha", 1000), ("get", 1500), ("set", 1000), ("del", 500)]);
    assert_eq!(commands(&world), batch, "a cold batch: a look, 500 leases, 500 fills");

    users.batch(&ids).await.unwrap();
    assert_eq!(commands(&world), counts([("mget", 1)]), "a warm batch: a look");

    users.get_strong("ada").await.unwrap();
    assert_eq!(commands(&world), counts([]), "a strong read: nothing");
}

#[tokio::test]
async fn every_key_expires() {
    let world = World::shared().await;
    let users = world.serve_without_relay().await;
    users.create("ada").await.unwrap();
    users.get("ada").await.unwrap();
    users.get("nobody").await.unwrap_err();

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
async fn a_read_from_memory_costs_no_command() {
    let world = World::own().await;
    let users = world.serve_near_with(|config| config.cache.user_relay_tick = NEVER.into()).await;
    users.create("ada").await.unwrap();
    eventually("the relay is done", SOON, async || world.outbox("ada").await == 0).await;
    users.remember("ada").await;
    commands(&world);

    for _ in 0..100 {
        assert_eq!(users.get("ada").await.unwrap().source, Source::Near);
        assert_eq!(users.batch(&["ada"]).await.unwrap()[0].read_info.unwrap().source(), Source::Near);
    }

    assert_eq!(commands(&world), counts([]));
}
