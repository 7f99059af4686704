//! Redis away: publishes are refused at once, streams stay, and are exact afterwards.

use std::pin::pin;
use std::time::Duration;

use redis::cmd;
use tidings_broadcast::Config;
use tidings_proto::broadcast::subscribe_response::Frame;
use tidings_server::health::pb::HealthCheckRequest;
use tidings_server::health::pb::health_check_response::ServingStatus;
use tidings_server::health::pb::health_client::HealthClient;
use tidings_status::Failure;
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::support::client::{everything, latest, saying};
use crate::support::ear::{Ear, text};
use crate::support::{Broadcasts, NEVER, PATIENCE, eventually, own_stack};

/// As shipped, but for heartbeats that a test can wait for.
fn shipped(config: &mut Config) {
    config.redis.redis_timeout = None;
    config.streams.broadcast_heartbeat = Duration::from_millis(200).into();
}

fn assert_away(failure: &Failure) {
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "STATE_AWAY"), "{failure}");
    assert!(failure.retry_after.is_some());
}

/// Waits for a heartbeat that says so; only heartbeats may come.
async fn degraded(ear: &mut Ear, degraded: bool) {
    let until = Instant::now() + PATIENCE;
    while ear.heartbeat().await != degraded {
        assert!(Instant::now() < until, "no heartbeat says degraded: {degraded}");
    }
}

/// The next frame that is no heartbeat.
async fn beyond_heartbeats(ear: &mut Ear) -> Frame {
    let frame = async {
        loop {
            match ear.frame().await {
                Frame::Heartbeat(_) => {}
                other => return other,
            }
        }
    };
    timeout(PATIENCE, frame).await.expect("nothing but heartbeats")
}

/// What the next messages say, heartbeats or not.
async fn next_texts(ear: &mut Ear) -> Vec<String> {
    match beyond_heartbeats(ear).await {
        Frame::Messages(frame) => frame.messages.iter().map(text).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_publishes_more_than_redis_takes_waits_in_turn_and_then_is_told_that_it_is_overloaded() {
    let stack = own_stack().await;
    let patient = Duration::from_secs(10);
    let broadcasts =
        Broadcasts::start_on(&stack, 1, |_, config| config.redis.redis_timeout = Some(patient.into())).await;
    let batch = || broadcasts.batch(vec![saying("lobby", "hello"); 100]);
    batch().await.unwrap(); // the script is known

    stack.redis().pause();
    let mut on_their_way = pin!(async { tokio::join!(batch(), batch()) });
    let refused = async {
        tokio::time::sleep(Duration::from_millis(500)).await; // behind those
        batch().await.unwrap_err()
    };
    let refused = tokio::select! {
        done = &mut on_their_way => panic!("{done:?}"),
        refused = refused => refused,
    };
    stack.redis().resume();

    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "OVERLOADED"), "{refused}");
    assert!(refused.retry_after.is_some());
    let (one, two) = on_their_way.await;
    assert_eq!((one.unwrap().len(), two.unwrap().len()), (100, 100));
    assert_eq!(batch().await.unwrap().len(), 100, "there is room again");
    assert_eq!(broadcasts.get("lobby").await.unwrap().head, 400, "nothing of what was refused was published");

    // Many at once go one after the other.
    let crowd = futures_util::future::join_all((0..20).map(|_| batch()));
    for done in crowd.await {
        assert_eq!(done.unwrap().len(), 100);
    }
}

#[tokio::test]
async fn while_redis_does_not_answer_calls_are_refused_at_once_and_streams_stay_open_and_are_exact_afterwards() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 2, |_, config| shipped(config)).await;
    let mut ear = broadcasts.client(1).listen("lobby").await;
    broadcasts.say("lobby", "before").await;
    assert_eq!(next_texts(&mut ear).await, ["before"]);

    stack.redis().pause();
    for number in 0..10 {
        let start = Instant::now();
        assert_away(&broadcasts.publish(saying("lobby", "away")).await.unwrap_err());
        // 150 ms for a lane or its answer; the rest is for a busy machine.
        assert!(start.elapsed() < Duration::from_millis(1500), "call {number} took {:?}", start.elapsed());
    }
    assert_away(&broadcasts.batch(vec![saying("lobby", "away")]).await.unwrap_err());
    assert_away(&broadcasts.get("lobby").await.unwrap_err());
    assert_away(&broadcasts.try_subscribe(vec![latest("lobby")]).await.map(|_| ()).unwrap_err());
    degraded(&mut ear, true).await;
    stack.redis().resume();

    // Some of those that were refused may have been published: what came is told like everything else.
    eventually("publishes go on", async || broadcasts.publish(saying("lobby", "after")).await.is_ok()).await;
    while !next_texts(&mut ear).await.contains(&"after".to_owned()) {}
    degraded(&mut ear, false).await;
}

#[tokio::test]
async fn a_service_that_starts_without_redis_serves_as_soon_as_there_is_one() {
    let stack = own_stack().await;
    stack.redis().kill().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, config| shipped(config)).await;
    assert_away(&broadcasts.publish(saying("lobby", "away")).await.unwrap_err());

    stack.redis().start().await.unwrap();

    let mut ear = broadcasts.insist_on_stream(vec![latest("lobby")]).await;
    match beyond_heartbeats(&mut ear).await {
        Frame::CaughtUp(caught_up) => assert_eq!((caught_up.epoch.as_str(), caught_up.head), ("", 0)),
        other => panic!("{other:?}"),
    }
    broadcasts.insist(saying("lobby", "there")).await;
    assert_eq!(next_texts(&mut ear).await, ["there"]);
}

