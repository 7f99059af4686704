//! Channels that are published to and listened to: each listener gets every acknowledged message once and in order, or is told
//! what is missing.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use tidings_client::{Caller, Endpoints, Event, Start, Subscription};
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::{PublishRequest, PublishResponse};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Account, Refused, Work};
use crate::service::Service;

const CHANNELS: u64 = 2;
const LISTENERS: usize = 3;
/// How long the last message may take to arrive, and everything to be as it was.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is published last.
const END: &str = "end";

/// The work.
pub(crate) struct Channels {
    caller: Caller,
    patient: Caller,
    acks: Mutex<Vec<Ack>>,
    listeners: Mutex<Vec<(u64, JoinHandle<Vec<Event>>)>>,
}

/// A message that was acknowledged.
#[derive(Debug)]
struct Ack {
    channel: u64,
    epoch: String,
    offset: i64,
}

/// What a listener does to what it hears, so that it is known that whoever listens badly is found out.
pub(crate) type Ear = fn(&mut Vec<Event>, Event);

impl Channels {
    /// Channels that are published to by `caller`, and their listeners, who have caught up.
    pub(crate) async fn new(caller: Caller, instances: &[Service], ear: Ear) -> Self {
        let patient = super::caller(instances, PATIENCE);
        let mut listeners = Vec::new();
        for channel in 0..CHANNELS {
            for _ in 0..LISTENERS {
                let (ready, mut caught_up) = watch::channel(false);
                let listening = listen(super::endpoints(instances), name(channel), ready, ear);
                listeners.push((channel, tokio::spawn(listening)));
                timeout(PATIENCE, caught_up.wait_for(|ready| *ready)).await.unwrap().unwrap();
            }
        }
        Self { caller, patient, acks: Mutex::default(), listeners: Mutex::new(listeners) }
    }

    async fn publish(caller: &Caller, channel: u64, text: &str) -> Result<PublishResponse, Refused> {
        let (data, request_id) = (text.to_owned().into(), text.to_owned());
        let request = PublishRequest { channel: name(channel), data, request_id, ..Default::default() };
        let send = async |channel, request| BroadcastServiceClient::new(channel).publish(request).await;
        caller.call("Publish", &request, send).await.map_err(|error| Refused::from(&error))
    }
}

impl Work for Channels {
    const NAME: &'static str = "broadcast";

    async fn once(&self, number: u64) -> Result<(), Refused> {
        let channel = number % CHANNELS;
        let PublishResponse { epoch, offset, .. } =
            Self::publish(&self.caller, channel, &format!("news-{number}")).await?;
        self.acks.lock().unwrap().push(Ack { channel, epoch, offset });
        Ok(())
    }

    fn history(&self) -> Vec<String> {
        self.acks.lock().unwrap().iter().map(|ack| format!("{ack:?}")).collect()
    }

    async fn account(&self) -> Account {
        for channel in 0..CHANNELS {
            Self::publish(&self.patient, channel, END).await.unwrap();
        }
        let listeners = std::mem::take(&mut *self.listeners.lock().unwrap());
        let mut account = Account::default();
        for (channel, listener) in listeners {
            let heard = timeout(PATIENCE, listener).await.expect("every listener hears the last message").unwrap();
            let acks = self.acks.lock().unwrap();
            account += judge(&heard, acks.iter().filter(|ack| ack.channel == channel));
        }
        account.acknowledged = self.acks.lock().unwrap().len() as u64;
        account
    }
}

/// Listens until the last message comes.
async fn listen(endpoints: Endpoints, channel: String, ready: watch::Sender<bool>, ear: Ear) -> Vec<Event> {
    let mut subscription = Subscription::open(&endpoints, vec![Start::latest(channel)]);
    let mut heard = Vec::new();
    loop {
        let event = subscription.next().await.unwrap();
        let last = matches!(&event, Event::Message(message) if message.data == END.as_bytes());
        if matches!(event, Event::CaughtUp(_)) {
            ready.send_replace(true);
        }
        ear(&mut heard, event);
        if last {
            return heard;
        }
    }
}

/// Compares what a listener heard with what was acknowledged.
fn judge<'a>(heard: &[Event], acks: impl Iterator<Item = &'a Ack>) -> Account {
    let mut account = Account::default();
    let mut offsets: HashMap<&str, HashSet<i64>> = HashMap::new();
    let mut epochs: Vec<&str> = Vec::new();
    let mut texts = HashSet::new();
    let mut last = None;
    let mut gaps = Vec::new();
    for event in heard {
        match event {
            Event::Message(message) => {
                if epochs.last() != Some(&&*message.epoch) {
                    account.gone_back += u64::from(epochs.contains(&&*message.epoch));
                    epochs.push(&message.epoch);
                }
                let new = offsets.entry(&message.epoch).or_default().insert(message.offset);
                // A text may come again in another epoch: its first publish was lost with the one before.
                account.duplicated += u64::from(!new || !texts.insert((&message.epoch, &message.data)));
                let behind = last.replace((&message.epoch, message.offset));
                account.reordered +=
                    u64::from(behind.is_some_and(|(epoch, offset)| *epoch == message.epoch && offset > message.offset));
            }
            Event::Gap(gap) => gaps.push((&gap.epoch, gap.first_offset..=gap.last_offset)),
            Event::Reset(_) | Event::CaughtUp(_) => {}
        }
    }
    let reset = heard.iter().any(|event| matches!(event, Event::Reset(_)));
    let present = epochs.last().copied();
    for ack in acks {
        if offsets.get(ack.epoch.as_str()).is_some_and(|offsets| offsets.contains(&ack.offset)) {
            continue;
        }
        let told_by_gap = gaps.iter().any(|(epoch, range)| **epoch == ack.epoch && range.contains(&ack.offset));
        // What an epoch had beyond what was heard of it ends with a word that it has ended.
        let told_by_reset = reset && present != Some(&*ack.epoch);
        if told_by_gap || told_by_reset { account.told += 1 } else { account.lost += 1 }
    }
    account
}

fn name(channel: u64) -> String {
    format!("channel-{channel}")
}
