//! Tracking sessions: changes of keys are reported for as long as a session lasts, and so is its
//! end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_devstack::testing::{self, eventually, own_redis};
use tidings_devstack::{Proxy, RedisServer};
use tidings_redis::{Args, Redis, Role, Tracker, TrackingEvent, cmd};

use super::support::{LONG_TIMEOUT, args, connected_lane};

/// A tracker of the keys `u:...`, the events it received, and lanes to change keys with.
struct TestTracker {
    _tracker: Tracker,
    events: Arc<Mutex<Vec<String>>>,
    redis: Redis,
}

impl TestTracker {
    /// Opens a tracker with `tracker_args` and lanes with `lane_args`; waits until both are up.
    async fn open(tracker_args: &Args, lane_args: &Args) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&events);
        let on_event = move |event: TrackingEvent<'_>| {
            received.lock().unwrap().push(match event {
                TrackingEvent::Started(incarnation) => format!("started {incarnation}"),
                TrackingEvent::Changed(name) => format!("changed {name}"),
                TrackingEvent::Flushed => "flushed".to_owned(),
                TrackingEvent::Ended => "ended".to_owned(),
                TrackingEvent::Confirmed(_) => return, // twice a second
            });
        };
        let redis = Redis::open(lane_args, "test", Role::Cache).unwrap();
        let tracker = Tracker::open(tracker_args, "test", "u:", redis.source(), on_event).unwrap();
        let tracker = Self { _tracker: tracker, events, redis };
        tracker.wait_for("started", 1).await;
        connected_lane(&tracker.redis).await;
        tracker
    }

    /// Counts the events that begin with this text.
    fn count(&self, prefix: &str) -> usize {
        self.events.lock().unwrap().iter().filter(|event| event.starts_with(prefix)).count()
    }

    /// Waits until this many events begin with this text.
    async fn wait_for(&self, prefix: &str, count: usize) {
        eventually(&format!("{count} x {prefix}"), async || self.count(prefix) == count).await;
    }

    async fn set(&self, name: &str) {
        let mut lane = self.redis.reader().await.unwrap();
        let key = lane.key(format_args!("{name}"));
        let () = lane.send(cmd("SET").arg(key).arg("x").arg("PX").arg(60_000)).await.unwrap();
    }
}

fn operator(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

/// Changes of other keys are not reported.
#[tokio::test]
async fn every_change_of_a_tracked_key_is_reported_by_name() {
    let args = args(testing::shared_redis().await, 1, LONG_TIMEOUT);
    let tracker = TestTracker::open(&args, &args).await;

    tracker.set("l:ada").await;
    for number in 0..100 {
        tracker.set(&format!("u:{number}")).await;
    }

    tracker.wait_for("changed", 100).await;
    let events: Vec<_> = tracker.events.lock().unwrap()[1..].to_vec();
    assert_eq!(events, (0..100).map(|number| format!("changed u:{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn expired_and_flushed_keys_are_reported() {
    let server = own_redis().await;
    let args = args(&server, 1, LONG_TIMEOUT);
    let tracker = TestTracker::open(&args, &args).await;

    let mut lane = tracker.redis.reader().await.unwrap();
    let key = lane.key(format_args!("u:ada"));
    let () = lane.send(cmd("SET").arg(key).arg("x").arg("PX").arg(20)).await.unwrap();
    tracker.wait_for("changed u:ada", 2).await; // set, then expired
    cmd("FLUSHALL").exec(&mut operator(&server)).unwrap();

    tracker.wait_for("flushed", 1).await;
    tracker.set("u:bob").await;
    tracker.wait_for("changed u:bob", 1).await;
}

#[tokio::test]
async fn a_session_ends_with_its_connection_and_another_starts() {
    let server = own_redis().await;
    let args = args(&server, 1, LONG_TIMEOUT);
    let tracker = TestTracker::open(&args, &args).await;

    for round in 1..=5 {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut operator(&server)).unwrap();
        tracker.wait_for("started", round + 1).await;
        assert_eq!(tracker.count("ended"), round, "a session started before the end of the last");
    }
    connected_lane(&tracker.redis).await;
    tracker.set("u:ada").await;
    tracker.wait_for("changed u:ada", 1).await;
}

#[tokio::test]
async fn a_silent_connection_ends_its_session() {
    let server = own_redis().await;
    let proxy = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.unwrap();
    let direct = args(&server, 1, LONG_TIMEOUT);
    let proxied = Args {
        redis_prefix: direct.redis_prefix.clone(),
        redis_connect_timeout: Duration::from_millis(500).into(),
        ..Args::new(format!("redis://127.0.0.1:{}", proxy.port()).parse().unwrap())
    };
    let tracker = TestTracker::open(&proxied, &direct).await;

    proxy.blackhole();
    tracker.wait_for("ended", 1).await;
    tracker.set("u:ada").await;
    assert_eq!(tracker.count("changed"), 0);
    proxy.heal();

    tracker.wait_for("started", 2).await;
    tracker.set("u:ada").await;
    tracker.wait_for("changed u:ada", 1).await;
}

#[tokio::test]
async fn a_session_belongs_to_one_incarnation() {
    let server = own_redis().await;
    let args = args(&server, 1, LONG_TIMEOUT);
    let tracker = TestTracker::open(&args, &args).await;

    server.kill().await;
    server.start().await.unwrap();

    tracker.wait_for("started", 2).await;
    let events = tracker.events.lock().unwrap().clone();
    let [first, ended, second] = &events[..] else { panic!("{events:?}") };
    assert_eq!(ended, "ended");
    assert_ne!(first, second);
}
