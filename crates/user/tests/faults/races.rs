//! Readers and writers that are held at the worst moment.

use std::time::Duration;

use fail::FailScenario;
use tidings_proto::user::read_info::Source;
use tonic::Code;

use crate::held::Held;
use crate::support::{SOON, Users, World, eventually, renaming, told};

const BEFORE_FILL: &str = "user::before_fill";
const BEFORE_APPLY: &str = "user::before_apply";

/// Two instances, neither of which relays: what the cache hears it hears from the call itself.
async fn two_without_relay(world: &World) -> (Users, Users) {
    (world.serve_without_relay().await, world.serve_without_relay().await)
}

/// A read of `ada` in the background; its answer is the version.
fn reading(users: &Users) -> tokio::task::JoinHandle<i64> {
    let mut client = users.client();
    let request = tidings_proto::user::GetUserRequest { id: "ada".to_owned(), ..Default::default() };
    tokio::spawn(async move { told(client.get_user(request).await).unwrap().user.unwrap().version })
}

/// A change of `ada` in the background; its answer is the version.
fn writing(users: &Users, display_name: &str) -> tokio::task::JoinHandle<i64> {
    let mut client = users.client();
    let request = renaming("ada", display_name);
    tokio::spawn(async move { told(client.update_user(request).await).unwrap().user.unwrap().version })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_reader_never_overwrites_a_newer_value() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = two_without_relay(&world).await;
    here.create("ada").await.unwrap();

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    there.rename("ada", "second").await.unwrap();
    assert_eq!(there.get("ada").await.unwrap().version, 2);
    assert!(world.cached("ada"), "a reader that came later has filled");
    held.release();

    assert_eq!(slow.await.unwrap(), 1, "what it had read before the change");
    for users in [&here, &there] {
        let read = users.get("ada").await.unwrap();
        assert_eq!((read.version, read.source), (2, Source::Redis));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_reader_never_overwrites_a_newer_value_also_not_on_an_evicted_key() {
    let _scenario = FailScenario::setup();
    // What Redis forgets while the reader is slow; `f`: another reader fills before that.
    for forgotten in ["", "l", "f", "fu", "ful"] {
        let world = World::shared().await;
        let (here, there) = two_without_relay(&world).await;
        here.create("ada").await.unwrap();

        let held = Held::first_at(BEFORE_FILL);
        let slow = reading(&here);
        held.arrived().await;
        there.rename("ada", "second").await.unwrap();
        if forgotten.contains('f') {
            assert_eq!(there.get("ada").await.unwrap().version, 2);
        }
        let evicted = forgotten.contains('u') && world.evict("u", "ada");
        assert_eq!(evicted, forgotten.contains('u'));
        if forgotten.contains('l') {
            world.evict("l", "ada");
        }
        held.release();

        assert_eq!(slow.await.unwrap(), 1);
        assert_eq!(world.cached("ada"), forgotten == "f", "the slow reader stored nothing: {forgotten:?}");
        assert_eq!(here.get("ada").await.unwrap().version, 2, "{forgotten:?}");
        assert_eq!(there.get("ada").await.unwrap().version, 2, "{forgotten:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_filler_paused_past_its_lease_is_refused() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let users = world.serve_with(|config| config.cache.user_lease_ttl = Duration::from_millis(100).into()).await;
    users.create("ada").await.unwrap();

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&users);
    held.arrived().await;
    eventually("the lease has expired", SOON, async || world.keys("l", "ada").is_empty()).await;
    world.execute("UPDATE user_account SET version = 2").await; // a change of which no cache ever hears
    held.release();

    assert_eq!(slow.await.unwrap(), 1);
    assert!(!world.cached("ada"));
    assert_eq!(users.get("ada").await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_filler_whose_lease_another_reader_has_now_is_refused() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = two_without_relay(&world).await;
    here.create("ada").await.unwrap();

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    assert!(world.evict("l", "ada"));
    let next_held = Held::first_at(BEFORE_FILL);
    let next = reading(&there);
    next_held.arrived().await;
    held.release();
    assert_eq!(slow.await.unwrap(), 1);
    assert!(!world.cached("ada"), "the lease is not its own");
    next_held.release();
    assert_eq!(next.await.unwrap(), 1);

    assert!(world.cached("ada"), "the other's lease still stood");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_paused_writer_resurrects_nothing_after_a_newer_write_and_an_eviction() {
    let _scenario = FailScenario::setup();
    for evicted in [true, false] {
        let world = World::shared().await;
        let (here, there) = two_without_relay(&world).await;
        here.create("ada").await.unwrap();
        here.cache("ada").await;

        let held = Held::first_at(BEFORE_APPLY);
        let paused = writing(&here, "second");
        held.arrived().await;
        assert_eq!(there.rename("ada", "third").await.unwrap().version, 3);
        assert_eq!(there.get("ada").await.unwrap().version, 3);
        if evicted {
            assert!(world.evict("u", "ada"));
        }
        held.release();

        assert_eq!(paused.await.unwrap(), 2);
        assert_eq!(world.cached("ada"), !evicted, "a write creates no value");
        for users in [&here, &there] {
            let read = users.get("ada").await.unwrap();
            assert_eq!((read.version, read.user.display_name.as_str()), (3, "third"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_paused_writer_does_not_undo_a_deletion() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = two_without_relay(&world).await;
    here.create("ada").await.unwrap();
    here.cache("ada").await;

    let held = Held::first_at(BEFORE_APPLY);
    let paused = writing(&here, "second");
    held.arrived().await;
    there.delete("ada").await.unwrap();
    held.release();

    assert_eq!(paused.await.unwrap(), 2);
    for users in [&here, &there] {
        assert_eq!(users.get("ada").await.unwrap_err().code, Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_dies_between_commit_and_apply_is_repaired_by_another_instance() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (dying, reader) = two_without_relay(&world).await;
    dying.create("ada").await.unwrap();
    reader.cache("ada").await;

    fail::cfg(BEFORE_APPLY, "panic").unwrap();
    let failure = dying.rename("ada", "second").await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Internal, "INTERNAL"));
    fail::remove(BEFORE_APPLY);
    assert_eq!(world.count("SELECT version FROM user_account").await, 2, "it was committed");
    assert_eq!(reader.get("ada").await.unwrap().version, 1, "and the cache has not heard of it");
    drop(dying);

    let _relaying = world.serve().await;
    eventually("the other instance told the cache", Duration::from_secs(2), async || {
        reader.get("ada").await.unwrap().version == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_is_followed_by_its_apply_though_the_caller_has_gone() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = two_without_relay(&world).await;
    here.create("ada").await.unwrap();
    there.cache("ada").await;

    let held = Held::first_at(BEFORE_APPLY);
    let gone = writing(&here, "second");
    held.arrived().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(there.get("ada").await.unwrap().version, 1);
    held.release();

    eventually("the cache has heard of it", SOON, async || there.get("ada").await.unwrap().version == 2).await;
}
