//! A change of a key is heard for as long as a term lasts, and the end of a term is heard, too.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_devstack::{Devstack, Proxy};
use tidings_redis::{Args, Heard, Redis, Role, Tracker, cmd};

use super::support::{LONG, args, connected, eventually, own};

/// A tracker of the keys `u:...`, what it heard, and a lane to change keys with.
struct Ear {
    _tracker: Tracker,
    heard: Arc<Mutex<Vec<String>>>,
    redis: Redis,
}

impl Ear {
    /// A tracker that is connected as `here` says, beside a lane connected as `there` says.
    async fn open(here: &Args, there: &Args) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        let hear = move |heard: Heard<'_>| {
            notes.lock().unwrap().push(match heard {
                Heard::Began(reign) => format!("began {reign}"),
                Heard::Changed(name) => format!("changed {name}"),
                Heard::Flushed => "flushed".to_owned(),
                Heard::Ended => "ended".to_owned(),
            });
        };
        let tracker = Tracker::open(here, "test", "u:", hear).unwrap();
        let ear = Self { _tracker: tracker, heard, redis: Redis::open(there, "test", Role::Cache).unwrap() };
        ear.hears("began", 1).await;
        connected(&ear.redis).await;
        ear
    }

    fn count(&self, what: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|heard| heard.starts_with(what)).count()
    }

    /// Waits until something was heard so often.
    async fn hears(&self, what: &str, times: usize) {
        eventually(&format!("{what} is heard"), async || self.count(what) == times).await;
    }

    async fn set(&self, name: &str) {
        let mut lane = self.redis.reader().await.unwrap();
        let key = lane.key(format_args!("{name}"));
        let () = lane.send(cmd("SET").arg(key).arg("x").arg("PX").arg(60_000)).await.unwrap();
    }
}

fn operator(stack: &Devstack) -> redis::Connection {
    redis::Client::open(stack.redis().url()).unwrap().get_connection().unwrap()
}

#[tokio::test]
async fn every_change_of_a_tracked_key_is_heard_by_its_name_and_no_other() {
    let stack = own().await;
    let args = args(&stack, 1, LONG);
    let ear = Ear::open(&args, &args).await;

    ear.set("l:ada").await;
    for number in 0..100 {
        ear.set(&format!("u:{number}")).await;
    }

    ear.hears("changed", 100).await;
    let heard: Vec<_> = ear.heard.lock().unwrap()[1..].to_vec();
    assert_eq!(heard, (0..100).map(|number| format!("changed u:{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_key_that_expires_or_is_flushed_is_heard() {
    let stack = own().await;
    let args = args(&stack, 1, LONG);
    let ear = Ear::open(&args, &args).await;

    let mut lane = ear.redis.reader().await.unwrap();
    let key = lane.key(format_args!("u:ada"));
    let () = lane.send(cmd("SET").arg(key).arg("x").arg("PX").arg(20)).await.unwrap();
    ear.hears("changed u:ada", 2).await; // set, and gone
    cmd("FLUSHALL").exec(&mut operator(&stack)).unwrap();

    ear.hears("flushed", 1).await;
    ear.set("u:bob").await;
    ear.hears("changed u:bob", 1).await;
}

#[tokio::test]
async fn a_term_ends_with_its_connection_and_another_begins() {
    let stack = own().await;
    let args = args(&stack, 1, LONG);
    let ear = Ear::open(&args, &args).await;

    for round in 1..=5 {
        cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut operator(&stack)).unwrap();
        ear.hears("began", round + 1).await;
        assert_eq!(ear.count("ended"), round, "each beginning follows an end");
    }
    connected(&ear.redis).await;
    ear.set("u:ada").await;
    ear.hears("changed u:ada", 1).await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_ends_its_term() {
    let stack = own().await;
    let proxy = Proxy::to(([127, 0, 0, 1], stack.redis().port()).into()).await.unwrap();
    let there = args(&stack, 1, LONG);
    let here = Args {
        redis_prefix: there.redis_prefix.clone(),
        redis_connect_timeout: Duration::from_millis(500).into(),
        ..Args::new(format!("redis://127.0.0.1:{}", proxy.port()).parse().unwrap())
    };
    let ear = Ear::open(&here, &there).await;

    proxy.blackhole();
    ear.hears("ended", 1).await;
    ear.set("u:ada").await;
    assert_eq!(ear.count("changed"), 0);
    proxy.heal();

    ear.hears("began", 2).await;
    ear.set("u:ada").await;
    ear.hears("changed u:ada", 1).await;
}

#[tokio::test]
async fn a_term_is_of_one_reign() {
    let stack = own().await;
    let args = args(&stack, 1, LONG);
    let ear = Ear::open(&args, &args).await;

    stack.redis().kill().await;
    stack.redis().start().await.unwrap();

    ear.hears("began", 2).await;
    let heard = ear.heard.lock().unwrap().clone();
    let [first, ended, second] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(ended, "ended");
    assert_ne!(first, second);
}
