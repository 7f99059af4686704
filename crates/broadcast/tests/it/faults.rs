//! Faults while publishing, publisher at one instance, subscribers at both: every subscriber is exact, or was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::cmd;
use tidings_broadcast::Config;
use tidings_devstack::Devstack;
use tidings_proto::broadcast::subscribe_response::Frame;
use tokio::task::JoinHandle;

use crate::support::client::{Client, everything, keyed, last, latest};
use crate::support::ear::text;
use crate::support::ledger::{Ack, Ledger, Told};
use crate::support::scribe::Scribe;
use crate::support::{Broadcasts, eventually, own_stack};

/// What each test publishes to, side by side.
const CHANNELS: [&str; 3] = ["lobby", "orders/eu/42", "quiet"];

/// One publisher a channel, who waits for each answer and notes it, until told to stop.
struct Publishers {
    stop: Arc<AtomicBool>,
    publishing: Vec<JoinHandle<Ledger>>,
}

impl Publishers {
    fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = CHANNELS.map(|channel| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut ledger = Ledger::default();
                while !stop.load(Ordering::Relaxed) {
                    let text = ledger.acks.len().to_string();
                    let published = client.insist(keyed(channel, &text, &text)).await;
                    ledger.note(&published.epoch, published.offset, &text);
                    if channel == "quiet" {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                ledger
            })
        });
        Self { stop, publishing: publishing.into() }
    }

    /// Publishes one more to each channel, and returns what was acknowledged.
    async fn stop(self, client: &Client) -> Vec<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledgers = Vec::new();
        for (publishing, channel) in self.publishing.into_iter().zip(CHANNELS) {
            let mut ledger = publishing.await.unwrap();
            let last = client.insist(keyed(channel, "last", "last")).await;
            ledger.note(&last.epoch, last.offset, "last");
            ledgers.push(ledger);
        }
        ledgers
    }
}

/// Two instances, publishers at the first, and at both subscribers of all channels.
struct Drill<'a> {
    broadcasts: Broadcasts<'a>,
    publishers: Publishers,
    scribes: Vec<Scribe>,
}

impl<'a> Drill<'a> {
    async fn start(stack: &'a Devstack, tune: impl Fn(&mut Config)) -> Self {
        let broadcasts = Broadcasts::start_on(stack, 2, |_, config| {
            config.redis.redis_timeout = Some(Duration::from_millis(500).into());
            config.streams.broadcast_compare_interval = Duration::from_millis(500).into();
            tune(config);
        })
        .await;
        let mut scribes = Vec::new();
        for place in 0..4 {
            let client = broadcasts.client(place % 2);
            let wish = if place < 2 { latest } else { everything };
            scribes.push(Scribe::of(client.try_subscribe(CHANNELS.map(wish).into()).await.unwrap()));
        }
        for scribe in &scribes {
            for channel in CHANNELS {
                scribe.at(channel, "", 0).await;
                eventually("caught up", async || !scribe.account(channel).told.is_empty()).await;
            }
        }
        let publishers = Publishers::start(&broadcasts.client(0));
        let drill = Self { broadcasts, publishers, scribes };
        drill.flows().await;
        drill
    }

    /// Waits until every subscriber has got something new on every channel.
    async fn flows(&self) {
        for scribe in &self.scribes {
            for channel in CHANNELS {
                let messages = || {
                    let told = scribe.account(channel).told;
                    told.iter().filter(|told| matches!(told, Told::Message { .. })).count()
                };
                let before = messages();
                eventually("messages flow", async || messages() > before + 1).await;
            }
        }
    }

