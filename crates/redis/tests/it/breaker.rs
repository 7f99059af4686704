//! What the breaker spares callers while a real Redis stands still or is gone, and how soon it lets them through again.

use std::time::{Duration, Instant};

use tidings_redis::{BreakerState, Error, Redis};
use tokio::time::sleep;

use super::support::{LONG, SHORT, connected, connection, eventually, open, own};

/// So many calls wait in vain before it opens.
const IN_VAIN: usize = 5;

/// Calls until the breaker is open, and one more.
async fn opened(redis: &Redis) {
    for _ in 0..IN_VAIN {
        assert_eq!(redis.breaker(), BreakerState::Closed);
        connection(redis.reader().await).await.unwrap_err();
    }
    assert_ne!(redis.breaker(), BreakerState::Closed);
}

/// A thousand calls in a row, of which hardly any waits.
async fn assert_spared(redis: &Redis) {
    let begun = Instant::now();
    for _ in 0..1000 {
        // Now and then one is let through, and waits.
        assert!(matches!(connection(redis.reader().await).await, Err(Error::Away | Error::Unanswered(_))));
    }
    // In microseconds; but those that are let through take 50 ms each, and this machine may be busy. All would be 50 s.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_redis_that_stands_still_costs_five_calls_their_time_out_and_no_other() {
    let stack = own().await;
    let redis = open(&stack, 2, SHORT);
    connected(&redis).await;

    stack.redis().pause();
    opened(&redis).await;
    assert_spared(&redis).await;
    stack.redis().resume();

    eventually("calls are answered", async || connection(redis.reader().await).await.is_ok()).await;
    assert_eq!(redis.breaker(), BreakerState::Closed);
}

#[tokio::test]
async fn a_redis_that_is_gone_costs_five_calls_the_wait_for_a_lane_and_no_other() {
    let stack = own().await;
    let redis = open(&stack, 2, SHORT);
    connected(&redis).await;

    stack.redis().kill().await;
    eventually("the breaker is open", async || {
        let _ = connection(redis.reader().await).await;
        redis.breaker() != BreakerState::Closed
    })
    .await;
    assert_spared(&redis).await;
    stack.redis().start().await.unwrap();

    eventually("calls are answered", async || connection(redis.reader().await).await.is_ok()).await;
    assert_eq!(redis.breaker(), BreakerState::Closed);
}

#[tokio::test]
async fn after_a_long_outage_the_first_probe_lets_a_call_through_not_the_pause_of_5_s() {
    let stack = own().await;
    let redis = open(&stack, 1, SHORT);
    connected(&redis).await;

    stack.redis().pause();
    let until = Instant::now() + Duration::from_secs(9); // the pauses are 4 s and more by then
    while Instant::now() < until {
        let _ = connection(redis.reader().await).await;
        sleep(Duration::from_millis(5)).await;
    }
    stack.redis().resume();
    let back = Instant::now();

    eventually("calls are answered", async || connection(redis.reader().await).await.is_ok()).await;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
}

#[tokio::test]
async fn the_ping_of_the_health_goes_past_an_open_breaker() {
    let stack = own().await;
    let redis = open(&stack, 1, SHORT);
    connected(&redis).await;
    stack.redis().pause();
    opened(&redis).await;

    assert!(!redis.ping().await);
    stack.redis().resume();

    eventually("it answers", async || redis.ping().await).await;
    assert_ne!(redis.breaker(), BreakerState::Open, "and a call is let through");
}

#[tokio::test]
async fn refusals_and_unexpected_answers_do_not_open_it() {
    let stack = own().await;
    let redis = open(&stack, 1, LONG);
    connected(&redis).await;

    for _ in 0..100 {
        let mut lane = redis.reader().await.unwrap();
        lane.send::<i64>(&tidings_redis::cmd("NONSENSE")).await.unwrap_err();
    }

    assert_eq!(redis.breaker(), BreakerState::Closed);
}
