//! Users that do not exist yet, or no longer, and caches of their absence.

use std::time::Duration;

use fail::FailScenario;
use tidings_devstack::testing::FailPointPause;
use tidings_proto::user::CreateUserRequest;
use tonic::Code;

use super::reading;
use crate::contest::{Contestant, RaceVerdict, check, check_version, check_within, races, version_of};
use crate::support::{TestEnv, UserInstance, named};
use crate::{BEFORE_APPLY, BEFORE_FILL};

races! {
    a_user_created_during_a_read_is_seen_on_all_instances,
    a_user_created_after_a_miss_is_seen_at_once_by_its_creator,
    a_user_created_after_a_miss_is_seen_by_all_after_the_apply,
    a_deleted_user_is_not_resurrected,
}

async fn a_user_created_during_a_read_is_seen_on_all_instances(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.reached().await;
    there.create("ada").await.unwrap();
    held.resume();

    assert_eq!(slow.await.unwrap(), contestant.late_answer(None, Some(1)));
    check_version([&here, &there], "ada", Some(1)).await
}

/// Caches an absence, then creates the user; the writer dies before its apply.
async fn created_and_not_applied(contestant: Contestant, env: &TestEnv) -> (UserInstance, UserInstance) {
    let (here, there) = contestant.two(env).await;
    assert_eq!(version_of(&there, "ada").await, None);
    assert!(env.cached("ada"), "absence is cached");
    fail::cfg(BEFORE_APPLY, "panic").unwrap();
    assert_eq!(here.create("ada").await.unwrap_err().code, Code::Internal);
    fail::remove(BEFORE_APPLY);
    assert_eq!(version_of(&there, "ada").await, None, "the creation is not applied");
    (here, there)
}

/// The creator reads with `min_version`, on any instance.
async fn a_user_created_after_a_miss_is_seen_at_once_by_its_creator(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = created_and_not_applied(contestant, &env).await;
    for users in [&here, &there] {
        let read = users.get_at_least("ada", 1).await;
        check("its creator", &read.map(|read| read.version).map_err(|failure| failure.code), &Ok(1))?;
    }
    Ok(())
}

async fn a_user_created_after_a_miss_is_seen_by_all_after_the_apply(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = created_and_not_applied(contestant, &env).await;
    let _relaying = contestant.serve(&env).await;
    check_within(Duration::from_secs(2), &there, "ada", Some(1)).await?;
    check_within(Duration::from_secs(2), &here, "ada", Some(1)).await
}

/// Neither a slow reader nor another creation of the same id brings it back.
async fn a_deleted_user_is_not_resurrected(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;
    here.create("ada").await.unwrap();
    env.evict("u", "ada");

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.reached().await;
    there.delete("ada").await.unwrap();
    check("a creation of the deleted id", &there.create("ada").await.unwrap_err().code, &Code::AlreadyExists)?;
    held.resume();

    assert_eq!(slow.await.unwrap(), contestant.late_answer(Some(1), None));
    check_version([&here, &there], "ada", None).await?;
    check("a creation of the deleted id", &here.create("ada").await.unwrap_err().code, &Code::AlreadyExists)?;
    check_version([&here, &there], "ada", None).await
}

// The naive cache stores no request ids, so this race has no twin.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_retried_creation_is_seen_though_the_first_was_not_applied() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let users = env.serve_without_relay().await;
    for _ in 0..2 {
        users.get("ada").await.unwrap_err(); // caches the absence
    }
    let request = CreateUserRequest { user: Some(named("ada", "first")), request_id: "r-1".to_owned() };

    fail::cfg(BEFORE_APPLY, "1*panic->off").unwrap();
    users.call_create(request.clone()).await.unwrap_err();
    assert!(users.call_create(request).await.unwrap().deduplicated);

    assert_eq!(users.get("ada").await.unwrap().version, 1);
}
