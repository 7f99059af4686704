//! The memory of an instance, and what it does not hear, or hears at the worst moment.
//!
//! The naive cache has no memory, so these races have no twin. That they bite was tried out: each fails when the step that it is
//! about is taken out of the code.

use std::time::Duration;

use fail::FailScenario;
use tidings_devstack::Proxy;
use tidings_proto::user::read_info::Source;
use tidings_user::Config;

use super::{reading, writing};
use crate::BEFORE_APPLY;
use crate::held::Held;
use crate::support::{NEVER, SOON, Users, World, eventually, no_relay};

/// Between the answer of Redis and its way into the memory.
const BEFORE_NEAR: &str = "user::before_near";

/// What is remembered stays until it is heard that it changed; nobody relays.
fn lasting(config: &mut Config) {
    no_relay(config);
    config.cache.user_near_ttl = NEVER.into();
}

/// An instance that writes, and one that remembers; `ada` is in Redis.
async fn writer_and_reader(world: &World) -> (Users, Users) {
    let (writer, reader) = (world.serve_without_relay().await, world.serve_near_with(lasting).await);
    writer.create("ada").await.unwrap();
    writer.cache("ada").await;
    (writer, reader)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_of_redis_is_not_remembered_if_it_is_heard_meanwhile_that_it_changed() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (writer, reader) = writer_and_reader(&world).await;
    writer.create("mark").await.unwrap();
    reader.remember("mark").await;

    let held = Held::first_at(BEFORE_NEAR);
    let slow = reading(&reader);
    held.arrived().await;
    writer.rename("ada", "second").await.unwrap();
    // What Redis tells it tells in order: who has heard of the mark has heard of `ada`.
    writer.rename("mark", "second").await.unwrap();
    eventually("it is heard", SOON, async || reader.get("mark").await.unwrap().version == 2).await;
    held.release();

    assert_eq!(slow.await.unwrap(), Some(1), "what it had read before the change");
    assert_eq!(reader.get("ada").await.unwrap().version, 2);
    reader.remember("ada").await;
    assert_eq!(reader.get("ada").await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_write_of_its_own_replaced_is_not_remembered_by_a_reader_who_was_slower() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let users = world.serve_near_with(lasting).await;
    users.create("ada").await.unwrap();
    users.get("ada").await.unwrap();

    let held = Held::first_at(BEFORE_NEAR);
    let slow = reading(&users);
    held.arrived().await;
    users.rename("ada", "second").await.unwrap();
    held.release();

    assert_eq!(slow.await.unwrap(), Some(1));
    assert_eq!(users.get("ada").await.unwrap().version, 2, "at once, whatever was heard of Redis");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tracking_connection_that_is_cut_clears_the_memory() {
    let _scenario = FailScenario::setup();
    let world = World::own().await;
    let (writer, reader) = writer_and_reader(&world).await;
    reader.remember("ada").await;

    // The change reaches Postgres, and Redis only in the step in which the connection is killed: nobody can be told of it.
    let held = Held::first_at(BEFORE_APPLY);
    let paused = writing(&writer, "second");
    held.arrived().await;
    let mut cut = redis::pipe();
    cut.atomic();
    for client in tracking(&world) {
        cut.cmd("CLIENT").arg("KILL").arg("ID").arg(client);
    }
    for key in world.keys("u", "ada") {
        cut.del(key);
    }
    let _: Vec<u64> = cut.query(&mut world.redis()).unwrap();
    held.release();
    assert_eq!(paused.await.unwrap(), 2);

    eventually("the memory is empty", SOON, async || reader.get("ada").await.unwrap().version == 2).await;
    reader.remember("ada").await;
    assert_eq!(reader.get("ada").await.unwrap().version, 2, "the next connection tells of changes");
    writer.rename("ada", "third").await.unwrap();
    eventually("it is heard", SOON, async || reader.get("ada").await.unwrap().version == 3).await;
}

/// The connections of Redis that track.
fn tracking(world: &World) -> Vec<u64> {
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut world.redis()).unwrap();
    let field = |line: &str, name: &str| line.split(' ').find_map(|field| Some(field.strip_prefix(name)?.to_owned()));
    let tracks = |line: &&str| field(line, "flags=").is_some_and(|flags| flags.contains('t'));
    let ids: Vec<u64> = list.lines().filter(tracks).map(|line| field(line, "id=").unwrap().parse().unwrap()).collect();
    assert!(!ids.is_empty(), "{list}");
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_is_bypassed_while_redis_is_silent_or_refuses_and_is_right_when_it_is_back() {
    let _scenario = FailScenario::setup();
    for silent in [true, false] {
        let world = World::shared().await;
        let way = Proxy::to(([127, 0, 0, 1], world.stack().redis().port()).into()).await.unwrap();
        let through = World { redis_url: format!("redis://127.0.0.1:{}", way.port()), ..world.clone() };
        let writer = world.serve_without_relay().await;
        let reader = through.serve_near_with(lasting).await;
        writer.create("ada").await.unwrap();
        reader.remember("ada").await;

        if silent {
            way.blackhole();
        } else {
            way.refuse();
        }
        writer.rename("ada", "second").await.unwrap();
        let bypassed = Duration::from_secs(5);
        eventually("memory is bypassed", bypassed, async || {
            let read = reader.get("ada").await.unwrap();
            assert_ne!((read.source, read.version), (Source::Redis, 1), "Redis knows better");
            read.version == 2
        })
        .await;
        assert_eq!(reader.get("ada").await.unwrap().source, Source::Postgres);
        way.heal();

        reader.remember("ada").await;
        assert_eq!(reader.get("ada").await.unwrap().version, 2);
        writer.rename("ada", "third").await.unwrap();
        eventually("changes are heard of again", SOON, async || reader.get("ada").await.unwrap().version == 3).await;
    }
}
