//! Users who are not there yet, or not any more, and caches that know it.

use std::time::Duration;

use fail::FailScenario;
use tidings_proto::user::CreateUserRequest;
use tonic::Code;

use super::reading;
use crate::contest::{Contestant, Outcome, all_told, races, right, right_within, version_of};
use crate::held::Held;
use crate::support::{Users, World, named};
use crate::{BEFORE_APPLY, BEFORE_FILL};

races! {
    a_user_created_while_a_reader_looks_for_it_is_seen_by_all,
    a_user_created_after_it_was_not_found_is_seen_at_once_by_its_creator,
    a_user_created_after_it_was_not_found_is_seen_by_all_after_the_apply,
    a_deleted_user_is_brought_back_by_no_slow_reader_and_by_nobody_who_would_create_it_again,
}

async fn a_user_created_while_a_reader_looks_for_it_is_seen_by_all(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    there.create("ada").await.unwrap();
    held.release();

    assert_eq!(slow.await.unwrap(), contestant.told_late(None, Some(1)));
    all_told([&here, &there], "ada", Some(1)).await
}

/// There is nobody; that is cached; then there is, and the writer dies before it has told the cache.
async fn created_and_not_applied(contestant: Contestant, world: &World) -> (Users, Users) {
    let (here, there) = contestant.two(world).await;
    assert_eq!(version_of(&there, "ada").await, None);
    assert!(world.cached("ada"), "that there is none is cached");
    fail::cfg(BEFORE_APPLY, "panic").unwrap();
    assert_eq!(here.create("ada").await.unwrap_err().code, Code::Internal);
    fail::remove(BEFORE_APPLY);
    assert_eq!(version_of(&there, "ada").await, None, "nobody told the cache");
    (here, there)
}

async fn a_user_created_after_it_was_not_found_is_seen_at_once_by_its_creator(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = created_and_not_applied(contestant, &world).await;
    for users in [&here, &there] {
        let read = users.get_at_least("ada", 1).await;
        right("its creator", &read.map(|read| read.version).map_err(|failure| failure.code), &Ok(1))?;
    }
    Ok(())
}

async fn a_user_created_after_it_was_not_found_is_seen_by_all_after_the_apply(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = created_and_not_applied(contestant, &world).await;
    let _relaying = contestant.serve(&world).await;
    right_within(Duration::from_secs(2), &there, "ada", Some(1)).await?;
    right_within(Duration::from_secs(2), &here, "ada", Some(1)).await
}

async fn a_deleted_user_is_brought_back_by_no_slow_reader_and_by_nobody_who_would_create_it_again(
    contestant: Contestant,
) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;
    here.create("ada").await.unwrap();
    world.evict("u", "ada");

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    there.delete("ada").await.unwrap();
    right("who would create it again", &there.create("ada").await.unwrap_err().code, &Code::AlreadyExists)?;
    held.release();

    assert_eq!(slow.await.unwrap(), contestant.told_late(Some(1), None));
    all_told([&here, &there], "ada", None).await?;
    right("who would create it again", &here.create("ada").await.unwrap_err().code, &Code::AlreadyExists)?;
    all_told([&here, &there], "ada", None).await
}

// The naive cache remembers no request.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_creation_that_is_repeated_is_seen_at_once_though_the_first_could_not_tell_of_it() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let users = world.serve_without_relay().await;
    for _ in 0..2 {
        users.get("ada").await.unwrap_err(); // that there is nobody is cached
    }
    let request = CreateUserRequest { user: Some(named("ada", "first")), request_id: "r-1".to_owned() };

    fail::cfg(BEFORE_APPLY, "1*panic->off").unwrap();
    users.call_create(request.clone()).await.unwrap_err();
    assert!(users.call_create(request).await.unwrap().deduplicated);

    assert_eq!(users.get("ada").await.unwrap().version, 1);
}
