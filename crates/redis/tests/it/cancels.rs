//! Calls that are cancelled at random moments, and replies that arrive after a timeout.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tidings_devstack::Proxy;
use tidings_devstack::testing::{self, own_redis};
use tidings_redis::{Args, BreakerState, Error, Redis, Role, Script, cmd};
use tokio::task::{JoinSet, yield_now};

use super::support::{LONG_TIMEOUT, SHORT_TIMEOUT, args, connected_lane, connection_id, open_redis};

/// Concurrent callers that share the lanes.
const CALLERS: u64 = 64;
const LANES: u16 = 2;
/// Largest number of polls before a call is cancelled; about half of the calls complete by then.
const POLLS_MAX: u32 = 60;

/// Returns the number of calls; `make drills` sets `TIDINGS_CANCELS` to a million.
fn calls() -> u64 {
    std::env::var("TIDINGS_CANCELS").map_or(20_000, |calls| calls.parse().unwrap())
}

/// Polls a call this many times while other tasks run, then drops it.
async fn poll_then_cancel<T>(polls: u32, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..polls {
        let poll = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        if let Poll::Ready(answer) = poll {
            return Some(answer);
        }
        yield_now().await;
    }
    None
}

/// Returns true if Redis echoes the nonce. The nonce selects command, script or batch of scripts.
async fn echoes(redis: &Redis, echo: &Script, nonce: u64) -> bool {
    let mut lane = redis.reader().await.unwrap();
    match nonce % 3 {
        0 => lane.send::<u64>(cmd("ECHO").arg(nonce)).await.unwrap() == nonce,
        1 => lane.read::<u64>(&echo.arg(nonce)).await.unwrap() == nonce,
        _ => lane.read_all::<u64>(&[(); 3].map(|()| echo.arg(nonce))).await.unwrap() == [nonce; 3],
    }
}

/// Every lane keeps its connection, and the breaker stays closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_do_not_mix_up_the_replies_of_others() {
    let redis = open_redis(testing::shared_redis().await, LANES, LONG_TIMEOUT);
    connected_lane(&redis).await;
    let mut before = Vec::new();
    for _ in 0..LANES {
        before.push(connection_id(redis.reader().await).await.unwrap());
    }
    let (echo, calls, answered) = (Script::new("return ARGV[1]"), calls(), Arc::new(AtomicU64::new(0)));

    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (redis, echo, answered) = (redis.clone(), echo.clone(), Arc::clone(&answered));
        callers.spawn(async move {
            for number in 0..calls / CALLERS {
                let polls = rand::rng().random_range(0..=POLLS_MAX);
                let call = echoes(&redis, &echo, caller << 32 | number);
                if let Some(is_own_reply) = poll_then_cancel(polls, call).await {
                    assert!(is_own_reply, "the reply belongs to another call");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    callers.join_all().await;
    let (took, answered) = (begun.elapsed(), answered.load(Ordering::Relaxed));
    eprintln!("{calls} calls in {took:.1?}: {answered} completed, the others were cancelled");
    assert!(
        answered > calls / 20 && calls - answered > calls / 20,
        "too few completed or cancelled calls: {answered} of {calls} completed"
    );

    for number in 0..1000 {
        assert!(echoes(&redis, &echo, number).await);
    }
    let mut after = Vec::new();
    for _ in 0..LANES {
        after.push(connection_id(redis.reader().await).await.unwrap());
    }
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!((after, redis.breaker()), (before, BreakerState::Closed), "connections or breaker have changed");
}

#[tokio::test]
async fn late_replies_are_discarded() {
    let server = own_redis().await;
    let proxy = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.unwrap();
    let url = format!("redis://{}", proxy.address()).parse().unwrap();
    let redis = Redis::open(&Args { redis_url: url, ..args(&server, 1, SHORT_TIMEOUT) }, "test", Role::Cache).unwrap();
    let mut lane = connected_lane(&redis).await;
    let before = connection_id(redis.reader().await).await.unwrap();

    proxy.delay(3 * SHORT_TIMEOUT);
    for nonce in 0..5_u64 {
        let error = lane.send::<u64>(cmd("ECHO").arg(nonce)).await.unwrap_err();
        assert!(matches!(error, Error::Unanswered(_)), "{error:?}");
    }
    proxy.delay(Duration::ZERO);

    let mut answered = 0;
    for nonce in 100.. {
        if let Ok(echo) = lane.send::<u64>(cmd("ECHO").arg(nonce)).await {
            assert_eq!(echo, nonce, "the reply belongs to another call");
            answered += 1;
        }
        if answered == 100 {
            break;
        }
    }
    connected_lane(&redis).await;
    assert_eq!(connection_id(redis.reader().await).await.unwrap(), before, "the connection has changed");
}
