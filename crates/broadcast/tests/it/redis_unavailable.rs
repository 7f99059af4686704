//! Redis unavailable: publishes fail fast, streams stay open, and no message is lost.

use std::pin::pin;
use std::time::Duration;

use redis::cmd;
use tidings_broadcast::Config;
use tidings_devstack::testing::{NEVER, PATIENCE, eventually, own_redis};
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_server::health::pb::HealthCheckRequest;
use tidings_server::health::pb::health_check_response::ServingStatus;
use tidings_server::health::pb::health_client::HealthClient;
use tidings_status::Failure;
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::support::BroadcastCluster;
use crate::support::client::{from_beginning, latest, text_message};
use crate::support::stream::{FrameStream, text};

/// Applies the default timeouts of the service, and heartbeats that a test can wait for.
fn default_timeouts(config: &mut Config) {
    config.redis.redis_timeout = None;
    config.streams.broadcast_heartbeat = Duration::from_millis(200).into();
}

fn assert_away(failure: &Failure) {
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "STATE_AWAY"), "{failure}");
    assert!(failure.retry_after.is_some());
}

/// Waits for a heartbeat with this `degraded`; only heartbeats may come before.
async fn degraded(stream: &mut FrameStream, degraded: bool) {
    let until = Instant::now() + PATIENCE;
    while stream.heartbeat().await != degraded {
        assert!(Instant::now() < until, "no heartbeat with degraded: {degraded}");
    }
}

/// Waits for the next frame that is not a heartbeat.
async fn skip_heartbeats(stream: &mut FrameStream) -> Frame {
    let frame = async {
        loop {
            match stream.frame().await {
                Frame::Heartbeat(_) => {}
                other => return other,
            }
        }
    };
    timeout(PATIENCE, frame).await.expect("a frame other than heartbeats")
}

/// Returns the texts of the next messages frame, and skips heartbeats.
async fn next_texts(stream: &mut FrameStream) -> Vec<String> {
    match skip_heartbeats(stream).await {
        Frame::Messages(frame) => frame.messages.iter().map(text).collect(),
        other => panic!("{other:?}"),
    }
}

/// A refused publish gets OVERLOADED after half a second, and none of its messages is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_beyond_the_limit_wait_and_then_fail() {
    let server = own_redis().await;
    let redis_timeout = Duration::from_secs(10);
    let cluster =
        BroadcastCluster::start_on(&server, 1, |_, config| config.redis.redis_timeout = Some(redis_timeout.into()))
            .await;
    let batch = || cluster.batch(vec![text_message("lobby", "hello"); 100]);
    batch().await.unwrap(); // loads the script

    server.pause();
    let mut in_flight = pin!(async { tokio::join!(batch(), batch()) });
    let refused = async {
        tokio::time::sleep(Duration::from_millis(500)).await; // behind the batches in flight
        batch().await.unwrap_err()
    };
    let refused = tokio::select! {
        done = &mut in_flight => panic!("{done:?}"),
        refused = refused => refused,
    };
    server.resume();

    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{refused}");
    assert!(refused.retry_after.is_some());
    let (one, two) = in_flight.await;
    assert_eq!((one.unwrap().len(), two.unwrap().len()), (100, 100));
    assert_eq!(batch().await.unwrap().len(), 100, "the limiter has permits again");
    assert_eq!(cluster.get("lobby").await.unwrap().head, 400, "the refused batch was not published");

    // Many concurrent batches wait for each other.
    let batches = futures_util::future::join_all((0..20).map(|_| batch()));
    for done in batches.await {
        assert_eq!(done.unwrap().len(), 100);
    }
}

/// The streams lose no message.
#[tokio::test]
async fn calls_fail_fast_and_streams_stay_while_redis_hangs() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 2, |_, config| default_timeouts(config)).await;
    let mut stream = cluster.client(1).listen("lobby").await;
    cluster.publish_text("lobby", "before").await;
    assert_eq!(next_texts(&mut stream).await, ["before"]);

    server.pause();
    for number in 0..10 {
        let start = Instant::now();
        assert_away(&cluster.publish(text_message("lobby", "away")).await.unwrap_err());
        // The timeout of a lane is 150 ms; the rest is for a busy machine.
        assert!(start.elapsed() < Duration::from_millis(1500), "call {number} took {:?}", start.elapsed());
    }
    assert_away(&cluster.batch(vec![text_message("lobby", "away")]).await.unwrap_err());
    assert_away(&cluster.get("lobby").await.unwrap_err());
    assert_away(&cluster.try_subscribe(vec![latest("lobby")]).await.map(|_| ()).unwrap_err());
    degraded(&mut stream, true).await;
    server.resume();

    // Some of the failed publishes may have been done, so their messages may come first.
    eventually("publishes succeed again", async || cluster.publish(text_message("lobby", "after")).await.is_ok()).await;
    while !next_texts(&mut stream).await.contains(&"after".to_owned()) {}
    degraded(&mut stream, false).await;
}

#[tokio::test]
async fn an_instance_started_without_redis_serves_once_it_is_up() {
    let server = own_redis().await;
    server.kill().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, config| default_timeouts(config)).await;
    assert_away(&cluster.publish(text_message("lobby", "away")).await.unwrap_err());

    server.start().await.unwrap();

    let mut stream = cluster.subscribe_with_retry(vec![latest("lobby")]).await;
    match skip_heartbeats(&mut stream).await {
        Frame::CaughtUp(caught_up) => assert_eq!((caught_up.epoch.as_str(), caught_up.head), ("", 0)),
        other => panic!("{other:?}"),
    }
    cluster.publish_with_retry(text_message("lobby", "there")).await;
    assert_eq!(next_texts(&mut stream).await, ["there"]);
}

