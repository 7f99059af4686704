//! Calls that are given up at any moment, and answers that come after that.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tidings_devstack::Proxy;
use tidings_redis::{Args, BreakerState, Error, Redis, Role, Script, cmd};
use tokio::task::{JoinSet, yield_now};

use super::support::{LONG, SHORT, args, connected, connection, open, own};

/// Callers that share the lanes.
const CALLERS: u64 = 64;
/// Lanes.
const LANES: u16 = 2;
/// The most often that a call is looked at before it is given up: about half of them are answered by then.
const LOOKS_MAX: u32 = 60;

/// How many calls are made: a million in `make drills`.
fn calls() -> u64 {
    std::env::var("TIDINGS_CANCELS").map_or(20_000, |calls| calls.parse().unwrap())
}

/// Looks at a call so often, while others run, and then drops it.
async fn given_up_after<T>(looks: u32, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..looks {
        let look = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        if let Poll::Ready(answer) = look {
            return Some(answer);
        }
        yield_now().await;
    }
    None
}

/// Asks Redis to say a nonce again, in one of the three ways there are, and compares.
async fn said_again(redis: &Redis, echo: &Script, nonce: u64) -> bool {
    let mut lane = redis.reader().await.unwrap();
    match nonce % 3 {
        0 => lane.send::<u64>(cmd("ECHO").arg(nonce)).await.unwrap() == nonce,
        1 => lane.read::<u64>(&echo.arg(nonce)).await.unwrap() == nonce,
        _ => lane.read_all::<u64>(&[(); 3].map(|()| echo.arg(nonce))).await.unwrap() == [nonce; 3],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_cancelled_at_random_moments_give_nobody_anothers_answer_and_leave_every_lane_as_it_was() {
    let stack = own().await;
    let redis = open(&stack, LANES, LONG);
    connected(&redis).await;
    let mut before = Vec::new();
    for _ in 0..LANES {
        before.push(connection(redis.reader().await).await.unwrap());
    }
    let (echo, calls, answered) = (Script::new("return ARGV[1]"), calls(), Arc::new(AtomicU64::new(0)));

    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (redis, echo, answered) = (redis.clone(), echo.clone(), Arc::clone(&answered));
        callers.spawn(async move {
            for number in 0..calls / CALLERS {
                let looks = rand::rng().random_range(0..=LOOKS_MAX);
                let call = said_again(&redis, &echo, caller << 32 | number);
                if let Some(its_own) = given_up_after(looks, call).await {
                    assert!(its_own, "an answer to somebody else");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    callers.join_all().await;
    let (took, answered) = (begun.elapsed(), answered.load(Ordering::Relaxed));
    eprintln!("{calls} calls in {took:.1?}: {answered} answered, the others cancelled");
    assert!(answered > calls / 20 && calls - answered > calls / 20, "neither is tried much: {answered} of {calls}");

    for number in 0..1000 {
        assert!(said_again(&redis, &echo, number).await);
    }
    let mut after = Vec::new();
    for _ in 0..LANES {
        after.push(connection(redis.reader().await).await.unwrap());
    }
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!((after, redis.breaker()), (before, BreakerState::Closed), "the same connections, and none is broken");
}

#[tokio::test]
async fn answers_that_come_too_late_are_given_to_nobody() {
    let stack = own().await;
    let proxy = Proxy::to(([127, 0, 0, 1], stack.redis().port()).into()).await.unwrap();
    let way = format!("redis://{}", proxy.address()).parse().unwrap();
    let redis = Redis::open(&Args { redis_url: way, ..args(&stack, 1, SHORT) }, "test", Role::Cache).unwrap();
    let mut lane = connected(&redis).await;
    let before = connection(redis.reader().await).await.unwrap();

    proxy.delay(3 * SHORT);
    for nonce in 0..5_u64 {
        let error = lane.send::<u64>(cmd("ECHO").arg(nonce)).await.unwrap_err();
        assert!(matches!(error, Error::Unanswered(_)), "{error:?}");
    }
    proxy.delay(Duration::ZERO);

    let mut answered = 0;
    for nonce in 100.. {
        if let Ok(said) = lane.send::<u64>(cmd("ECHO").arg(nonce)).await {
            assert_eq!(said, nonce, "an answer to somebody else");
            answered += 1;
        }
        if answered == 100 {
            break;
        }
    }
    connected(&redis).await;
    assert_eq!(connection(redis.reader().await).await.unwrap(), before, "over the same connection");
}
