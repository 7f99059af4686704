//! Faults of Redis while messages are published at one instance and delivered at two: every
//! subscriber gets each message once, or a `Gap` or `Reset`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::cmd;
use tidings_broadcast::Config;
use tidings_devstack::RedisServer;
use tidings_devstack::testing::{eventually, own_redis};
use tidings_proto::broadcast::subscribe_response::Frame;
use tokio::task::JoinHandle;

use crate::support::BroadcastCluster;
use crate::support::client::{BroadcastClient, from_beginning, last, latest, text_with_id};
use crate::support::ledger::{PublishAck, PublishLedger, ReceivedEvent};
use crate::support::recorder::Recorder;
use crate::support::stream::text;

/// Channels that each test publishes to concurrently.
const CHANNELS: [&str; 3] = ["lobby", "orders/eu/42", "quiet"];

/// One publisher per channel, which waits for each reply and records it, until it is stopped.
struct Publishers {
    stop: Arc<AtomicBool>,
    publishing: Vec<JoinHandle<PublishLedger>>,
}

impl Publishers {
    fn start(client: &BroadcastClient) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = CHANNELS.map(|channel| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut ledger = PublishLedger::default();
                while !stop.load(Ordering::Relaxed) {
                    let text = ledger.acks.len().to_string();
                    let published = client.publish_with_retry(text_with_id(channel, &text, &text)).await;
                    ledger.record(&published.epoch, published.offset, &text);
                    if channel == "quiet" {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                ledger
            })
        });
        Self { stop, publishing: publishing.into() }
    }

    /// Publishes one more message to each channel, and returns the ledgers.
    async fn stop(self, client: &BroadcastClient) -> Vec<PublishLedger> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledgers = Vec::new();
        for (publishing, channel) in self.publishing.into_iter().zip(CHANNELS) {
            let mut ledger = publishing.await.unwrap();
            let last = client.publish_with_retry(text_with_id(channel, "last", "last")).await;
            ledger.record(&last.epoch, last.offset, "last");
            ledgers.push(ledger);
        }
        ledgers
    }
}

/// Two instances: publishers at the first, subscribers of all channels at both.
struct FaultDrill<'a> {
    cluster: BroadcastCluster<'a>,
    publishers: Publishers,
    recorders: Vec<Recorder>,
}

impl<'a> FaultDrill<'a> {
    async fn start(server: &'a RedisServer, tune: impl Fn(&mut Config)) -> Self {
        let cluster = BroadcastCluster::start_on(server, 2, |_, config| {
            config.redis.redis_timeout = Some(Duration::from_millis(500).into());
            config.streams.broadcast_compare_interval = Duration::from_millis(500).into();
            tune(config);
        })
        .await;
        let mut recorders = Vec::new();
        for index in 0..4 {
            let client = cluster.client(index % 2);
            let start = if index < 2 { latest } else { from_beginning };
            recorders.push(Recorder::start(client.try_subscribe(CHANNELS.map(start).into()).await.unwrap()));
        }
        for recorder in &recorders {
            for channel in CHANNELS {
                recorder.transcript_at(channel, "", 0).await;
                eventually("caught up", async || !recorder.transcript(channel).events.is_empty()).await;
            }
        }
        let publishers = Publishers::start(&cluster.client(0));
        let drill = Self { cluster, publishers, recorders };
        drill.wait_for_progress().await;
        drill
    }

    /// Waits until every subscriber has received new messages on every channel.
    async fn wait_for_progress(&self) {
        for recorder in &self.recorders {
            for channel in CHANNELS {
                let messages = || {
                    let events = recorder.transcript(channel).events;
                    events.iter().filter(|event| matches!(event, ReceivedEvent::Message { .. })).count()
                };
                let before = messages();
                eventually("messages flow", async || messages() > before + 1).await;
            }
        }
    }

    /// Stops the publishers, and checks every subscriber. Returns the ledgers and the number of
    /// `Reset` events.
    async fn check(self) -> (Vec<PublishLedger>, usize) {
        let ledgers = self.publishers.stop(&self.cluster.client(0)).await;
        let mut resets = 0;
        for (ledger, channel) in ledgers.iter().zip(CHANNELS) {
            let PublishAck { epoch, offset, .. } = ledger.acks.last().unwrap();
            for (number, recorder) in self.recorders.iter().enumerate() {
                let mut transcript = recorder.transcript_at(channel, epoch, *offset).await;
                transcript.start = Some((String::new(), 0));
                let checked = ledger.check(&transcript, (epoch, *offset));
                assert_eq!(checked, Ok(()), "subscriber {number} of {channel}");
                resets += transcript.events.iter().filter(|event| matches!(event, ReceivedEvent::Reset { .. })).count();
            }
        }
        (ledgers, resets)
    }
}

