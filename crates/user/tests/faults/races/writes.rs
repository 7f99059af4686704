//! Writers who come to the cache too late, or never.

use std::time::Duration;

use fail::FailScenario;
use tonic::Code;

use super::writing;
use crate::BEFORE_APPLY;
use crate::contest::{Contestant, Outcome, all_told, races, right, right_within};
use crate::held::Held;
use crate::support::{SOON, World, eventually};

races! {
    a_paused_writer_resurrects_nothing_after_a_newer_write_and_an_eviction,
    a_paused_writer_undoes_no_newer_write,
    a_paused_writer_does_not_undo_a_deletion,
    a_process_that_dies_between_commit_and_apply_is_repaired_by_another_instance,
}

async fn a_paused_writer_resurrects_nothing_after_a_newer_write_and_an_eviction(contestant: Contestant) -> Outcome {
    paused_writer(contestant, true).await
}

async fn a_paused_writer_undoes_no_newer_write(contestant: Contestant) -> Outcome {
    paused_writer(contestant, false).await
}

async fn paused_writer(contestant: Contestant, evicted: bool) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;
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
    if contestant.is_tidings() {
        assert_eq!(world.cached("ada"), !evicted, "a write creates no value");
    }
    for users in [&here, &there] {
        let read = users.get("ada").await.unwrap();
        right("ada", &(read.version, read.user.display_name.as_str()), &(3, "third"))?;
    }
    Ok(())
}

async fn a_paused_writer_does_not_undo_a_deletion(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;
    here.create("ada").await.unwrap();
    here.cache("ada").await;

    let held = Held::first_at(BEFORE_APPLY);
    let paused = writing(&here, "second");
    held.arrived().await;
    there.delete("ada").await.unwrap();
    held.release();

    assert_eq!(paused.await.unwrap(), 2);
    all_told([&here, &there], "ada", None).await
}

async fn a_process_that_dies_between_commit_and_apply_is_repaired_by_another_instance(
    contestant: Contestant,
) -> Outcome {
    let world = World::shared().await;
    let (dying, reader) = contestant.two(&world).await;
    dying.create("ada").await.unwrap();
    reader.cache("ada").await;

    fail::cfg(BEFORE_APPLY, "panic").unwrap();
    let failure = dying.rename("ada", "second").await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Internal, "INTERNAL"));
    fail::remove(BEFORE_APPLY);
    assert_eq!(world.count("SELECT version FROM user_account").await, 2, "it was committed");
    assert_eq!(reader.get("ada").await.unwrap().version, 1, "and the cache has not heard of it");
    drop(dying);

    let _relaying = contestant.serve(&world).await;
    right_within(Duration::from_secs(2), &reader, "ada", Some(2)).await
}

// No twin: a handler that is dropped while it is held at a fail-point goes on to its next await, and there the naive cache has
// already sent its command.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_is_followed_by_its_apply_though_the_caller_has_gone() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = Contestant::Tidings.two(&world).await;
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

// The naive cache knows no version that is expected, so it has no step at which this could be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_whose_user_is_created_meanwhile_is_done_and_not_told_of_another_version() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = Contestant::Tidings.two(&world).await;

    let held = Held::first_at("user::before_why_not");
    let early = writing(&here, "second");
    held.arrived().await;
    there.create("ada").await.unwrap();
    held.release();

    assert_eq!(early.await.unwrap(), 2);
    all_told([&here, &there], "ada", Some(2)).await.unwrap();
}
