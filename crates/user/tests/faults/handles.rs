//! Handles that move while steps are held: whoever got one is answered from its acknowledgement on, whatever the cache has not
//! heard yet.

use fail::FailScenario;
use tonic::Code;

use crate::held::Held;
use crate::support::{Users, World, changing, handled};

/// Two instances that do not relay; `ada` has the handle, and is cached; `bob` is cached.
async fn start(world: &World) -> (Users, Users) {
    let (here, there) = (world.serve_without_relay().await, world.serve_without_relay().await);
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

async fn expect_owner(instances: [&Users; 2], id: Option<&str>) {
    for users in instances {
        assert_eq!(owner(users).await.as_deref(), id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_new_owner_is_answered_before_the_cache_has_heard_of_the_old_one() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = start(&world).await;

    let held = Held::first_at("user::before_apply");
    let mut client = here.client();
    let giving_up =
        tokio::spawn(async move { client.update_user(changing(handled("ada", ""), &["handle"])).await.unwrap() });
    held.arrived().await; // committed, and not told
    there.take_handle("bob", "Admin").await.unwrap();

    expect_owner([&here, &there], Some("bob")).await;
    held.release();
    giving_up.await.unwrap();
    expect_owner([&here, &there], Some("bob")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_old_owner_is_not_answered_before_the_cache_has_heard_of_the_new_one() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = start(&world).await;
    here.take_handle("ada", "").await.unwrap();
    expect_owner([&here, &there], None).await;

    let held = Held::first_at("user::before_apply");
    let mut client = here.client();
    let taking =
        tokio::spawn(async move { client.update_user(changing(handled("bob", "admin"), &["handle"])).await.unwrap() });
    held.arrived().await;

    expect_owner([&there, &here], Some("bob")).await;
    held.release();
    taking.await.unwrap();
    expect_owner([&here, &there], Some("bob")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_that_is_late_puts_no_old_owner_in_the_place_of_a_new_one() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = start(&world).await;
    assert!(world.evict("h", "admin"));

    let reader = Held::first_at("user::before_hint");
    let mut client = here.client();
    let request = tidings_proto::user::GetUserByHandleRequest { handle: "admin".to_owned(), ..Default::default() };
    let reading = tokio::spawn(async move { client.get_user_by_handle(request).await.unwrap().into_inner() });
    reader.arrived().await; // found ada in Postgres
    let writer = Held::first_at("user::before_apply");
    let mut client = here.client();
    let giving_up =
        tokio::spawn(async move { client.update_user(changing(handled("ada", ""), &["handle"])).await.unwrap() });
    writer.arrived().await;
    there.take_handle("bob", "admin").await.unwrap();
    reader.release();
    assert_eq!(reading.await.unwrap().user.unwrap().id, "ada", "who had it when the call began");

    expect_owner([&here, &there], Some("bob")).await;
    writer.release();
    giving_up.await.unwrap();
    expect_owner([&here, &there], Some("bob")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_handle_of_a_deleted_user_is_nobodys_and_then_its_next_owners() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = start(&world).await;

    let held = Held::first_at("user::before_apply");
    let mut client = here.client();
    let deletion = tidings_proto::user::DeleteUserRequest { id: "ada".to_owned(), expected_version: 0 };
    let deleting = tokio::spawn(async move { client.delete_user(deletion).await.unwrap() });
    held.arrived().await;
    there.create_with_handle("cleo", "ADMIN").await.unwrap();
    expect_owner([&here, &there], Some("cleo")).await;
    held.release();
    deleting.await.unwrap();
    expect_owner([&here, &there], Some("cleo")).await;

    there.delete("cleo").await.unwrap();
    expect_owner([&here, &there], None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_late_hint_of_one_who_gave_the_handle_up_again_is_not_believed() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = start(&world).await;
    here.take_handle("ada", "").await.unwrap();

    let held = Held::first_at("user::before_tell_handle");
    let mut client = here.client();
    let taking =
        tokio::spawn(async move { client.update_user(changing(handled("bob", "admin"), &["handle"])).await.unwrap() });
    held.arrived().await; // bob has it, and will say so late
    there.take_handle("bob", "").await.unwrap();
    there.take_handle("ada", "admin").await.unwrap();
    held.release();
    taking.await.unwrap();

    assert_eq!(world.keys("h", "admin").len(), 1);
    expect_owner([&here, &there], Some("ada")).await;
}
