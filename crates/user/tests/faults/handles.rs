//! Races of handles that move while applies are held: from its acknowledgement on, the new owner is
//! served.

use fail::FailScenario;
use tidings_devstack::testing::FailPointPause;
use tidings_proto::user as pb;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::BEFORE_APPLY;
use crate::contest::{Contestant, RaceVerdict, check, races};
use crate::support::{TestEnv, UserInstance, changing, handled, into_result};

races! {
    the_new_owner_is_served_before_the_old_owners_apply,
    the_old_owner_is_not_served_before_the_new_owners_apply,
    a_late_reader_does_not_replace_a_new_owner_by_an_old_one,
    the_handle_of_a_deleted_user_goes_to_its_next_owner,
}

/// Starts two instances without a relay. `ada` has the handle; `ada` and `bob` are cached.
async fn start(env: &TestEnv, contestant: Contestant) -> (UserInstance, UserInstance) {
    let (here, there) = contestant.two(env).await;
    here.create_with_handle("ada", "admin").await.unwrap();
    here.create("bob").await.unwrap();
    for id in ["ada", "bob"] {
        here.warm_redis(id).await;
    }
    assert_eq!(owner(&there).await.as_deref(), Some("ada"));
    (here, there)
}

async fn owner(users: &UserInstance) -> Option<String> {
    match users.by_handle("admin").await {
        Ok(found) => Some(found.user.id),
        Err(failure) if failure.code == Code::NotFound => None,
        Err(failure) => panic!("{failure}"),
    }
}

/// Checks the owner of the handle on both instances.
async fn check_owner(instances: [&UserInstance; 2], id: Option<&str>) -> RaceVerdict {
    for users in instances {
        check("admin", &owner(users).await.as_deref(), &id)?;
    }
    Ok(())
}

/// Sets or removes a user's handle in the background.
fn changing_handle(users: &UserInstance, id: &str, handle: &str) -> JoinHandle<()> {
    let mut client = users.client();
    let request = changing(handled(id, handle), &["handle"]);
    tokio::spawn(async move { drop(into_result(client.update_user(request).await).unwrap()) })
}

async fn the_new_owner_is_served_before_the_old_owners_apply(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = start(&env, contestant).await;

    let held = FailPointPause::first_at(BEFORE_APPLY);
    let giving_up = changing_handle(&here, "ada", "");
    held.reached().await; // committed but not applied
    there.take_handle("bob", "Admin").await.unwrap();

    check_owner([&here, &there], Some("bob")).await?;
    held.resume();
    giving_up.await.unwrap();
    check_owner([&here, &there], Some("bob")).await
}

async fn the_old_owner_is_not_served_before_the_new_owners_apply(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = start(&env, contestant).await;
    here.take_handle("ada", "").await.unwrap();
    check_owner([&here, &there], None).await?;

    let held = FailPointPause::first_at(BEFORE_APPLY);
    let taking = changing_handle(&here, "bob", "admin");
    held.reached().await;

    check_owner([&there, &here], Some("bob")).await?;
    held.resume();
    taking.await.unwrap();
    check_owner([&here, &there], Some("bob")).await
}

async fn a_late_reader_does_not_replace_a_new_owner_by_an_old_one(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = start(&env, contestant).await;
    assert!(env.evict("h", "admin"));

    let reader = FailPointPause::first_at("user::before_hint");
    let mut client = here.client();
    let request = pb::GetUserByHandleRequest { handle: "admin".to_owned(), ..Default::default() };
    let reading = tokio::spawn(async move { into_result(client.get_user_by_handle(request).await).unwrap() });
    reader.reached().await; // it has read ada from Postgres
    let writer = FailPointPause::first_at(BEFORE_APPLY);
    let giving_up = changing_handle(&here, "ada", "");
    writer.reached().await;
    there.take_handle("bob", "admin").await.unwrap();
    reader.resume();
    assert_eq!(reading.await.unwrap().user.unwrap().id, "ada", "the owner when the call began");

    check_owner([&here, &there], Some("bob")).await?;
    writer.resume();
    giving_up.await.unwrap();
    check_owner([&here, &there], Some("bob")).await
}

async fn the_handle_of_a_deleted_user_goes_to_its_next_owner(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = start(&env, contestant).await;

    let held = FailPointPause::first_at(BEFORE_APPLY);
    let mut client = here.client();
    let deletion = pb::DeleteUserRequest { id: "ada".to_owned(), expected_version: 0 };
    let deleting = tokio::spawn(async move { into_result(client.delete_user(deletion).await).unwrap() });
    held.reached().await;
    there.create_with_handle("cleo", "ADMIN").await.unwrap();
    check_owner([&here, &there], Some("cleo")).await?;
    held.resume();
    deleting.await.unwrap();
    check_owner([&here, &there], Some("cleo")).await?;

    there.delete("cleo").await.unwrap();
    check_owner([&here, &there], None).await
}

// The writers of the naive cache set no hints, so this race has no twin.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_late_hint_of_a_former_owner_is_not_served() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let (here, there) = start(&env, Contestant::Tidings).await;
    here.take_handle("ada", "").await.unwrap();

    let held = FailPointPause::first_at("user::before_publish_handle");
    let taking = changing_handle(&here, "bob", "admin");
    held.reached().await; // committed; bob's hint will be late
    there.take_handle("bob", "").await.unwrap();
    there.take_handle("ada", "admin").await.unwrap();
    held.resume();
    taking.await.unwrap();

    assert_eq!(env.keys("h", "admin").len(), 1);
    for users in [&here, &there] {
        assert_eq!(owner(users).await.as_deref(), Some("ada"));
    }
}