/// Whether an instance is ready.
async fn ready(broadcasts: &Broadcasts<'_>) -> bool {
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    let answer = HealthClient::new(broadcasts.client(0).channel).check(request).await.unwrap();
    answer.into_inner().status() == ServingStatus::Serving
}

/// Lets nobody listen any more, though everything else works.
async fn forbid_pubsub(broadcasts: &Broadcasts<'_>) {
    let redis = broadcasts.redis().await;
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("-subscribe")).await;
    redis.cut_pubsub().await;
}

#[tokio::test]
async fn readiness_turns_red_when_nothing_is_heard_for_5_s_although_redis_answers_and_back() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, config| shipped(config)).await;
    let mut ear = broadcasts.listen("lobby").await;
    broadcasts.say("lobby", "first").await;
    assert_eq!(next_texts(&mut ear).await, ["first"]);
    assert!(ready(&broadcasts).await);

    let cut = Instant::now();
    forbid_pubsub(&broadcasts).await;
    eventually("it is not ready", async || !ready(&broadcasts).await).await;
    assert!(cut.elapsed() > Duration::from_secs(4), "a short repair is none of its business");
    degraded(&mut ear, true).await;
    // Messages come late, by the comparison, and none is lost.
    broadcasts.say("lobby", "late").await;
    assert_eq!(next_texts(&mut ear).await, ["late"]);

    broadcasts.redis().await.run::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("+subscribe")).await;
    eventually("it is ready", async || ready(&broadcasts).await).await;
    degraded(&mut ear, false).await;
    broadcasts.say("lobby", "in time").await;
    assert_eq!(next_texts(&mut ear).await, ["in time"]);
}

#[tokio::test]
async fn an_epoch_that_came_and_went_while_nothing_was_heard_is_told_with_the_next_message() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, config| {
        shipped(config);
        config.streams.broadcast_compare_interval = NEVER.into();
    })
    .await;
    let redis = broadcasts.redis().await;
    let mut ear = broadcasts.listen("lobby").await;

    forbid_pubsub(&broadcasts).await;
    degraded(&mut ear, true).await;
    broadcasts.say("lobby", "never heard of").await;
    redis.forget("lobby").await;
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("default").arg("+subscribe")).await;
    degraded(&mut ear, false).await;
    let (epoch, _) = broadcasts.say("lobby", "heard").await;

    match beyond_heartbeats(&mut ear).await {
        Frame::Reset(reset) => assert_eq!((reset.epoch, reset.head), (epoch, 1)),
        other => panic!("{other:?}"),
    }
    assert_eq!(next_texts(&mut ear).await, ["heard"]);
}

#[tokio::test]
async fn an_instance_stays_ready_while_redis_is_away() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, config| shipped(config)).await;
    let mut ear = broadcasts.listen("lobby").await;

    stack.redis().kill().await;
    degraded(&mut ear, true).await;
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        assert!(ready(&broadcasts).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Why a stream ends, whatever it says before.
async fn failure_of(mut ear: Ear) -> Box<Failure> {
    let failure = async {
        loop {
            match ear.next().await {
                Ok(Some(Frame::Heartbeat(_) | Frame::CaughtUp(_) | Frame::Messages(_))) => {}
                Ok(other) => panic!("{other:?}"),
                Err(failure) => return failure,
            }
        }
    };
    timeout(PATIENCE, failure).await.expect("the stream ends")
}

#[tokio::test]
async fn a_stream_ends_if_its_channel_can_not_be_heard_for_as_long_as_it_waits() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, config| {
        shipped(config);
        config.streams.broadcast_patience = Duration::from_secs(1).into();
    })
    .await;
    let mut old = broadcasts.listen("lobby").await;
    forbid_pubsub(&broadcasts).await;
    degraded(&mut old, true).await;

    let ear = broadcasts.try_subscribe(vec![latest("lobby"), latest("hall")]).await.unwrap();
    let failure = failure_of(ear).await;
    assert_away(&failure);
    degraded(&mut old, true).await;
}

#[tokio::test]
async fn a_stream_ends_if_redis_can_not_be_read_for_as_long_as_it_waits_where_the_stream_needs_it() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, config| {
        shipped(config);
        config.streams.broadcast_patience = Duration::from_secs(1).into();
        config.streams.broadcast_ring_messages = 1;
    })
    .await;
    let mut quiet = broadcasts.listen("hall").await;
    let slow = broadcasts.narrow_client(0).listen("lobby").await;
    for _ in 0..40 {
        broadcasts.say("lobby", &"x".repeat(60_000)).await; // more than the connection takes unread
    }

    stack.redis().pause();
    let failure = failure_of(slow).await;
    assert_away(&failure);
    degraded(&mut quiet, true).await;
    stack.redis().resume();
}

#[tokio::test]
async fn a_redis_without_memory_refuses_publishes_and_is_read_all_the_same() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, _| {}).await;
    let redis = broadcasts.redis().await;
    let (epoch, _) = broadcasts.count("lobby", 1, 3).await;

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(1)).await;
    assert_away(&broadcasts.publish(saying("lobby", "x")).await.unwrap_err());
    let mut ear = broadcasts.subscribe(everything("lobby")).await;
    assert_eq!(ear.offsets(3).await, [1, 2, 3]);
    assert_eq!(ear.caught_up().await, (epoch.clone(), 3));

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg(0)).await;
    assert_eq!(broadcasts.say("lobby", "4").await, (epoch, 4));
    assert_eq!(ear.text().await, "4");
}
