//! Races of writers whose apply is late, or never happens.

use std::time::Duration;

use fail::FailScenario;
use tidings_devstack::testing::FailPointPause;
use tonic::Code;

use super::writing;
use crate::BEFORE_APPLY;
use crate::contest::{Contestant, RaceVerdict, check, check_version, check_within, races};
use crate::support::{SOON, TestEnv, eventually};

races! {
    a_paused_writer_resurrects_nothing_on_an_evicted_key,
    a_paused_writer_undoes_no_newer_write,
    a_paused_writer_does_not_undo_a_deletion,
    a_commit_without_its_apply_is_repaired_by_another_instance,
}

async fn a_paused_writer_resurrects_nothing_on_an_evicted_key(contestant: Contestant) -> RaceVerdict {
    paused_writer(contestant, true).await
}

async fn a_paused_writer_undoes_no_newer_write(contestant: Contestant) -> RaceVerdict {
    paused_writer(contestant, false).await
}

async fn paused_writer(contestant: Contestant, evicted: bool) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;
    here.create("ada").await.unwrap();
    here.warm_redis("ada").await;

    let held = FailPointPause::first_at(BEFORE_APPLY);
    let paused = writing(&here, "second");
    held.reached().await;
    assert_eq!(there.rename("ada", "third").await.unwrap().version, 3);
    assert_eq!(there.get("ada").await.unwrap().version, 3);
    if evicted {
        assert!(env.evict("u", "ada"));
    }
    held.resume();

    assert_eq!(paused.await.unwrap(), 2);
    if contestant.is_tidings() {
        assert_eq!(env.cached("ada"), !evicted, "a write creates no value");
    }
    for users in [&here, &there] {
        let read = users.get("ada").await.unwrap();
        check("ada", &(read.version, read.user.display_name.as_str()), &(3, "third"))?;
    }
    Ok(())
}

async fn a_paused_writer_does_not_undo_a_deletion(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;
    here.create("ada").await.unwrap();
    here.warm_redis("ada").await;

    let held = FailPointPause::first_at(BEFORE_APPLY);
    let paused = writing(&here, "second");
    held.reached().await;
    there.delete("ada").await.unwrap();
    held.resume();

    assert_eq!(paused.await.unwrap(), 2);
    check_version([&here, &there], "ada", None).await
}

/// The writer dies between commit and apply.
async fn a_commit_without_its_apply_is_repaired_by_another_instance(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (writer, reader) = contestant.two(&env).await;
    writer.create("ada").await.unwrap();
    reader.warm_redis("ada").await;

    fail::cfg(BEFORE_APPLY, "panic").unwrap();
    let failure = writer.rename("ada", "second").await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Internal, "INTERNAL"));
    fail::remove(BEFORE_APPLY);
    assert_eq!(env.count("SELECT version FROM user_account").await, 2, "the update is committed");
    assert_eq!(reader.get("ada").await.unwrap().version, 1, "the update is not applied");
    drop(writer);

    let _relaying = contestant.serve(&env).await;
    check_within(Duration::from_secs(2), &reader, "ada", Some(2)).await
}

// No twin: a handler that is dropped at a fail-point continues to its next await, where the naive
// cache has already sent its command.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_is_followed_by_its_apply_after_its_caller_left() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let (here, there) = Contestant::Tidings.two(&env).await;
    here.create("ada").await.unwrap();
    there.warm_redis("ada").await;

    let held = FailPointPause::first_at(BEFORE_APPLY);
    let cancelled = writing(&here, "second");
    held.reached().await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    assert_eq!(there.get("ada").await.unwrap().version, 1);
    held.resume();

    eventually("the update is applied", SOON, async || there.get("ada").await.unwrap().version == 2).await;
}

// No twin: the naive cache has no expected versions.
/// The first attempt finds no user, the second finds the created one: no VERSION_MISMATCH.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_update_that_races_with_the_creation_succeeds() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let (here, there) = Contestant::Tidings.two(&env).await;

    let held = FailPointPause::first_at("user::before_explain_no_update");
    let early = writing(&here, "second");
    held.reached().await;
    there.create("ada").await.unwrap();
    held.resume();

    assert_eq!(early.await.unwrap(), 2);
    check_version([&here, &there], "ada", Some(2)).await.unwrap();
}
