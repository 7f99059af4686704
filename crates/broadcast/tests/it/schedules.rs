//! Random schedules of publishes and subscriptions, with channels that join and leave.
//!
//! `TIDINGS_SCHEDULES` sets their number, `TIDINGS_SEED` all randomness except the timing.

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidings_devstack::testing::eventually;
use tokio::time::sleep;

use crate::support::BroadcastCluster;
use crate::support::client::{BroadcastClient, after, from_beginning, last, latest, text_message};
use crate::support::ledger::{PublishLedger, ReceivedEvent, Transcript};
use crate::support::recorder::Recorder;

/// Schedules in the short form.
const SCHEDULES: u64 = 2_000;
/// Concurrent schedules: enough to interfere with each other.
const CONCURRENCY: usize = 128;
/// So short that channels leave while others join.
const LINGER: Duration = Duration::from_millis(20);

/// One subscriber: its request and its recorded events.
struct ScheduledSubscriber {
    recorder: Recorder,
    /// The requested position; else the first offsets that are valid, by the heads before the call
    /// and after its response.
    start: Result<(String, i64), RangeInclusive<i64>>,
    acked_before: usize,
}

/// One channel with one publisher and a few subscribers.
struct RandomSchedule {
    channel: String,
    clients: [BroadcastClient; 4],
    random: StdRng,
    ledger: PublishLedger,
    subscribers: Vec<ScheduledSubscriber>,
}

impl RandomSchedule {
    async fn run(mut self) -> Result<(), String> {
        for _ in 0..self.random.random_range(4..10) {
            match self.random.random_range(0..10) {
                0..4 => self.publish(1).await,
                4..6 => {
                    let count = self.random.random_range(2..5);
                    self.publish(count).await;
                }
                6..8 if self.subscribers.len() < 3 => self.subscribe().await,
                8 if !self.subscribers.is_empty() => self.leave().await?,
                _ => self.pause().await,
            }
        }
        self.publish(1).await;
        while !self.subscribers.is_empty() {
            self.leave().await?;
        }
        Ok(())
    }

    fn client(&mut self) -> BroadcastClient {
        self.clients[self.random.random_range(0..4)].clone()
    }

    /// Publishes `count` messages in one batch.
    async fn publish(&mut self, count: usize) {
        let client = self.client();
        let texts: Vec<_> = (0..count).map(|number| (self.ledger.acks.len() + number).to_string()).collect();
        let requests = texts.iter().map(|text| text_message(&self.channel, text)).collect();
        for (text, outcome) in texts.iter().zip(client.batch(requests).await.unwrap()) {
            let (epoch, offset) = crate::support::client::published(&outcome);
            self.ledger.record(&epoch, offset, text);
        }
    }

    /// Subscribes, in half of the cases while messages are published.
    async fn subscribe(&mut self) {
        let (client, channel) = (self.client(), self.channel.clone());
        let (acked_before, before) = (self.ledger.acks.len(), self.head());
        let epoch = self.ledger.acks.last().map_or(String::new(), |ack| ack.epoch.clone());
        let (start, channel_start) = match self.random.random_range(0..5) {
            0 | 1 => (Err(0), latest(&channel)),
            2 => (Ok((String::new(), 0)), from_beginning(&channel)),
            3 => {
                let count = self.random.random_range(1..6);
                (Err(i64::from(count)), last(&channel, count))
            }
            _ => {
                let offset = self.random.random_range(0..=before);
                (Ok((epoch.clone(), offset)), after(&channel, &epoch, offset))
            }
        };
        let subscribing = client.subscribe(channel_start);
        let stream = if self.random.random() {
            let (stream, ()) = tokio::join!(subscribing, self.publish(2));
            stream
        } else {
            subscribing.await
        };
        let valid_first = |count: i64| (before - count + 1).max(1)..=(self.head() - count + 1).max(1);
        let subscriber =
            ScheduledSubscriber { recorder: Recorder::start(stream), start: start.map_err(valid_first), acked_before };
        self.subscribers.push(subscriber);
    }

    /// Waits until a subscriber has all messages, checks it, and drops it.
    async fn leave(&mut self) -> Result<(), String> {
        let subscriber = self.subscribers.swap_remove(self.random.random_range(0..self.subscribers.len()));
        let (epoch, head) = (self.ledger.acks.last().map_or("", |ack| &ack.epoch), self.head());
        let caught_up = |transcript: &Transcript| {
            transcript.events.iter().any(|event| matches!(event, ReceivedEvent::CaughtUp { .. }))
        };
        let mut transcript = Transcript::default();
        eventually(&format!("{} is at {head}", self.channel), async || {
            transcript = subscriber.recorder.transcript(&self.channel);
            caught_up(&transcript) && transcript.position() == (epoch.to_owned(), head)
        })
        .await;
        transcript.acked_before = subscriber.acked_before;
        if let Err(range) = &subscriber.start
            && !range.contains(&first(&transcript))
        {
            return Err(format!("started with {}, not in {range:?}: {transcript:?}", first(&transcript)));
        }
        transcript.start = subscriber.start.ok();
        self.ledger.check(&transcript, (epoch, head))?;
        let reported = transcript
            .events
            .iter()
            .any(|event| matches!(event, ReceivedEvent::Gap { .. } | ReceivedEvent::Reset { .. }));
        if reported { Err(format!("Gap or Reset although no message was lost: {transcript:?}")) } else { Ok(()) }
    }

    async fn pause(&mut self) {
        let pause = self.random.random_range(0..2 * LINGER.as_millis());
        sleep(Duration::from_millis(u64::try_from(pause).unwrap())).await;
    }

    fn head(&self) -> i64 {
        self.ledger.acks.last().map_or(0, |ack| ack.offset)
    }
}

/// Returns the offset of the first event, or of the next message after it.
fn first(transcript: &Transcript) -> i64 {
    match &transcript.events[0] {
        ReceivedEvent::Message { offset, .. } => *offset,
        ReceivedEvent::CaughtUp { head, .. } => head + 1,
        ReceivedEvent::Gap { first, .. } => *first,
        ReceivedEvent::Reset { .. } => 1,
    }
}

/// 10,000 schedules; the seed is `TIDINGS_SEED`, or random.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_during_subscribe_is_exact_in_random_schedules() {
    let seed: u64 = std::env::var("TIDINGS_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    let schedules = std::env::var("TIDINGS_SCHEDULES").map_or(SCHEDULES, |text| text.parse().unwrap());
    let cluster = BroadcastCluster::start_tuned(2, |config| {
        config.streams.broadcast_linger = LINGER.into();
    })
    .await;

    // Two connections to each instance, for enough concurrent streams.
    let clients = [0, 1, 0, 1].map(|index| cluster.new_client(index));
    let schedules = stream::iter(0..schedules).map(|number| {
        let schedule = RandomSchedule {
            channel: format!("schedule/{number}"),
            clients: clients.clone(),
            random: StdRng::seed_from_u64(seed.wrapping_add(number)),
            ledger: PublishLedger::default(),
            subscribers: Vec::new(),
        };
        async move { (number, schedule.run().await) }
    });
    let mut running = schedules.buffer_unordered(CONCURRENCY);
    while let Some((number, checked)) = running.next().await {
        assert_eq!(checked, Ok(()), "schedule {number} of TIDINGS_SEED={seed}");
    }
}
