//! Whoever waits is served in order of arrival, and whoever goes away leaves nothing behind.

use std::time::Duration;

use tidings_devstack::testing;
use tidings_lock::config::LockArgs;
use tidings_lock::leases::Limits;
use tidings_lock::model::{CallId, Epoch, InstanceId, LeaseId, LockName, Wish};
use tokio::time::Instant;
use tonic::Code;

use crate::support::client::{Released, lasting, named, once, refusal, waiting, waiting_for};
use crate::support::{Locks, NEVER, PATIENCE, TTL, eventually};

/// Instances that hear of offers by their news alone.
async fn start_without_rereads(instances: usize) -> Locks<'static> {
    Locks::start_on(testing::shared().await, instances, |_, config| config.locks.lock_reread_tick = NEVER.into()).await
}

#[tokio::test]
async fn waiters_are_served_in_order_of_arrival_over_two_instances() {
    let locks = start_without_rereads(2).await;
    let mut hold = locks.take("a", "first").await;
    let mut calls = Vec::new();
    for number in 0..12 {
        calls.push(locks.client(number % 2).acquiring(waiting("a", &format!("waiter-{number}"))));
        locks.until_waiting("a", i32::try_from(number).unwrap() + 1).await;
    }
    let lock = locks.get("a").await.unwrap();
    let owners: Vec<_> = lock.waiters.iter().map(|waiter| waiter.owner.clone()).collect();
    assert_eq!(owners, (0..12).map(|number| format!("waiter-{number}")).collect::<Vec<_>>());

    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(locks.client((number + 1) % 2).release(&hold).await.unwrap(), Released::Released);
        let next = call.await.unwrap().unwrap().granted();
        assert!(next.token > hold.token);
        let holder = &locks.get("a").await.unwrap().holders[0];
        assert_eq!((holder.owner.as_str(), holder.token), (format!("waiter-{number}").as_str(), next.token));
        hold = next;
    }
}

#[tokio::test]
async fn a_lock_is_handed_over_without_polling() {
    let locks = start_without_rereads(2).await;
    let mut hold = locks.take("a", "first").await;
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let next = locks.client(round % 2).acquiring(waiting("a", "next"));
        locks.until_waiting("a", 1).await;
        let released = Instant::now();
        locks.client((round + 1) % 2).release(&hold).await.unwrap();
        hold = next.await.unwrap().unwrap().granted();
        slowest = slowest.max(released.elapsed());
    }
    // An offer that is not heard of runs out after 1.5 s.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test]
async fn a_lease_that_was_waited_for_begins_with_its_claim() {
    let locks = Locks::start().await;
    let hold = locks.take("a", "ada").await;
    let next = locks.acquiring(waiting("a", "bob"));
    locks.until_waiting("a", 1).await;
    let queued = Instant::now();
    locks.redis().await.advance(Duration::from_millis(700)).await;
    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    let next = next.await.unwrap().unwrap().granted();

    assert_eq!(next.lease, TTL, "what was waited for is no part of it");
    assert!(next.waited >= released - queued, "{:?}", next.waited);
    let (_, remaining) = locks.check("a", next.token).await.unwrap();
    assert!(remaining.unwrap() > Duration::from_millis(300), "{remaining:?}");
}

#[tokio::test]
async fn a_cancelled_waiter_leaves_no_trace() {
    let locks = Locks::start_two().await;
    let redis = locks.redis().await;
    locks.take("a", "ada").await;
    let before = redis.everything().await;

    for request in [waiting("a", "bob"), named("r", waiting("a", "bob"))] {
        let call = locks.client(1).acquiring(request);
        locks.until_waiting("a", 1).await;
        call.abort();
        eventually("nothing is left", async || {
            let mut now = redis.everything().await;
            // Numbers of arrival are not given back.
            let meta = now.insert("meta".to_owned(), before["meta"].clone());
            meta.is_some() && now == before
        })
        .await;
    }
}

