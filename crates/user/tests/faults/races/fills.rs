//! Races of readers that fill the cache too late.

use std::pin::pin;
use std::time::Duration;

use fail::FailScenario;
use tidings_devstack::testing::FailPointPause;
use tidings_proto::user::BatchGetUsersRequest;
use tidings_proto::user::read_info::Source;
use tidings_user::Config;

use super::reading;
use crate::BEFORE_FILL;
use crate::contest::{Contestant, RaceVerdict, check, check_version, races, version_of};
use crate::support::{SOON, TestEnv, eventually, into_result, no_relay};

races! {
    a_slow_reader_never_overwrites_a_newer_value,
    a_slow_reader_never_overwrites_after_an_eviction,
    a_slow_batch_never_overwrites_a_newer_value,
    a_load_older_than_an_update_never_serves_min_version,
    a_reader_waiting_for_a_load_older_than_an_update_sees_it,
    a_load_older_than_a_local_write_serves_no_later_reader,
}

async fn a_slow_reader_never_overwrites_a_newer_value(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;
    here.create("ada").await.unwrap();
    env.evict("u", "ada");

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.reached().await;
    there.rename("ada", "second").await.unwrap();
    assert_eq!(there.get("ada").await.unwrap().version, 2);
    assert!(env.cached("ada"), "a later reader has filled");
    held.resume();

    assert_eq!(slow.await.unwrap(), contestant.late_answer(Some(1), Some(2)));
    for users in [&here, &there] {
        let read = users.get("ada").await.unwrap();
        check("ada", &(read.version, read.source), &(2, Source::Redis))?;
    }
    Ok(())
}

async fn a_slow_reader_never_overwrites_after_an_eviction(contestant: Contestant) -> RaceVerdict {
    // Keys evicted while the reader is slow; `f`: another reader fills before that.
    for evicted in ["", "l", "f", "fu", "ful"] {
        let env = TestEnv::shared().await;
        let (here, there) = contestant.two(&env).await;
        here.create("ada").await.unwrap();
        env.evict("u", "ada");

        let held = FailPointPause::first_at(BEFORE_FILL);
        let slow = reading(&here);
        held.reached().await;
        there.rename("ada", "second").await.unwrap();
        if evicted.contains('f') {
            assert_eq!(there.get("ada").await.unwrap().version, 2);
        }
        if evicted.contains('u') {
            assert!(env.evict("u", "ada"));
        }
        if evicted.contains('l') {
            env.evict("l", "ada");
        }
        held.resume();

        assert_eq!(slow.await.unwrap(), contestant.late_answer(Some(1), Some(2)));
        if contestant.is_tidings() {
            assert_eq!(env.cached("ada"), evicted == "f", "the slow reader stored nothing: {evicted:?}");
        }
        check_version([&here, &there], "ada", Some(2)).await?;
    }
    Ok(())
}

async fn a_slow_batch_never_overwrites_a_newer_value(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;
    here.create("ada").await.unwrap();
    env.evict("u", "ada");

    let held = FailPointPause::first_at(BEFORE_FILL);
    let mut client = here.client();
    let request = BatchGetUsersRequest { ids: vec!["ada".to_owned(), "nobody".to_owned()], ..Default::default() };
    let slow = tokio::spawn(async move { into_result(client.batch_get_users(request).await).unwrap().results });
    held.reached().await;
    there.rename("ada", "second").await.unwrap();
    held.resume();

    assert_eq!(slow.await.unwrap()[0].user.as_ref().unwrap().version, 1, "the version read before the update");
    check_version([&here, &there], "ada", Some(2)).await
}

async fn a_load_older_than_an_update_never_serves_min_version(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;
    here.create("ada").await.unwrap();
    env.evict("u", "ada");

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.reached().await;
    there.rename("ada", "second").await.unwrap();
    for users in [&here, &there] {
        check("a read with min_version", &users.get_at_least("ada", 2).await.unwrap().version, &2)?;
    }
    held.resume();

    assert_eq!(slow.await.unwrap(), contestant.late_answer(Some(1), Some(2)));
    // The naive cache passes until here, because it shares no loads. It loses here, because its
    // late fill overwrites the value.
    check_version([&here, &there], "ada", Some(2)).await
}

async fn a_reader_waiting_for_a_load_older_than_an_update_sees_it(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;
    here.create("ada").await.unwrap();
    env.evict("u", "ada");

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.reached().await;
    there.rename("ada", "second").await.unwrap();
    let waiting = reading(&here); // joins the load of the slow reader in Tidings
    held.resume();

    check("a reader after the update", &waiting.await.unwrap(), &Some(2))?;
    assert_eq!(slow.await.unwrap(), contestant.late_answer(Some(1), Some(2)));
    check_version([&here, &there], "ada", Some(2)).await
}