/// Returns true if an instance is ready.
async fn ready(cluster: &BroadcastCluster<'_>) -> bool {
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    let response = HealthClient::new(cluster.client(0).channel).check(request).await.unwrap();
    response.into_inner().status() == ServingStatus::Serving
}

/// Forbids SUBSCRIBE in Redis, except for the channel with which the service checks its
/// permissions; all other commands work.
async fn forbid_pubsub(cluster: &BroadcastCluster<'_>) {
    let redis = cluster.redis().await;
    let checked = format!("(+subscribe &{}:broadcast:proof)", cluster.prefix);
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("-subscribe").arg(checked)).await;
    redis.kill_pubsub_connections().await;
}

/// Redis replies all the time. The instance is ready again when pub/sub works.
#[tokio::test]
async fn no_pubsub_for_5_s_makes_the_instance_not_ready() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, config| default_timeouts(config)).await;
    let mut stream = cluster.listen("lobby").await;
    cluster.publish_text("lobby", "first").await;
    assert_eq!(next_texts(&mut stream).await, ["first"]);
    assert!(ready(&cluster).await);

    let cut = Instant::now();
    forbid_pubsub(&cluster).await;
    eventually("the instance is not ready", async || !ready(&cluster).await).await;
    assert!(cut.elapsed() > Duration::from_secs(4), "a short disconnect does not affect readiness");
    degraded(&mut stream, true).await;
    // The comparison with Redis delivers messages late, and none is lost.
    cluster.publish_text("lobby", "late").await;
    assert_eq!(next_texts(&mut stream).await, ["late"]);

    cluster.redis().await.run::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("+subscribe")).await;
    eventually("the instance is ready", async || ready(&cluster).await).await;
    degraded(&mut stream, false).await;
    cluster.publish_text("lobby", "in time").await;
    assert_eq!(next_texts(&mut stream).await, ["in time"]);
}

/// The `Reset` comes with the next message.
#[tokio::test]
async fn an_epoch_that_ended_during_a_disconnect_is_a_reset() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, config| {
        default_timeouts(config);
        config.streams.broadcast_compare_interval = NEVER.into();
    })
    .await;
    let redis = cluster.redis().await;
    let mut stream = cluster.listen("lobby").await;

    forbid_pubsub(&cluster).await;
    degraded(&mut stream, true).await;
    cluster.publish_text("lobby", "missed").await;
    redis.delete_channel("lobby").await;
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("+subscribe")).await;
    degraded(&mut stream, false).await;
    let (epoch, _) = cluster.publish_text("lobby", "received").await;

    match skip_heartbeats(&mut stream).await {
        Frame::Reset(reset) => assert_eq!((reset.epoch, reset.head), (epoch, 1)),
        other => panic!("{other:?}"),
    }
    assert_eq!(next_texts(&mut stream).await, ["received"]);
}

#[tokio::test]
async fn an_instance_stays_ready_while_redis_is_unavailable() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, config| default_timeouts(config)).await;
    let mut stream = cluster.listen("lobby").await;

    server.kill().await;
    degraded(&mut stream, true).await;
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        assert!(ready(&cluster).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for the error that ends a stream.
async fn failure_of(mut stream: FrameStream) -> Box<Failure> {
    let failure = async {
        loop {
            match stream.next().await {
                Ok(Some(Frame::Heartbeat(_) | Frame::CaughtUp(_) | Frame::Messages(_))) => {}
                Ok(other) => panic!("{other:?}"),
                Err(failure) => return failure,
            }
        }
    };
    timeout(PATIENCE, failure).await.expect("the stream ends")
}

#[tokio::test]
async fn a_stream_ends_if_its_channel_cannot_be_subscribed() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, config| {
        default_timeouts(config);
        config.streams.broadcast_patience = Duration::from_secs(1).into();
    })
    .await;
    let mut old = cluster.listen("lobby").await;
    forbid_pubsub(&cluster).await;
    degraded(&mut old, true).await;

    let stream = cluster.try_subscribe(vec![latest("lobby"), latest("hall")]).await.unwrap();
    let failure = failure_of(stream).await;
    assert_away(&failure);
    degraded(&mut old, true).await;
}

/// A stream that is served from its ring stays open.
#[tokio::test]
async fn a_stream_that_needs_redis_ends_if_it_cannot_be_read() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, config| {
        default_timeouts(config);
        config.streams.broadcast_patience = Duration::from_secs(1).into();
        config.streams.broadcast_ring_messages = 1;
    })
    .await;
    let mut quiet = cluster.listen("hall").await;
    let slow = cluster.client_with_small_windows(0).listen("lobby").await;
    for _ in 0..40 {
        cluster.publish_text("lobby", &"x".repeat(60_000)).await; // more than the connection buffers
    }

    server.pause();
    let failure = failure_of(slow).await;
    assert_away(&failure);
    degraded(&mut quiet, true).await;
    server.resume();
}

#[tokio::test]
async fn a_redis_out_of_memory_refuses_publishes_but_is_read() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, _| {}).await;
    let redis = cluster.redis().await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 3).await;

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1)).await;
    assert_away(&cluster.publish(text_message("lobby", "x")).await.unwrap_err());
    let mut stream = cluster.subscribe(from_beginning("lobby")).await;
    assert_eq!(stream.offsets(3).await, [1, 2, 3]);
    assert_eq!(stream.caught_up().await, (epoch.clone(), 3));

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(0)).await;
    assert_eq!(cluster.publish_text("lobby", "4").await, (epoch, 4));
    assert_eq!(stream.text().await, "4");
}