#[tokio::test]
async fn a_grant_that_meets_a_caller_that_has_gone_goes_to_the_next() {
    let locks = start_without_rereads(1).await;
    for _ in 0..20 {
        let hold = locks.take("a", "ada").await;
        let gone = locks.acquiring(waiting("a", "gone"));
        locks.until_waiting("a", 1).await;
        let next = locks.acquiring(waiting("a", "next"));
        locks.until_waiting("a", 2).await;

        let released = Instant::now();
        let ((), answer) = tokio::join!(async { gone.abort() }, locks.release(&hold));
        answer.unwrap();
        let next = next.await.unwrap().unwrap().granted();
        assert!(released.elapsed() < Duration::from_millis(1400), "{:?}", released.elapsed());
        locks.release(&next).await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_that_was_waited_for_in_vain_is_told_with_its_holder_and_the_place() {
    let locks = Locks::start().await;
    let hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await;
    let hold = hold.unwrap().granted();
    let first = locks.acquiring(waiting("a", "bob"));
    locks.until_waiting("a", 1).await;

    let begun = Instant::now();
    let timed_out = locks.acquire(waiting_for("a", "eve", Duration::from_millis(300))).await.unwrap().timed_out();

    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!((timed_out.position, timed_out.blockers.len()), (2, 1));
    assert_eq!((timed_out.blockers[0].owner.as_str(), timed_out.blockers[0].token), ("ada", hold.token));
    assert_eq!(locks.get("a").await.unwrap().waiter_count, 1);
    first.abort();
}

#[tokio::test]
async fn the_deadline_of_the_call_ends_the_wait_as_timed_out() {
    let locks = Locks::start().await;
    locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap();
    let begun = Instant::now();

    // 50 ms are for the answer; a busy machine may take them all.
    let mut timed_out = None;
    while timed_out.is_none() && begun.elapsed() < PATIENCE {
        let answer = locks.acquire_within(waiting("a", "bob"), Some(Duration::from_millis(600))).await;
        timed_out = answer.ok().map(|acquired| acquired.timed_out());
    }
    assert_eq!(timed_out.unwrap().position, 1);
    eventually("the place is given up", async || locks.get("a").await.unwrap().waiter_count == 0).await;
}

#[tokio::test]
async fn an_instance_that_shuts_down_gives_up_its_places_and_the_next_is_served_at_once() {
    let mut locks = start_without_rereads(2).await;
    let client = locks.client(1);
    let hold = client.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await;
    let hold = hold.unwrap().granted();
    let drained = locks.acquiring(waiting("a", "drained"));
    locks.until_waiting("a", 1).await;
    let next = client.acquiring(waiting("a", "next"));
    locks.until_waiting("a", 2).await;

    locks.ask_to_stop(0);
    let failure = drained.await.unwrap().unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert!(failure.retry_after.is_some());
    locks.stopped(0).await;
    assert_eq!(client.get("a").await.unwrap().waiter_count, 1, "all was given up before the instance ended");

    let released = Instant::now();
    client.release(&hold).await.unwrap();
    next.await.unwrap().unwrap().granted();
    assert!(released.elapsed() < Duration::from_millis(1400), "{:?}", released.elapsed());
}

#[tokio::test]
async fn more_calls_than_may_wait_at_an_instance_are_refused() {
    let locks = Locks::start_on(testing::shared().await, 1, |_, config| {
        config.locks = LockArgs { lock_max_waiters: 2, ..config.locks.clone() };
    })
    .await;
    locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap();
    let calls = [locks.acquiring(waiting("a", "bob")), locks.acquiring(waiting("a", "eve"))];
    locks.until_waiting("a", 2).await;

    let failure = locks.acquire(waiting("b", "joe")).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(failure.retry_after.is_some());
    assert_eq!(locks.acquire(once("a", "joe")).await.unwrap().held().waiting, 2, "who does not wait needs no room");
    for call in calls {
        call.abort();
    }
    eventually("there is room again", async || locks.acquire(waiting("b", "joe")).await.is_ok()).await;
}

#[tokio::test]
async fn whoever_holds_a_lock_and_acquires_it_again_waits_for_itself() {
    let locks = Locks::start().await;
    let first = locks.take("a", "ada").await;

    let second = locks.acquire(once("a", "ada")).await.unwrap().held();
    assert_eq!(second.blockers[0].token, first.token);
}

#[tokio::test]
async fn a_lock_tells_of_the_first_hundred_who_wait_and_of_how_many_there_are() {
    let locks = Locks::start().await;
    let redis = locks.redis().await;
    let hold = locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await;
    let hold = hold.unwrap().granted();
    let calls: Vec<_> = (0..105).map(|_| locks.acquiring(waiting("a", "bob"))).collect();
    locks.until_waiting("a", 105).await;
    redis.advance(Duration::from_secs(1)).await;

    let lock = locks.get("a").await.unwrap();
    assert_eq!((lock.name.as_str(), lock.waiters.len(), lock.waiter_count), ("a", 100, 105));
    assert_eq!((lock.holders.len(), lock.holders[0].token, lock.quarantine), (1, hold.token, None));
    for waiter in lock.waiters {
        assert_eq!(waiter.owner, "bob");
        assert!(Duration::try_from(waiter.waited.unwrap()).unwrap() >= Duration::from_secs(1));
    }
    for call in &calls {
        call.abort();
    }

    let free = locks.get("free").await.unwrap();
    assert_eq!((free.holders.len(), free.waiters.len(), free.waiter_count), (0, 0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_try_again() {
    let locks = Locks::start().await;
    locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await.unwrap();
    let redis = locks.redis().await;
    // 10,000 places whose calls are elsewhere.
    let fill = r"
        for i = 1, 10000 do
            redis.call('ZADD', KEYS[1], 0, 'a' .. '\0' .. string.format('%014x', i) .. 'id-' .. i)
        end";
    redis.run::<()>(redis::cmd("EVAL").arg(fill).arg(1).arg(redis.key("queue"))).await;
    redis.set_meta("arrivals", 10_000).await;

    let failure = locks.acquire(waiting("a", "bob")).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::ResourceExhausted, "QUEUE_FULL"));
    assert!(failure.retry_after.is_some());
    assert_eq!(locks.acquire(once("a", "bob")).await.unwrap().held().waiting, 10_000);
    locks.take("b", "bob").await;
    redis.run::<()>(redis::cmd("ZREMRANGEBYRANK").arg(redis.key("queue")).arg(0).arg(0)).await;
    let waiting_for = locks.acquire(waiting_for("a", "bob", Duration::from_millis(100))).await;
    assert_eq!(waiting_for.unwrap().timed_out().position, 10_000, "the last place is given");
}

#[tokio::test]
async fn a_mode_of_a_later_release_is_refused() {
    let locks = Locks::start().await;
    let request = tidings_proto::lock::AcquireLockRequest { mode: 7, ..once("a", "ada") };

    assert_eq!(refusal(locks.acquire(request).await), (Code::InvalidArgument, "INVALID_FIELDS".to_owned()));
}

#[tokio::test]
async fn an_offer_to_a_call_that_nobody_knows_is_declined_at_once() {
    let locks = start_without_rereads(1).await;
    let redis = locks.redis().await;
    let hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await;
    let hold = hold.unwrap().granted();
    // A place whose call has gone: its script came after all that would have given it up.
    let instances: Vec<String> = redis.run(redis::cmd("HKEYS").arg(redis.key("instances"))).await;
    let orphan = Wish {
        name: LockName::new("a".to_owned()),
        owner: "orphan".to_owned(),
        ttl: Duration::from_secs(1),
        request: None,
        arrived: Instant::now(),
        until: Some(Instant::now() + PATIENCE * 4),
    };
    let (epoch, id, call) = (Epoch::new(locks.epoch().await), LeaseId::random(), CallId::random());
    let instance = InstanceId::new(instances[0].clone());
    let asked = locks.leases(Limits::default());
    asked.acquire(epoch, &instance, (&id, &call), &orphan, Instant::now()).await.unwrap();
    let next = locks.acquiring(waiting("a", "next"));
    locks.until_waiting("a", 2).await;

    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    next.await.unwrap().unwrap().granted();
    assert!(released.elapsed() < Duration::from_millis(1400), "{:?}", released.elapsed());
}
