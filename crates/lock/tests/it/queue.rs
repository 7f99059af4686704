//! Wait queue: waiters are served in order of arrival, and cancelled ones leave nothing behind.

use std::time::Duration;

use tidings_devstack::testing::{self, NEVER, PATIENCE, eventually};
use tidings_lock::config::LockArgs;
use tidings_lock::leases::LockLimits;
use tidings_lock::model::{AcquireRequest, CallId, InstanceId, LeaseId, LockEpoch, LockName};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::support::client::{Released, lasting, named, once, refusal, waiting, waiting_for};
use crate::support::{LockFixture, TTL};

/// Starts instances without rechecks, which learn of offers by notifications only.
async fn start_without_rechecks(instances: usize) -> LockFixture<'static> {
    LockFixture::start_on(testing::shared().await, instances, |_, config| config.locks.lock_reread_tick = NEVER.into())
        .await
}

#[tokio::test]
async fn waiters_of_two_instances_are_served_in_order_of_arrival() {
    let locks = start_without_rechecks(2).await;
    let mut hold = locks.take("a", "first").await;
    let mut calls = Vec::new();
    for number in 0..12 {
        calls.push(locks.client(number % 2).spawn_acquire(waiting("a", &format!("waiter-{number}"))));
        locks.wait_for_waiters("a", i32::try_from(number).unwrap() + 1).await;
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
    let locks = start_without_rechecks(2).await;
    let mut hold = locks.take("a", "first").await;
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let next = locks.client(round % 2).spawn_acquire(waiting("a", "next"));
        locks.wait_for_waiters("a", 1).await;
        let released = Instant::now();
        locks.client((round + 1) % 2).release(&hold).await.unwrap();
        hold = next.await.unwrap().unwrap().granted();
        slowest = slowest.max(released.elapsed());
    }
    // An offer without a notification would expire after 1.5 s.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test]
async fn a_lease_granted_after_a_wait_begins_with_its_claim() {
    let locks = LockFixture::start().await;
    let hold = locks.take("a", "ada").await;
    let next = locks.spawn_acquire(waiting("a", "bob"));
    locks.wait_for_waiters("a", 1).await;
    let queued = Instant::now();
    locks.redis().await.advance(Duration::from_millis(700)).await;
    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    let next = next.await.unwrap().unwrap().granted();

    assert_eq!(next.lease, TTL, "the wait is not part of the lease");
    assert!(next.waited >= released - queued, "{:?}", next.waited);
    let (_, remaining) = locks.check("a", next.token).await.unwrap();
    assert!(remaining.unwrap() > Duration::from_millis(300), "{remaining:?}");
}

/// With a request id its position is kept, for 2 s.
#[tokio::test]
async fn a_cancelled_waiter_leaves_no_trace() {
    let locks = LockFixture::start_two().await;
    let redis = locks.redis().await;
    locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap();
    let before = redis.snapshot().await;

    for request in [waiting("a", "bob"), named("r", waiting("a", "bob"))] {
        let call = locks.client(1).spawn_acquire(request);
        locks.wait_for_waiters("a", 1).await;
        call.abort();
        eventually("nothing is left", async || {
            let mut now = redis.snapshot().await;
            // Numbers of arrival are never reused.
            let meta = now.insert("meta".to_owned(), before["meta"].clone());
            meta.is_some() && now == before
        })
        .await;
    }
}

/// A proxy may end each call after some seconds.
#[tokio::test]
async fn a_named_waiter_keeps_its_position_from_call_to_call() {
    let locks = LockFixture::start_two().await;
    let hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap().granted();
    let mut call = locks.spawn_acquire(named("r", waiting("a", "bob")));
    locks.wait_for_waiters("a", 1).await;
    let mut next = locks.spawn_acquire(waiting("a", "next"));
    locks.wait_for_waiters("a", 2).await;

    for instance in [1, 0, 1] {
        call.abort();
        sleep(Duration::from_millis(300)).await; // time to leave
        assert_eq!(locks.get("a").await.unwrap().waiter_count, 2, "the position is given up");
        call = locks.client(instance).spawn_acquire(named("r", waiting("a", "bob")));
        sleep(Duration::from_millis(300)).await; // time to arrive
    }
    locks.release(&hold).await.unwrap();

    let first = tokio::select! {
        biased;
        granted = &mut next => panic!("overtaken by {:?}", granted.unwrap().unwrap()),
        granted = call => granted.unwrap().unwrap().granted(),
    };
    locks.release(&first).await.unwrap();
    next.await.unwrap().unwrap().granted();
}

/// It is granted the lock after that, as the first of those who wait.
#[tokio::test]
async fn a_free_lock_does_not_wait_for_a_waiter_between_calls() {
    let locks = start_without_rechecks(1).await;
    let hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap().granted();
    let absent = locks.spawn_acquire(named("r", waiting("a", "bob")));
    locks.wait_for_waiters("a", 1).await;
    let next = locks.spawn_acquire(lasting(PATIENCE * 2, waiting("a", "next")));
    locks.wait_for_waiters("a", 2).await;
    let mut last = locks.spawn_acquire(waiting("a", "last"));
    locks.wait_for_waiters("a", 3).await;

    absent.abort();
    sleep(Duration::from_millis(300)).await; // time to leave
    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    let next = next.await.unwrap().unwrap().granted();
    assert!(released.elapsed() < Duration::from_millis(1400), "{:?}", released.elapsed());

    let retry = locks.spawn_acquire(named("r", waiting("a", "bob")));
    sleep(Duration::from_millis(300)).await; // time to arrive
    locks.release(&next).await.unwrap();
    let retried = tokio::select! {
        biased;
        granted = &mut last => panic!("overtaken by {:?}", granted.unwrap().unwrap()),
        granted = retry => granted.unwrap().unwrap().granted(),
    };
    locks.release(&retried).await.unwrap();
    last.await.unwrap().unwrap().granted();
}

#[tokio::test]
async fn a_grant_to_a_cancelled_waiter_passes_to_the_next() {
    let locks = start_without_rechecks(1).await;
    for _ in 0..20 {
        let hold = locks.take("a", "ada").await;
        let disconnected = locks.spawn_acquire(waiting("a", "cancelled"));
        locks.wait_for_waiters("a", 1).await;
        let next = locks.spawn_acquire(waiting("a", "next"));
        locks.wait_for_waiters("a", 2).await;

        let released = Instant::now();
        let ((), result) = tokio::join!(async { disconnected.abort() }, locks.release(&hold));
        result.unwrap();
        let next = next.await.unwrap().unwrap().granted();
        assert!(released.elapsed() < Duration::from_millis(1400), "{:?}", released.elapsed());
        locks.release(&next).await.unwrap();
    }
}

#[tokio::test]
async fn a_timed_out_wait_reports_the_holder_and_its_queue_position() {
    let locks = LockFixture::start().await;
    let hold = locks.acquire(lasting(Duration::from_mins(1), once("a", "ada"))).await;
    let hold = hold.unwrap().granted();
    let first = locks.spawn_acquire(waiting("a", "bob"));
    locks.wait_for_waiters("a", 1).await;

    let sent = Instant::now();
    let timed_out = locks.acquire(waiting_for("a", "eve", Duration::from_millis(300))).await.unwrap().timed_out();

    assert!(sent.elapsed() >= Duration::from_millis(300));
    assert_eq!((timed_out.position, timed_out.blockers.len()), (2, 1));
    assert_eq!((timed_out.blockers[0].owner.as_str(), timed_out.blockers[0].token), ("ada", hold.token));
    assert_eq!(locks.get("a").await.unwrap().waiter_count, 1);
    first.abort();
}

#[tokio::test]
async fn the_deadline_of_the_call_ends_the_wait_as_timed_out() {
    let locks = LockFixture::start().await;
    locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap();
    let sent = Instant::now();

    // The margin for the response is 50 ms; on a busy machine it may be exceeded.
    let mut timed_out = None;
    while timed_out.is_none() && sent.elapsed() < PATIENCE {
        let result = locks.acquire_within(waiting("a", "bob"), Some(Duration::from_millis(600))).await;
        timed_out = result.ok().map(|acquired| acquired.timed_out());
    }
    assert_eq!(timed_out.unwrap().position, 1);
    eventually("the waiter is cancelled", async || locks.get("a").await.unwrap().waiter_count == 0).await;
}

/// The next waiter of another instance is served at once.
#[tokio::test]
async fn an_instance_that_shuts_down_cancels_its_waiters() {
    let mut locks = start_without_rechecks(2).await;
    let client = locks.client(1);
    let hold = client.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await;
    let hold = hold.unwrap().granted();
    let drained = locks.spawn_acquire(waiting("a", "drained"));
    locks.wait_for_waiters("a", 1).await;
    let next = client.spawn_acquire(waiting("a", "next"));
    locks.wait_for_waiters("a", 2).await;

    locks.begin_shutdown(0);
    let failure = drained.await.unwrap().unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert!(failure.retry_after.is_some());
    locks.wait_until_stopped(0).await;
    assert_eq!(client.get("a").await.unwrap().waiter_count, 1, "the instance ended before its cancels");

    let released = Instant::now();
    client.release(&hold).await.unwrap();
    next.await.unwrap().unwrap().granted();
    assert!(released.elapsed() < Duration::from_millis(1400), "{:?}", released.elapsed());
}

#[tokio::test]
async fn calls_above_the_waiter_limit_of_an_instance_are_refused() {
    let locks = LockFixture::start_on(testing::shared().await, 1, |_, config| {
        config.locks = LockArgs { lock_max_waiters: 2, ..config.locks.clone() };
    })
    .await;
    locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await.unwrap();
    let calls = [locks.spawn_acquire(waiting("a", "bob")), locks.spawn_acquire(waiting("a", "eve"))];
    locks.wait_for_waiters("a", 2).await;

    let failure = locks.acquire(waiting("b", "joe")).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    assert!(failure.retry_after.is_some());
    assert_eq!(locks.acquire(once("a", "joe")).await.unwrap().held().waiting, 2, "a call without wait was refused");
    for call in calls {
        call.abort();
    }
    eventually("another call may wait", async || locks.acquire(waiting("b", "joe")).await.is_ok()).await;
}

#[tokio::test]
async fn a_holder_that_acquires_again_waits_for_itself() {
    let locks = LockFixture::start().await;
    let first = locks.take("a", "ada").await;

    let second = locks.acquire(once("a", "ada")).await.unwrap().held();
    assert_eq!(second.blockers[0].token, first.token);
}

#[tokio::test]
async fn get_lock_lists_the_first_hundred_waiters_and_counts_all() {
    let locks = LockFixture::start().await;
    let redis = locks.redis().await;
    let hold = locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await;
    let hold = hold.unwrap().granted();
    let calls: Vec<_> = (0..105).map(|_| locks.spawn_acquire(waiting("a", "bob"))).collect();
    locks.wait_for_waiters("a", 105).await;
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
async fn a_full_queue_refuses_with_a_retry_delay() {
    let locks = LockFixture::start().await;
    locks.acquire(lasting(PATIENCE * 4, once("a", "ada"))).await.unwrap();
    let redis = locks.redis().await;
    // 10,000 queue entries of calls on other instances.
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
    assert_eq!(waiting_for.unwrap().timed_out().position, 10_000, "the last position is free");
}

#[tokio::test]
async fn an_unknown_mode_is_refused() {
    let locks = LockFixture::start().await;
    let request = tidings_proto::lock::AcquireLockRequest { mode: 7, ..once("a", "ada") };

    assert_eq!(refusal(locks.acquire(request).await), (Code::InvalidArgument, "INVALID_FIELDS".to_owned()));
}

#[tokio::test]
async fn an_offer_to_an_unknown_call_is_declined_at_once() {
    let locks = start_without_rechecks(1).await;
    let redis = locks.redis().await;
    let hold = locks.acquire(lasting(PATIENCE * 2, once("a", "ada"))).await;
    let hold = hold.unwrap().granted();
    // A queue entry whose call has ended: its script arrived after the cancel.
    let instances: Vec<String> = redis.run(redis::cmd("HKEYS").arg(redis.key("instances"))).await;
    let orphan = AcquireRequest {
        name: LockName::new("a".to_owned()),
        owner: "orphan".to_owned(),
        ttl: Duration::from_secs(1),
        key: None,
        arrived: Instant::now(),
        wait_until: Some(Instant::now() + PATIENCE * 4),
    };
    let (epoch, id, call) = (LockEpoch::new(locks.epoch().await), LeaseId::random(), CallId::random());
    let instance = InstanceId::new(instances[0].clone());
    let leases = locks.leases(LockLimits::default());
    leases.acquire(epoch, &instance, (&id, &call), &orphan, Instant::now()).await.unwrap();
    let next = locks.spawn_acquire(waiting("a", "next"));
    locks.wait_for_waiters("a", 2).await;

    let released = Instant::now();
    locks.release(&hold).await.unwrap();
    next.await.unwrap().unwrap().granted();
    assert!(released.elapsed() < Duration::from_millis(1400), "{:?}", released.elapsed());
}
