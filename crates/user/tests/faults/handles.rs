//! Handles that move while steps are held: whoever got one is answered from its acknowledgement on, whatever the cache has not
//! heard yet.

use fail::FailScenario;
use tidings_proto::user as pb;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::BEFORE_APPLY;
use crate::contest::{Contestant, Outcome, races, right};
use crate::held::Held;
use crate::support::{Users, World, changing, handled, told};

races! {
    the_new_owner_is_answered_before_the_cache_has_heard_of_the_old_one,
    the_old_owner_is_not_answered_before_the_cache_has_heard_of_the_new_one,
    a_reader_that_is_late_puts_no_old_owner_in_the_place_of_a_new_one,
    the_handle_of_a_deleted_user_is_nobodys_and_then_its_next_owners,
}

/// Two instances that do not relay; `ada` has the handle, and is cached; `bob` is cached.
async fn start(world: &World, contestant: Contestant) -> (Users, Users) {
    let (here, there) = contestant.two(world).await;
    here.create_with_handle("ada", "admin").await.unwrap();
    here.create("bob").await.unwrap();
    for id in ["ada", "bob"] {
        here.cache(id).await;
    }
    assert_eq!(owner(&there).await.as_deref(), Some("ada"));
    (here, there)
}

async fn owner(users: &Users) -> Option<String> {
    match users.by_handle("admin").await {
        Ok(found) => Some(found.user.id),
        Err(failure) if failure.code == Code::NotFound => None,
        Err(failure) => panic!("{failure}"),
    }
}

/// Judges whose the handle is said to be.
async fn told_everywhere(instances: [&Users; 2], id: Option<&str>) -> Outcome {
    for users in instances {
        right("admin", &owner(users).await.as_deref(), &id)?;
    }
    Ok(())
}

/// In the background somebody gets a handle, or gives theirs up.
fn changing_handle(users: &Users, id: &str, handle: &str) -> JoinHandle<()> {
    let mut client = users.client();
    let request = changing(handled(id, handle), &["handle"]);
    tokio::spawn(async move { drop(told(client.update_user(request).await).unwrap()) })
}

async fn the_new_owner_is_answered_before_the_cache_has_heard_of_the_old_one(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = start(&world, contestant).await;

    let held = Held::first_at(BEFORE_APPLY);
    let giving_up = changing_handle(&here, "ada", "");
    held.arrived().await; // committed, and not told
    there.take_handle("bob", "Admin").await.unwrap();

    told_everywhere([&here, &there], Some("bob")).await?;
    held.release();
    giving_up.await.unwrap();
    told_everywhere([&here, &there], Some("bob")).await
}

async fn the_old_owner_is_not_answered_before_the_cache_has_heard_of_the_new_one(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = start(&world, contestant).await;
    here.take_handle("ada", "").await.unwrap();
    told_everywhere([&here, &there], None).await?;

    let held = Held::first_at(BEFORE_APPLY);
    let taking = changing_handle(&here, "bob", "admin");
    held.arrived().await;

    told_everywhere([&there, &here], Some("bob")).await?;
    held.release();
    taking.await.unwrap();
    told_everywhere([&here, &there], Some("bob")).await
}

async fn a_reader_that_is_late_puts_no_old_owner_in_the_place_of_a_new_one(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = start(&world, contestant).await;
    assert!(world.evict("h", "admin"));

    let reader = Held::first_at("user::before_hint");
    let mut client = here.client();
    let request = pb::GetUserByHandleRequest { handle: "admin".to_owned(), ..Default::default() };
    let reading = tokio::spawn(async move { told(client.get_user_by_handle(request).await).unwrap() });
    reader.arrived().await; // found ada in Postgres
    let writer = Held::first_at(BEFORE_APPLY);
    let giving_up = changing_handle(&here, "ada", "");
    writer.arrived().await;
    there.take_handle("bob", "admin").await.unwrap();
    reader.release();
    assert_eq!(reading.await.unwrap().user.unwrap().id, "ada", "who had it when the call began");

    told_everywhere([&here, &there], Some("bob")).await?;
    writer.release();
    giving_up.await.unwrap();
    told_everywhere([&here, &there], Some("bob")).await
}

async fn the_handle_of_a_deleted_user_is_nobodys_and_then_its_next_owners(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = start(&world, contestant).await;

    let held = Held::first_at(BEFORE_APPLY);
    let mut client = here.client();
    let deletion = pb::DeleteUserRequest { id: "ada".to_owned(), expected_version: 0 };
    let deleting = tokio::spawn(async move { told(client.delete_user(deletion).await).unwrap() });
    held.arrived().await;
    there.create_with_handle("cleo", "ADMIN").await.unwrap();
    told_everywhere([&here, &there], Some("cleo")).await?;
    held.release();
    deleting.await.unwrap();
    told_everywhere([&here, &there], Some("cleo")).await?;

    there.delete("cleo").await.unwrap();
    told_everywhere([&here, &there], None).await
}

// The naive cache has no writer that tells of a handle, so this has no twin.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_late_hint_of_one_who_gave_the_handle_up_again_is_not_believed() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = start(&world, Contestant::Tidings).await;
    here.take_handle("ada", "").await.unwrap();

    let held = Held::first_at("user::before_tell_handle");
    let taking = changing_handle(&here, "bob", "admin");
    held.arrived().await; // bob has it, and will say so late
    there.take_handle("bob", "").await.unwrap();
    there.take_handle("ada", "admin").await.unwrap();
    held.release();
    taking.await.unwrap();

    assert_eq!(world.keys("h", "admin").len(), 1);
    for users in [&here, &there] {
        assert_eq!(owner(users).await.as_deref(), Some("ada"));
    }
}
