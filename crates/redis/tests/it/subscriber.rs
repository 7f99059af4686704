//! Pub/sub sessions: messages arrive in order for as long as a session lasts, and its end is
//! reported.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_devstack::RedisServer;
use tidings_devstack::testing::{self, PATIENCE, eventually, own_redis};
use tidings_redis::{Args, Redis, Role, Session, Subscriber, SubscriptionEvent, cmd};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;

use super::support::{LONG_TIMEOUT, args};

/// A subscriber, the messages it received, and lanes to publish with.
struct TestSubscriber {
    inner: Subscriber,
    received: Arc<Mutex<Vec<(String, String)>>>,
    redis: Redis,
}

impl TestSubscriber {
    fn open(args: &Args) -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let messages = Arc::clone(&received);
        let on_message = move |name: &str, message: Vec<u8>| {
            messages.lock().unwrap().push((name.to_owned(), String::from_utf8(message).unwrap()));
        };
        let inner = Subscriber::open(args, "test", Role::State, on_message).unwrap();
        Self { inner, received, redis: Redis::open(args, "test", Role::State).unwrap() }
    }

    /// Waits for the first session.
    async fn session(&self) -> Session {
        next_session(&mut self.inner.sessions()).await
    }

    async fn publish(&self, name: &str, message: &str) {
        let mut lane = self.redis.reader().await.unwrap();
        let channel = lane.channel(format_args!("{name}"));
        let () = lane.send(cmd("PUBLISH").arg(channel).arg(message)).await.unwrap();
    }

    fn received(&self) -> Vec<(String, String)> {
        self.received.lock().unwrap().clone()
    }
}

/// Waits for the session that follows the one seen last.
async fn next_session(sessions: &mut watch::Receiver<Option<Session>>) -> Session {
    let next = async {
        loop {
            sessions.changed().await.unwrap();
            if let Some(session) = &*sessions.borrow_and_update() {
                return session.clone();
            }
        }
    };
    timeout(PATIENCE, next).await.unwrap()
}

/// Runs a test while its subscriber keeps the channel `a` subscribed. The test receives the events.
async fn while_subscribed(
    subscriber: &TestSubscriber,
    test: impl AsyncFnOnce(&mut UnboundedReceiver<SubscriptionEvent>),
) {
    let (sender, mut events) = unbounded_channel();
    let on_event = |event| sender.send(event).unwrap();
    tokio::select! {
        () = subscriber.inner.keep_subscribed(&["a"], on_event) => panic!("the subscription is not kept"),
        () = test(&mut events) => {}
    }
}

async fn next_event(events: &mut UnboundedReceiver<SubscriptionEvent>) -> SubscriptionEvent {
    timeout(PATIENCE, events.recv()).await.unwrap().unwrap()
}