async fn a_load_older_than_a_local_write_serves_no_later_reader(contestant: Contestant) -> RaceVerdict {
    let env = TestEnv::shared().await;
    let (here, there) = contestant.two(&env).await;
    here.create("ada").await.unwrap();
    env.evict("u", "ada");

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.reached().await;
    here.rename("ada", "second").await.unwrap();
    check("the writer", &version_of(&here, "ada").await, &Some(2))?;
    held.resume();

    assert_eq!(slow.await.unwrap(), contestant.late_answer(Some(1), Some(2)));
    // The naive cache loses here, as above.
    check_version([&here, &there], "ada", Some(2)).await
}

// The naive cache has neither refreshes nor leases, so the remaining races have no twin.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_refresh_never_overwrites_a_newer_value() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let there = env.serve_without_relay().await;
    let here = env
        .serve_with(|config| {
            no_relay(config);
            config.cache.user_soft_ttl = Duration::from_millis(1).into();
        })
        .await;
    there.create("ada").await.unwrap();
    there.warm_redis("ada").await;

    let held = FailPointPause::first_at("user::before_refill");
    // Past its soft TTL the profile is still served, and refreshed in the background.
    {
        let mut arrived = pin!(held.reached());
        loop {
            tokio::select! {
                () = &mut arrived => break,
                read = here.get("ada") => assert_eq!(read.unwrap().version, 1),
            }
        }
    }
    there.rename("ada", "second").await.unwrap();
    held.resume();
    here.stop().await; // waits for its background refresh

    let read = there.get("ada").await.unwrap();
    assert_eq!((read.version, read.source), (2, Source::Redis));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_filler_paused_past_its_lease_is_refused() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let users = env.serve_with(|config| config.cache.user_lease_ttl = Duration::from_millis(100).into()).await;
    users.create("ada").await.unwrap();

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&users);
    held.reached().await;
    eventually("the lease has expired", SOON, async || env.keys("l", "ada").is_empty()).await;
    env.execute("UPDATE user_account SET version = 2").await; // bypasses the caches
    held.resume();

    assert_eq!(slow.await.unwrap(), Some(2), "it has read Postgres once more");
    assert!(!env.cached("ada"));
    assert_eq!(users.get("ada").await.unwrap().version, 2);
}

/// The write was applied before the reader took its lease, so the relay leaves the lease alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_fills_although_the_relay_ran_since_its_lease() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let late = |config: &mut Config| config.cache.user_relay_gather = Duration::from_secs(1).into();
    let users = env.serve_without_relay_with(late).await;
    users.create("ada").await.unwrap();

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&users);
    held.reached().await;
    assert_eq!(env.outbox("ada").await, 1, "the relay has not run yet");
    eventually("the outbox is empty", SOON, async || env.outbox("ada").await == 0).await;
    held.resume();

    assert_eq!(slow.await.unwrap(), Some(1));
    assert!(env.cached("ada"), "the relay has published a notification but applied nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_filler_whose_lease_belongs_to_another_now_is_refused() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let (here, there) = Contestant::Tidings.two(&env).await;
    here.create("ada").await.unwrap();

    let held = FailPointPause::first_at(BEFORE_FILL);
    let slow = reading(&here);
    held.reached().await;
    assert!(env.evict("l", "ada"));
    let next_held = FailPointPause::first_at(BEFORE_FILL);
    let next = reading(&there);
    next_held.reached().await;
    held.resume();
    assert_eq!(slow.await.unwrap(), Some(1));
    assert!(!env.cached("ada"), "a lease of another reader does not allow the fill");
    next_held.resume();
    assert_eq!(next.await.unwrap(), Some(1));

    assert!(env.cached("ada"), "the other reader still had its lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refresh_that_panicked_is_retried_by_the_next_reader() {
    let _scenario = FailScenario::setup();
    let env = TestEnv::shared().await;
    let users = env
        .serve_with(|config| {
            no_relay(config);
            config.cache.user_soft_ttl = Duration::from_millis(1).into();
            config.cache.user_lease_ttl = Duration::from_millis(200).into(); // the panic leaves the lease behind
            config.cache.user_fill_wait = Duration::from_millis(100).into();
        })
        .await;
    users.create("ada").await.unwrap();
    fail::cfg("user::before_refill", "1*panic->off").unwrap();
    users.warm_redis("ada").await;
    env.execute("UPDATE user_account SET version = 2").await; // bypasses the caches

    eventually("the profile is refreshed", SOON, async || users.get("ada").await.unwrap().version == 2).await;
}
