//! Readers who fill the cache too late.

use std::pin::pin;
use std::time::Duration;

use fail::FailScenario;
use tidings_proto::user::BatchGetUsersRequest;
use tidings_proto::user::read_info::Source;
use tidings_user::Config;

use super::reading;
use crate::BEFORE_FILL;
use crate::contest::{Contestant, Outcome, all_told, races, right, version_of};
use crate::held::Held;
use crate::support::{SOON, World, eventually, no_relay, told};

races! {
    a_slow_reader_never_overwrites_a_newer_value,
    a_slow_reader_never_overwrites_a_newer_value_also_not_on_an_evicted_key,
    a_slow_batch_never_overwrites_a_newer_value,
    a_load_that_began_before_an_update_satisfies_nobody_who_asks_for_more,
    a_reader_who_waits_for_a_load_that_began_before_an_update_is_told_of_the_update,
    a_load_that_began_before_a_write_satisfies_nobody_who_comes_to_its_instance_after_it,
}

async fn a_slow_reader_never_overwrites_a_newer_value(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;
    here.create("ada").await.unwrap();
    world.evict("u", "ada");

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    there.rename("ada", "second").await.unwrap();
    assert_eq!(there.get("ada").await.unwrap().version, 2);
    assert!(world.cached("ada"), "a reader that came later has filled");
    held.release();

    assert_eq!(slow.await.unwrap(), contestant.told_late(Some(1), Some(2)));
    for users in [&here, &there] {
        let read = users.get("ada").await.unwrap();
        right("ada", &(read.version, read.source), &(2, Source::Redis))?;
    }
    Ok(())
}

async fn a_slow_reader_never_overwrites_a_newer_value_also_not_on_an_evicted_key(contestant: Contestant) -> Outcome {
    // What Redis forgets while the reader is slow; `f`: another reader fills before that.
    for forgotten in ["", "l", "f", "fu", "ful"] {
        let world = World::shared().await;
        let (here, there) = contestant.two(&world).await;
        here.create("ada").await.unwrap();
        world.evict("u", "ada");

        let held = Held::first_at(BEFORE_FILL);
        let slow = reading(&here);
        held.arrived().await;
        there.rename("ada", "second").await.unwrap();
        if forgotten.contains('f') {
            assert_eq!(there.get("ada").await.unwrap().version, 2);
        }
        if forgotten.contains('u') {
            assert!(world.evict("u", "ada"));
        }
        if forgotten.contains('l') {
            world.evict("l", "ada");
        }
        held.release();

        assert_eq!(slow.await.unwrap(), contestant.told_late(Some(1), Some(2)));
        if contestant.is_tidings() {
            assert_eq!(world.cached("ada"), forgotten == "f", "the slow reader stored nothing: {forgotten:?}");
        }
        all_told([&here, &there], "ada", Some(2)).await?;
    }
    Ok(())
}

async fn a_slow_batch_never_overwrites_a_newer_value(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;
    here.create("ada").await.unwrap();
    world.evict("u", "ada");

    let held = Held::first_at(BEFORE_FILL);
    let mut client = here.client();
    let request = BatchGetUsersRequest { ids: vec!["ada".to_owned(), "nobody".to_owned()], ..Default::default() };
    let slow = tokio::spawn(async move { told(client.batch_get_users(request).await).unwrap().results });
    held.arrived().await;
    there.rename("ada", "second").await.unwrap();
    held.release();

    assert_eq!(slow.await.unwrap()[0].user.as_ref().unwrap().version, 1, "what it had read before the change");
    all_told([&here, &there], "ada", Some(2)).await
}

async fn a_load_that_began_before_an_update_satisfies_nobody_who_asks_for_more(contestant: Contestant) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;
    here.create("ada").await.unwrap();
    world.evict("u", "ada");

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    there.rename("ada", "second").await.unwrap();
    for users in [&here, &there] {
        right("who asks for more", &users.get_at_least("ada", 2).await.unwrap().version, &2)?;
    }
    held.release();

    assert_eq!(slow.await.unwrap(), contestant.told_late(Some(1), Some(2)));
    // The naive cache answers those who ask, because it shares no loads, and loses here: it forgets what they found.
    all_told([&here, &there], "ada", Some(2)).await
}

