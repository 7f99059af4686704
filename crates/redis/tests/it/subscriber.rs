//! What is published is heard, in order, for as long as a session lasts; and when it does not, that is heard too.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_devstack::Devstack;
use tidings_redis::{Args, Redis, Role, Session, Subscriber, cmd};
use tokio::time::timeout;

use super::support::{LONG, SOON, args, eventually, own};

/// A subscriber, what it heard, and a lane to publish with.
struct Ear {
    subscriber: Subscriber,
    heard: Arc<Mutex<Vec<(String, String)>>>,
    redis: Redis,
}

impl Ear {
    fn open(args: &Args) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        let hear = move |name: &str, message: Vec<u8>| {
            notes.lock().unwrap().push((name.to_owned(), String::from_utf8(message).unwrap()));
        };
        let subscriber = Subscriber::open(args, "test", Role::State, hear).unwrap();
        Self { subscriber, heard, redis: Redis::open(args, "test", Role::State).unwrap() }
    }

    /// A session that is not `past`.
    async fn session(&self, past: Option<&Session>) -> Session {
        let mut sessions = self.subscriber.sessions();
        let other = |session: &Option<Session>| {
            session.as_ref().is_some_and(|session| past.is_none_or(|past| !past.is(session)))
        };
        timeout(SOON, sessions.wait_for(other)).await.unwrap().unwrap().clone().unwrap()
    }

    async fn publish(&self, name: &str, message: &str) {
        let mut lane = self.redis.reader().await.unwrap();
        let channel = lane.channel(format_args!("{name}"));
        let () = lane.send(cmd("PUBLISH").arg(channel).arg(message)).await.unwrap();
    }

    fn heard(&self) -> Vec<(String, String)> {
        self.heard.lock().unwrap().clone()
    }
}

fn operator(stack: &Devstack) -> redis::Connection {
    redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap()
}

#[tokio::test]
async fn what_is_published_after_a_subscription_was_confirmed_is_heard_in_order() {
    let stack = own().await;
    let ear = Ear::open(&args(&stack, 1, LONG));
    let mut session = ear.session(None).await;
    session.subscribe(&["a", "b"]).await.unwrap();

    for number in 0..50 {
        ear.publish(if number % 2 == 0 { "a" } else { "b" }, &number.to_string()).await;
    }
    ear.publish("c", "not subscribed").await;

    eventually("all are heard", async || ear.heard().len() == 50).await;
    let numbers: Vec<_> = ear.heard().into_iter().map(|(_, message)| message.parse::<i32>().unwrap()).collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert_eq!(ear.heard()[..2], [("a".to_owned(), "0".to_owned()), ("b".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn after_the_end_of_a_subscription_was_confirmed_nothing_is_heard() {
    let stack = own().await;
    let ear = Ear::open(&args(&stack, 1, LONG));
    let mut session = ear.session(None).await;
    session.subscribe(&["a", "b"]).await.unwrap();
    session.unsubscribe(&["a"]).await.unwrap();

    ear.publish("a", "1").await;
    ear.publish("b", "2").await;

    eventually("the other is heard", async || !ear.heard().is_empty()).await;
    assert_eq!(ear.heard(), [("b".to_owned(), "2".to_owned())]);
}

#[tokio::test]
async fn more_channels_than_one_command_names_are_subscribed() {
    let stack = own().await;
    let ear = Ear::open(&args(&stack, 1, LONG));
    let names: Vec<_> = (0..1201).map(|number| number.to_string()).collect();
    ear.session(None).await.subscribe(&names).await.unwrap();

    ear.publish("1200", "x").await;

    eventually("the last is heard", async || ear.heard().len() == 1).await;
}

#[tokio::test]
async fn a_session_that_was_cut_is_followed_by_another_which_hears_after_it_subscribed() {
    let stack = own().await;
    let ear = Ear::open(&args(&stack, 1, LONG));
    let mut session = ear.session(None).await;
    session.subscribe(&["a"]).await.unwrap();

    for round in 0..3 {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(&mut operator(&stack)).unwrap();
        session = ear.session(Some(&session)).await;
        session.subscribe(&["a"]).await.unwrap();
        ear.publish("a", &round.to_string()).await;
        eventually("it is heard", async || ear.heard().len() == round + 1).await;
    }
}

#[tokio::test]
async fn a_session_that_hears_nothing_any_more_is_found_out_though_its_connection_stays() {
    let stack = own().await;
    let ear = Ear::open(&args(&stack, 1, LONG));
    let session = ear.session(None).await;

    stack.redis().pause();
    let mut sessions = ear.subscriber.sessions();
    let silence_and_proof = Duration::from_secs(9);
    timeout(silence_and_proof, sessions.wait_for(Option::is_none)).await.unwrap().unwrap();
    stack.redis().resume();

    ear.session(Some(&session)).await.subscribe(&["a"]).await.unwrap();
    ear.publish("a", "x").await;
    eventually("it is heard", async || ear.heard().len() == 1).await;
}

#[tokio::test]
async fn a_quiet_session_proves_itself_and_lasts() {
    let stack = own().await;
    let ear = Ear::open(&args(&stack, 1, LONG));
    let session = ear.session(None).await;

    let mut sessions = ear.subscriber.sessions();
    let two_proofs = Duration::from_secs(11);
    let ended = timeout(two_proofs, sessions.wait_for(|now| !now.as_ref().is_some_and(|now| now.is(&session)))).await;

    assert!(ended.is_err(), "it did not end");
}