    /// Ends it, and judges every subscriber. Returns what was acknowledged, and how many `Reset` were told.
    async fn judge(self) -> (Vec<Ledger>, usize) {
        let ledgers = self.publishers.stop(&self.broadcasts.client(0)).await;
        let mut resets = 0;
        for (ledger, channel) in ledgers.iter().zip(CHANNELS) {
            let Ack { epoch, offset, .. } = ledger.acks.last().unwrap();
            for (number, scribe) in self.scribes.iter().enumerate() {
                let mut account = scribe.at(channel, epoch, *offset).await;
                account.start = Some((String::new(), 0));
                let judged = ledger.judge(&account, (epoch, *offset));
                assert_eq!(judged, Ok(()), "subscriber {number} of {channel}");
                resets += account.told.iter().filter(|told| matches!(told, Told::Reset { .. })).count();
            }
        }
        (ledgers, resets)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pubsub_connection_cut_100_times_loses_nothing_and_needs_no_word() {
    let stack = own_stack().await;
    let drill = Drill::start(&stack, |_| {}).await;
    let redis = drill.broadcasts.redis().await;

    for _ in 0..100 {
        redis.cut_pubsub().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }

    let (ledgers, resets) = drill.judge().await;
    assert_eq!(resets, 0);
    assert!(ledgers.iter().all(|ledger| ledger.acks.iter().all(|ack| ack.epoch == ledger.acks[0].epoch)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_while_publishing_is_exact_or_said() {
    let stack = own_stack().await;
    let drill = Drill::start(&stack, |_| {}).await;
    let redis = drill.broadcasts.redis().await;

    for _ in 0..10 {
        redis.flush_all().await;
        drill.flows().await;
    }

    let (_, resets) = drill.judge().await;
    assert!(resets >= 10 * 4, "{resets}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_restarts_with_nothing_is_exact_or_said() {
    let stack = own_stack().await;
    let drill = Drill::start(&stack, |_| {}).await;

    for _ in 0..3 {
        stack.redis().kill().await;
        stack.redis().start().await.unwrap();
        drill.flows().await;
    }

    let (ledgers, resets) = drill.judge().await;
    assert!(resets >= 3 * 4, "{resets}");
    assert!(ledgers.iter().all(|ledger| ledger.acks.len() > 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_restarts_from_an_old_snapshot_never_continues_it() {
    let stack = own_stack().await;
    let drill = Drill::start(&stack, |_| {}).await;
    let redis = drill.broadcasts.redis().await;
    let snapshot = drill.broadcasts.get("lobby").await.unwrap();

    redis.run::<()>(&cmd("SAVE")).await;
    drill.flows().await;
    stack.redis().kill().await;
    stack.redis().start().await.unwrap();
    drill.flows().await;

    let redis = drill.broadcasts.redis().await;
    let now = redis.meta("lobby", "epoch").await.unwrap();
    assert_ne!(now, snapshot.epoch);
    let (ledgers, resets) = drill.judge().await;
    assert!(resets >= 4 * 3, "{resets}");
    let epochs: Vec<_> = ledgers[0].acks.iter().map(|ack| &ack.epoch).collect();
    assert!(epochs.is_sorted_by_key(|epoch| **epoch == now), "no way back: {epochs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_snapshot_brought_back_is_not_delivered_before_the_next_publish_either() {
    let stack = own_stack().await;
    let broadcasts = Broadcasts::start_on(&stack, 1, |_, _| {}).await;
    let (epoch, _) = broadcasts.count("lobby", 1, 5).await;
    broadcasts.redis().await.run::<()>(&cmd("SAVE")).await;
    broadcasts.count("lobby", 6, 7).await;
    stack.redis().kill().await;
    stack.redis().start().await.unwrap();
    assert!(broadcasts.redis().await.meta("lobby", "epoch").await.is_some(), "redis has it again");

    let mut ear = broadcasts.insist_on_stream(vec![everything("lobby")]).await;
    assert_eq!(ear.caught_up().await, (String::new(), 0));
    let mut ear = broadcasts.subscribe(last("lobby", 10)).await;
    assert_eq!(ear.caught_up().await, (String::new(), 0));
    let channel = broadcasts.get("lobby").await.unwrap();
    assert_eq!((channel.epoch.as_str(), channel.head, channel.oldest), ("", 0, 1));

    let (next, offset) = broadcasts.say("lobby", "anew").await;
    assert!(next != epoch && offset == 1);
    match ear.frame().await {
        Frame::Messages(frame) => assert_eq!(text(&frame.messages[0]), "anew"),
        // That may be said of a channel that nobody heard for a while.
        Frame::Reset(reset) => assert_eq!((reset.epoch, ear.text().await.as_str()), (next, "anew")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stops_for_a_while_loses_nothing() {
    let stack = own_stack().await;
    let drill = Drill::start(&stack, |_| {}).await;

    for _ in 0..3 {
        stack.redis().pause();
        tokio::time::sleep(Duration::from_millis(700)).await;
        stack.redis().resume();
        drill.flows().await;
    }

    let (_, resets) = drill.judge().await;
    assert_eq!(resets, 0);
}