fn operator(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

#[tokio::test]
async fn messages_after_a_confirmed_subscription_arrive_in_order() {
    let subscriber = TestSubscriber::open(&args(testing::shared_redis().await, 1, LONG_TIMEOUT));
    let mut session = subscriber.session().await;
    session.subscribe(&["a", "b"]).await.unwrap();

    for number in 0..50 {
        subscriber.publish(if number % 2 == 0 { "a" } else { "b" }, &number.to_string()).await;
    }
    subscriber.publish("c", "not subscribed").await;

    eventually("all messages arrive", async || subscriber.received().len() == 50).await;
    let numbers: Vec<_> =
        subscriber.received().into_iter().map(|(_, message)| message.parse::<i32>().unwrap()).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert_eq!(subscriber.received()[..2], [("a".to_owned(), "0".to_owned()), ("b".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn no_message_arrives_after_a_confirmed_unsubscription() {
    let subscriber = TestSubscriber::open(&args(testing::shared_redis().await, 1, LONG_TIMEOUT));
    let mut session = subscriber.session().await;
    session.subscribe(&["a", "b"]).await.unwrap();
    session.unsubscribe(&["a"]).await.unwrap();

    subscriber.publish("a", "1").await;
    subscriber.publish("b", "2").await;

    eventually("the message to the other channel arrives", async || !subscriber.received().is_empty()).await;
    assert_eq!(subscriber.received(), [("b".to_owned(), "2".to_owned())]);
}

#[tokio::test]
async fn more_channels_than_fit_one_command_are_subscribed() {
    let subscriber = TestSubscriber::open(&args(testing::shared_redis().await, 1, LONG_TIMEOUT));
    let names: Vec<_> = (0..1201).map(|number| number.to_string()).collect();
    subscriber.session().await.subscribe(&names).await.unwrap();

    subscriber.publish("1200", "x").await;

    eventually("the message to the last channel arrives", async || subscriber.received().len() == 1).await;
}

/// The new one receives messages once it has subscribed again.
#[tokio::test]
async fn a_closed_session_is_followed_by_another() {
    let server = own_redis().await;
    let subscriber = TestSubscriber::open(&args(&server, 1, LONG_TIMEOUT));
    let mut sessions = subscriber.inner.sessions();
    next_session(&mut sessions).await.subscribe(&["a"]).await.unwrap();

    for round in 0..3 {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(&mut operator(&server)).unwrap();
        next_session(&mut sessions).await.subscribe(&["a"]).await.unwrap();
        subscriber.publish("a", &round.to_string()).await;
        eventually("the message arrives", async || subscriber.received().len() == round + 1).await;
    }
}

/// A message that is published right after the begin arrives.
#[tokio::test]
async fn a_kept_subscription_begins_again_in_each_session() {
    let server = own_redis().await;
    let subscriber = TestSubscriber::open(&args(&server, 1, LONG_TIMEOUT));

    while_subscribed(&subscriber, async |events| {
        for round in 0..3 {
            assert_eq!(next_event(events).await, SubscriptionEvent::Started);
            subscriber.publish("a", &round.to_string()).await;
            eventually("the message arrives", async || subscriber.received().len() == round + 1).await;

            cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(&mut operator(&server)).unwrap();
            assert_eq!(next_event(events).await, SubscriptionEvent::Ended);
        }
    })
    .await;
}

/// The subscription begins in the first session in which the server confirms it.
#[tokio::test]
async fn a_refused_subscription_has_no_event() {
    let server = own_redis().await;
    let permit = |channels: [&str; 2]| {
        cmd("ACL").arg("SETUSER").arg("default").arg(&channels).exec(&mut operator(&server)).unwrap();
    };
    permit(["resetchannels", "&*:probe-*"]);
    let subscriber = TestSubscriber::open(&args(&server, 1, LONG_TIMEOUT));

    while_subscribed(&subscriber, async |events| {
        let mut sessions = subscriber.inner.sessions();
        for _ in 0..3 {
            next_session(&mut sessions).await;
        }
        assert!(events.is_empty());

        permit(["resetchannels", "allchannels"]);
        assert_eq!(next_event(events).await, SubscriptionEvent::Started);
        subscriber.publish("a", "x").await;
        eventually("the message arrives", async || subscriber.received().len() == 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_silent_session_ends_although_its_connection_stays() {
    let server = own_redis().await;
    let subscriber = TestSubscriber::open(&args(&server, 1, LONG_TIMEOUT));
    let mut sessions = subscriber.inner.sessions();
    next_session(&mut sessions).await;

    server.pause();
    let idle_and_verification = Duration::from_secs(9);
    timeout(idle_and_verification, sessions.wait_for(Option::is_none)).await.unwrap().unwrap();
    server.resume();

    next_session(&mut sessions).await.subscribe(&["a"]).await.unwrap();
    subscriber.publish("a", "x").await;
    eventually("the message arrives", async || subscriber.received().len() == 1).await;
}

#[tokio::test]
async fn an_idle_session_verifies_itself_and_continues() {
    let subscriber = TestSubscriber::open(&args(testing::shared_redis().await, 1, LONG_TIMEOUT));
    let mut sessions = subscriber.inner.sessions();
    next_session(&mut sessions).await;

    let two_verifications = Duration::from_secs(11);
    let ended = timeout(two_verifications, sessions.changed()).await;

    assert!(ended.is_err(), "the idle session ended");
}