async fn a_reader_who_waits_for_a_load_that_began_before_an_update_is_told_of_the_update(
    contestant: Contestant,
) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;
    here.create("ada").await.unwrap();
    world.evict("u", "ada");

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    there.rename("ada", "second").await.unwrap();
    let waiting = reading(&here); // for the load of the slow one, if we are asked
    held.release();

    right("who came after the update", &waiting.await.unwrap(), &Some(2))?;
    assert_eq!(slow.await.unwrap(), contestant.told_late(Some(1), Some(2)));
    all_told([&here, &there], "ada", Some(2)).await
}

async fn a_load_that_began_before_a_write_satisfies_nobody_who_comes_to_its_instance_after_it(
    contestant: Contestant,
) -> Outcome {
    let world = World::shared().await;
    let (here, there) = contestant.two(&world).await;
    here.create("ada").await.unwrap();
    world.evict("u", "ada");

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    here.rename("ada", "second").await.unwrap();
    right("the writer", &version_of(&here, "ada").await, &Some(2))?;
    held.release();

    assert_eq!(slow.await.unwrap(), contestant.told_late(Some(1), Some(2)));
    // The naive cache loses here, as above.
    all_told([&here, &there], "ada", Some(2)).await
}

// The naive cache reads nothing anew before it expires, and has no leases, so the next three have no twin.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_profile_that_is_read_anew_slowly_never_overwrites_a_newer_value() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let there = world.serve_without_relay().await;
    let here = world
        .serve_with(|config| {
            no_relay(config);
            config.cache.user_soft_ttl = Duration::from_millis(1).into();
        })
        .await;
    there.create("ada").await.unwrap();
    there.cache("ada").await;

    let held = Held::first_at("user::before_refill");
    // As soon as it is old it is answered once more, and read anew in the background.
    {
        let mut arrived = pin!(held.arrived());
        loop {
            tokio::select! {
                () = &mut arrived => break,
                read = here.get("ada") => assert_eq!(read.unwrap().version, 1),
            }
        }
    }
    there.rename("ada", "second").await.unwrap();
    held.release();
    here.stop().await; // and with it what it does in the background

    let read = there.get("ada").await.unwrap();
    assert_eq!((read.version, read.source), (2, Source::Redis));
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

    assert_eq!(slow.await.unwrap(), Some(2), "it has read once more");
    assert!(!world.cached("ada"));
    assert_eq!(users.get("ada").await.unwrap().version, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_who_came_after_a_write_fills_though_the_relay_came_in_between() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let late = |config: &mut Config| config.cache.user_relay_gather = Duration::from_secs(1).into();
    let users = world.serve_without_relay_with(late).await;
    users.create("ada").await.unwrap();

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&users);
    held.arrived().await;
    assert_eq!(world.outbox("ada").await, 1, "the relay is yet to come");
    eventually("the relay is done", SOON, async || world.outbox("ada").await == 0).await;
    held.release();

    assert_eq!(slow.await.unwrap(), Some(1));
    assert!(world.cached("ada"), "the writer has told the cache, and the relay only those who watch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_filler_whose_lease_another_reader_has_now_is_refused() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let (here, there) = Contestant::Tidings.two(&world).await;
    here.create("ada").await.unwrap();

    let held = Held::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.arrived().await;
    assert!(world.evict("l", "ada"));
    let next_held = Held::first_at(BEFORE_FILL);
    let next = reading(&there);
    next_held.arrived().await;
    held.release();
    assert_eq!(slow.await.unwrap(), Some(1));
    assert!(!world.cached("ada"), "the lease is not its own");
    next_held.release();
    assert_eq!(next.await.unwrap(), Some(1));

    assert!(world.cached("ada"), "the other's lease still stood");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_profile_whose_reading_anew_panicked_is_read_anew_by_the_next_reader() {
    let _scenario = FailScenario::setup();
    let world = World::shared().await;
    let users = world
        .serve_with(|config| {
            no_relay(config);
            config.cache.user_soft_ttl = Duration::from_millis(1).into();
            config.cache.user_lease_ttl = Duration::from_millis(200).into(); // which the panic leaves behind
            config.cache.user_fill_wait = Duration::from_millis(100).into();
        })
        .await;
    users.create("ada").await.unwrap();
    fail::cfg("user::before_refill", "1*panic->off").unwrap();
    users.cache("ada").await;
    world.execute("UPDATE user_account SET version = 2").await; // a change of which no cache ever hears

    eventually("it is read anew", SOON, async || users.get("ada").await.unwrap().version == 2).await;
}