/// No `Gap` and no `Reset` is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pubsub_connection_cut_100_times_loses_nothing() {
    let server = own_redis().await;
    let drill = FaultDrill::start(&server, |_| {}).await;
    let redis = drill.cluster.redis().await;

    for _ in 0..100 {
        redis.kill_pubsub_connections().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }

    let (ledgers, resets) = drill.check().await;
    assert_eq!(resets, 0);
    assert!(ledgers.iter().all(|ledger| ledger.acks.iter().all(|ack| ack.epoch == ledger.acks[0].epoch)));
}

/// Every subscriber gets each message once, or a `Reset`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_while_publishing_is_exact_or_reported() {
    let server = own_redis().await;
    let drill = FaultDrill::start(&server, |_| {}).await;
    let redis = drill.cluster.redis().await;

    for _ in 0..10 {
        redis.flush_all().await;
        drill.wait_for_progress().await;
    }

    let (_, resets) = drill.check().await;
    assert!(resets >= 10 * 4, "{resets}");
}

/// Every subscriber gets each message once, or a `Reset`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_restart_of_redis_is_exact_or_reported() {
    let server = own_redis().await;
    let drill = FaultDrill::start(&server, |_| {}).await;

    for _ in 0..3 {
        server.kill().await;
        server.start().await.unwrap();
        drill.wait_for_progress().await;
    }

    let (ledgers, resets) = drill.check().await;
    assert!(resets >= 3 * 4, "{resets}");
    assert!(ledgers.iter().all(|ledger| ledger.acks.len() > 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_restored_from_a_snapshot_never_continues_a_channel() {
    let server = own_redis().await;
    let drill = FaultDrill::start(&server, |_| {}).await;
    let redis = drill.cluster.redis().await;
    let snapshot = drill.cluster.get("lobby").await.unwrap();

    redis.run::<()>(&cmd("SAVE")).await;
    drill.wait_for_progress().await;
    server.kill().await;
    server.start().await.unwrap();
    drill.wait_for_progress().await;

    let redis = drill.cluster.redis().await;
    let now = redis.meta("lobby", "epoch").await.unwrap();
    assert_ne!(now, snapshot.epoch);
    let (ledgers, resets) = drill.check().await;
    assert!(resets >= 4 * 3, "{resets}");
    let epochs: Vec<_> = ledgers[0].acks.iter().map(|ack| &ack.epoch).collect();
    assert!(epochs.is_sorted_by_key(|epoch| **epoch == now), "no return to the old epoch: {epochs:?}");
}

/// Neither before nor after the next publish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_restored_snapshot_are_never_delivered() {
    let server = own_redis().await;
    let cluster = BroadcastCluster::start_on(&server, 1, |_, _| {}).await;
    let (epoch, _) = cluster.publish_range("lobby", 1, 5).await;
    cluster.redis().await.run::<()>(&cmd("SAVE")).await;
    cluster.publish_range("lobby", 6, 7).await;
    server.kill().await;
    server.start().await.unwrap();
    assert!(cluster.redis().await.meta("lobby", "epoch").await.is_some(), "redis restored the old epoch");

    let mut stream = cluster.subscribe_with_retry(vec![from_beginning("lobby")]).await;
    assert_eq!(stream.caught_up().await, (String::new(), 0));
    let mut stream = cluster.subscribe(last("lobby", 10)).await;
    assert_eq!(stream.caught_up().await, (String::new(), 0));
    let channel = cluster.get("lobby").await.unwrap();
    assert_eq!((channel.epoch.as_str(), channel.head, channel.oldest), ("", 0, 1));

    let (next, offset) = cluster.publish_text("lobby", "new").await;
    assert!(next != epoch && offset == 1);
    match stream.frame().await {
        Frame::Messages(frame) => assert_eq!(text(&frame.messages[0]), "new"),
        // The instance was disconnected while the channel had no epoch, so a `Reset` is allowed.
        Frame::Reset(reset) => assert_eq!((reset.epoch, stream.text().await.as_str()), (next, "new")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_redis_loses_nothing() {
    let server = own_redis().await;
    let drill = FaultDrill::start(&server, |_| {}).await;

    for _ in 0..3 {
        server.pause();
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.resume();
        drill.wait_for_progress().await;
    }

    let (_, resets) = drill.check().await;
    assert_eq!(resets, 0);
}
