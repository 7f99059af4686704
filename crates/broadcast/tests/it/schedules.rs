//! Publish during subscribe, ten thousand times: random starts, random interleavings, channels that come and go.

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use crate::support::client::{Client, after, everything, last, latest, saying};
use crate::support::ledger::{Account, Ledger, Told};
use crate::support::scribe::Scribe;
use crate::support::{Broadcasts, eventually};

const SCHEDULES: usize = 10_000;
/// Side by side: enough that they get into each other's way.
const TOGETHER: usize = 128;
/// So short that channels leave while others come.
const LINGER: Duration = Duration::from_millis(20);

/// One subscriber: what it asked for, and what it was told.
struct Listener {
    scribe: Scribe,
    /// The position that it asked for, if it did; else where it may begin, by what was published before the call and
    /// before its answer.
    start: Result<(String, i64), RangeInclusive<i64>>,
    since: usize,
}

/// One channel, one publisher, a few subscribers that come and go.
struct Schedule {
    channel: String,
    clients: [Client; 4],
    random: StdRng,
    ledger: Ledger,
    listeners: Vec<Listener>,
}

impl Schedule {
    async fn run(mut self) -> Result<(), String> {
        for _ in 0..self.random.random_range(4..10) {
            match self.random.random_range(0..10) {
                0..4 => self.publish(1).await,
                4..6 => {
                    let count = self.random.random_range(2..5);
                    self.publish(count).await;
                }
                6..8 if self.listeners.len() < 3 => self.subscribe().await,
                8 if !self.listeners.is_empty() => self.leave().await?,
                _ => self.pause().await,
            }
        }
        self.publish(1).await;
        while !self.listeners.is_empty() {
            self.leave().await?;
        }
        Ok(())
    }

    fn client(&mut self) -> Client {
        self.clients[self.random.random_range(0..4)].clone()
    }

    /// Publishes so many, at once.
    async fn publish(&mut self, count: usize) {
        let client = self.client();
        let texts: Vec<_> = (0..count).map(|number| (self.ledger.acks.len() + number).to_string()).collect();
        let requests = texts.iter().map(|text| saying(&self.channel, text)).collect();
        for (text, outcome) in texts.iter().zip(client.batch(requests).await.unwrap()) {
            let (epoch, offset) = crate::support::client::published(&outcome);
            self.ledger.note(&epoch, offset, text);
        }
    }

    /// Subscribes, while something is published.
    async fn subscribe(&mut self) {
        let (client, channel) = (self.client(), self.channel.clone());
        let (since, before) = (self.ledger.acks.len(), self.head());
        let epoch = self.ledger.acks.last().map_or(String::new(), |ack| ack.epoch.clone());
        let (start, wish) = match self.random.random_range(0..5) {
            0 | 1 => (Err(0), latest(&channel)),
            2 => (Ok((String::new(), 0)), everything(&channel)),
            3 => {
                let count = self.random.random_range(1..6);
                (Err(i64::from(count)), last(&channel, count))
            }
            _ => {
                let offset = self.random.random_range(0..=before);
                (Ok((epoch.clone(), offset)), after(&channel, &epoch, offset))
            }
        };
        let subscribing = client.subscribe(wish);
        let ear = if self.random.random() {
            let (ear, ()) = tokio::join!(subscribing, self.publish(2));
            ear
        } else {
            subscribing.await
        };
        let began = |count: i64| (before - count + 1).max(1)..=(self.head() - count + 1).max(1);
        let listener = Listener { scribe: Scribe::of(ear), start: start.map_err(began), since };
        self.listeners.push(listener);
    }

    /// Waits until a subscriber has everything, judges it, and lets it go.
    async fn leave(&mut self) -> Result<(), String> {
        let listener = self.listeners.swap_remove(self.random.random_range(0..self.listeners.len()));
        let (epoch, head) = (self.ledger.acks.last().map_or("", |ack| &ack.epoch), self.head());
        let told = |account: &Account| account.told.iter().any(|told| matches!(told, Told::CaughtUp { .. }));
        let mut account = Account::default();
        eventually(&format!("{} is at {head}", self.channel), async || {
            account = listener.scribe.account(&self.channel);
            told(&account) && account.position() == (epoch.to_owned(), head)
        })
        .await;
        account.since = listener.since;
        if let Err(range) = &listener.start
            && !range.contains(&first(&account))
        {
            return Err(format!("began with {}, not in {range:?}: {account:?}", first(&account)));
        }
        account.start = listener.start.ok();
        self.ledger.judge(&account, (epoch, head))?;
        let said = account.told.iter().any(|told| matches!(told, Told::Gap { .. } | Told::Reset { .. }));
        if said { Err(format!("nothing was lost, and yet: {account:?}")) } else { Ok(()) }
    }

    async fn pause(&mut self) {
        let pause = self.random.random_range(0..2 * LINGER.as_millis());
        sleep(Duration::from_millis(u64::try_from(pause).unwrap())).await;
    }

    fn head(&self) -> i64 {
        self.ledger.acks.last().map_or(0, |ack| ack.offset)
    }
}

/// The offset of the first thing that was told, or of what would be next.
fn first(account: &Account) -> i64 {
    match &account.told[0] {
        Told::Message { offset, .. } => *offset,
        Told::CaughtUp { head, .. } => head + 1,
        Told::Gap { first, .. } => *first,
        Told::Reset { .. } => 1,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_during_subscribe_in_ten_thousand_random_schedules_is_exact() {
    let seed: u64 = std::env::var("TIDINGS_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    let broadcasts = Broadcasts::start_tuned(2, |config| {
        config.streams.broadcast_linger = LINGER.into();
    })
    .await;

    // Two connections to each instance, so that all fit.
    let clients = [0, 1, 0, 1].map(|place| broadcasts.another_client(place));
    let schedules = stream::iter(0..SCHEDULES).map(|number| {
        let schedule = Schedule {
            channel: format!("schedule/{number}"),
            clients: clients.clone(),
            random: StdRng::seed_from_u64(seed.wrapping_add(u64::try_from(number).unwrap())),
            ledger: Ledger::default(),
            listeners: Vec::new(),
        };
        async move { (number, schedule.run().await) }
    });
    let mut running = schedules.buffer_unordered(TOGETHER);
    while let Some((number, judged)) = running.next().await {
        assert_eq!(judged, Ok(()), "schedule {number} of TIDINGS_SEED={seed}");
    }
}
