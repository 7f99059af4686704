//! The circuit breaker in front of a real Redis that is paused or killed: it spares callers the
//! wait, and admits them soon after the outage.

use std::time::{Duration, Instant};

use tidings_devstack::testing::{self, eventually, own_redis};
use tidings_redis::{BreakerState, Error, Redis};
use tokio::time::sleep;

use super::support::{LONG_TIMEOUT, SHORT_TIMEOUT, connected_lane, connection_id, open_redis};

/// Consecutive timeouts that open the breaker.
const TIMEOUTS_TO_OPEN: usize = 5;

/// Opens the breaker by calls that time out.
async fn open_breaker(redis: &Redis) {
    for _ in 0..TIMEOUTS_TO_OPEN {
        assert_eq!(redis.breaker(), BreakerState::Closed);
        connection_id(redis.reader().await).await.unwrap_err();
    }
    assert_ne!(redis.breaker(), BreakerState::Closed);
}

/// Makes a thousand calls in a row and asserts that hardly any of them waits.
async fn assert_calls_fail_fast(redis: &Redis) {
    let begun = Instant::now();
    for _ in 0..1000 {
        // The breaker admits a call now and then; it times out.
        assert!(matches!(connection_id(redis.reader().await).await, Err(Error::Away | Error::Unanswered(_))));
    }
    // Refused calls take microseconds, admitted ones 50 ms. All 1,000 admitted would take 50 s.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_paused_redis_costs_only_five_calls_their_timeout() {
    let server = own_redis().await;
    let redis = open_redis(&server, 2, SHORT_TIMEOUT);
    connected_lane(&redis).await;

    server.pause();
    open_breaker(&redis).await;
    assert_calls_fail_fast(&redis).await;
    server.resume();

    eventually("calls receive replies", async || connection_id(redis.reader().await).await.is_ok()).await;
    assert_eq!(redis.breaker(), BreakerState::Closed);
}

#[tokio::test]
async fn calls_to_a_killed_redis_fail_fast_once_the_breaker_is_open() {
    let server = own_redis().await;
    let redis = open_redis(&server, 2, SHORT_TIMEOUT);
    connected_lane(&redis).await;

    server.kill().await;
    eventually("the breaker is open", async || {
        let _ = connection_id(redis.reader().await).await;
        redis.breaker() != BreakerState::Closed
    })
    .await;
    assert_calls_fail_fast(&redis).await;
    server.start().await.unwrap();

    eventually("calls receive replies", async || connection_id(redis.reader().await).await.is_ok()).await;
    assert_eq!(redis.breaker(), BreakerState::Closed);
}

/// It does not wait for the end of a pause, which is up to 5 s by then.
#[tokio::test]
async fn after_a_long_outage_the_first_probe_admits_a_call() {
    let server = own_redis().await;
    let redis = open_redis(&server, 1, SHORT_TIMEOUT);
    connected_lane(&redis).await;

    server.pause();
    let until = Instant::now() + Duration::from_secs(9); // the pause has grown to 4 s and more by then
    while Instant::now() < until {
        let _ = connection_id(redis.reader().await).await;
        sleep(Duration::from_millis(5)).await;
    }
    server.resume();
    let resumed = Instant::now();

    eventually("calls receive replies", async || connection_id(redis.reader().await).await.is_ok()).await;
    assert!(resumed.elapsed() < Duration::from_secs(3), "{:?}", resumed.elapsed());
}

#[tokio::test]
async fn the_ping_of_the_health_check_bypasses_an_open_breaker() {
    let server = own_redis().await;
    let redis = open_redis(&server, 1, SHORT_TIMEOUT);
    connected_lane(&redis).await;
    server.pause();
    open_breaker(&redis).await;

    assert!(!redis.ping().await);
    server.resume();

    eventually("the ping succeeds", async || redis.ping().await).await;
    assert_eq!(redis.breaker(), BreakerState::Closed);
}

#[tokio::test]
async fn error_replies_do_not_open_the_breaker() {
    let redis = open_redis(testing::shared_redis().await, 1, LONG_TIMEOUT);
    connected_lane(&redis).await;

    for _ in 0..100 {
        let mut lane = redis.reader().await.unwrap();
        lane.send::<i64>(&tidings_redis::cmd("NONSENSE")).await.unwrap_err();
    }

    assert_eq!(redis.breaker(), BreakerState::Closed);
}
