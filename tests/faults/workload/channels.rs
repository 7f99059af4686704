//! Publishes to channels with subscribers. Each subscriber receives every acknowledged message once
//! and in order, or a report of the missing ones.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use tidings_client::{Caller, Endpoints, Event, Start, Subscription};
use tidings_proto::broadcast::broadcast_service_client::BroadcastServiceClient;
use tidings_proto::broadcast::{PublishRequest, PublishResponse};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{CallError, LedgerCounts, Workload};
use crate::service::TestService;

const CHANNELS: u64 = 2;
/// Subscribers per channel.
const SUBSCRIBERS: usize = 3;
/// Longest wait for the first and the last event of a subscriber, and for the last publish.
const PATIENCE: Duration = Duration::from_secs(30);
/// Content of the last message of each channel.
const END: &str = "end";

/// The workload of broadcast.
pub(crate) struct ChannelWorkload {
    caller: Caller,
    retrying: Caller,
    acknowledged: Mutex<Vec<AcknowledgedPublish>>,
    subscribers: Mutex<Vec<(u64, JoinHandle<Vec<Event>>)>>,
}

/// A message whose publish was acknowledged.
#[derive(Debug)]
struct AcknowledgedPublish {
    channel: u64,
    epoch: String,
    offset: i64,
}

/// Records an event of a subscriber; seeded drills use a faulty one, which the ledger must show.
pub(crate) type EventRecorder = fn(&mut Vec<Event>, Event);

impl ChannelWorkload {
    /// Creates the workload and subscribers that have caught up.
    pub(crate) async fn new(caller: Caller, instances: &[TestService], recorder: EventRecorder) -> Self {
        let retrying = super::caller_with_retries(instances, PATIENCE);
        let mut subscribers = Vec::new();
        for channel in 0..CHANNELS {
            for _ in 0..SUBSCRIBERS {
                let (ready, mut caught_up) = watch::channel(false);
                let subscriber = subscribe(super::endpoints(instances), name(channel), ready, recorder);
                subscribers.push((channel, tokio::spawn(subscriber)));
                timeout(PATIENCE, caught_up.wait_for(|ready| *ready)).await.unwrap().unwrap();
            }
        }
        Self { caller, retrying, acknowledged: Mutex::default(), subscribers: Mutex::new(subscribers) }
    }

    async fn publish(caller: &Caller, channel: u64, text: &str) -> Result<PublishResponse, CallError> {
        let (data, request_id) = (text.to_owned().into(), text.to_owned());
        let request = PublishRequest { channel: name(channel), data, request_id, ..Default::default() };
        let send = async |channel, request| BroadcastServiceClient::new(channel).publish(request).await;
        caller.call("Publish", &request, send).await.map_err(|error| CallError::from(&error))
    }
}

impl Workload for ChannelWorkload {
    const NAME: &'static str = "broadcast";

    async fn call(&self, number: u64) -> Result<(), CallError> {
        let channel = number % CHANNELS;
        let PublishResponse { epoch, offset, .. } =
            Self::publish(&self.caller, channel, &format!("message-{number}")).await?;
        self.acknowledged.lock().unwrap().push(AcknowledgedPublish { channel, epoch, offset });
        Ok(())
    }

    fn ledger_lines(&self) -> Vec<String> {
        self.acknowledged.lock().unwrap().iter().map(|publish| format!("{publish:?}")).collect()
    }

    async fn check_ledger(&self) -> LedgerCounts {
        for channel in 0..CHANNELS {
            Self::publish(&self.retrying, channel, END).await.unwrap();
        }
        let subscribers = std::mem::take(&mut *self.subscribers.lock().unwrap());
        let mut counts = LedgerCounts::default();
        for (channel, subscriber) in subscribers {
            let received =
                timeout(PATIENCE, subscriber).await.expect("every subscriber receives the last message").unwrap();
            let acknowledged = self.acknowledged.lock().unwrap();
            counts += check_events(&received, acknowledged.iter().filter(|publish| publish.channel == channel));
        }
        counts.acknowledged = self.acknowledged.lock().unwrap().len() as u64;
        counts
    }
}

/// Subscribes to a channel and returns the recorded events up to the last message.
async fn subscribe(
    endpoints: Endpoints,
    channel: String,
    ready: watch::Sender<bool>,
    recorder: EventRecorder,
) -> Vec<Event> {
    let mut subscription = Subscription::open(&endpoints, vec![Start::latest(channel)]);
    let mut received = Vec::new();
    loop {
        let event = subscription.next().await.unwrap();
        let last = matches!(&event, Event::Message(message) if message.data == END.as_bytes());
        if matches!(event, Event::CaughtUp(_)) {
            ready.send_replace(true);
        }
        recorder(&mut received, event);
        if last {
            return received;
        }
    }
}

/// Compares the events of a subscriber with the acknowledged messages of its channel.
fn check_events<'a>(received: &[Event], acknowledged: impl Iterator<Item = &'a AcknowledgedPublish>) -> LedgerCounts {
    let mut counts = LedgerCounts::default();
    let mut offsets: HashMap<&str, HashSet<i64>> = HashMap::new();
    let mut epochs: Vec<&str> = Vec::new();
    let mut contents = HashSet::new();
    let mut last = None;
    let mut gaps = Vec::new();
    for event in received {
        match event {
            Event::Message(message) => {
                if epochs.last() != Some(&&*message.epoch) {
                    counts.reverted += u64::from(epochs.contains(&&*message.epoch));
                    epochs.push(&message.epoch);
                }
                let new = offsets.entry(&message.epoch).or_default().insert(message.offset);
                // The same content in another epoch is no duplicate: its first publish was lost
                // with the epoch before, and the client retried it.
                counts.duplicated += u64::from(!new || !contents.insert((&message.epoch, &message.data)));
                let previous = last.replace((&message.epoch, message.offset));
                counts.reordered += u64::from(
                    previous.is_some_and(|(epoch, offset)| *epoch == message.epoch && offset > message.offset),
                );
            }
            Event::Gap(gap) => gaps.push((&gap.epoch, gap.first_offset..=gap.last_offset)),
            Event::Reset(_) | Event::CaughtUp(_) => {}
        }
    }
    let reset = received.iter().any(|event| matches!(event, Event::Reset(_)));
    let current_epoch = epochs.last().copied();
    for publish in acknowledged {
        if offsets.get(publish.epoch.as_str()).is_some_and(|offsets| offsets.contains(&publish.offset)) {
            continue;
        }
        let in_gap = gaps.iter().any(|(epoch, range)| **epoch == publish.epoch && range.contains(&publish.offset));
        // A reset reports the end of an epoch, and with it the loss of the epoch's last messages.
        let in_ended_epoch = reset && current_epoch != Some(&*publish.epoch);
        if in_gap || in_ended_epoch { counts.reported_missing += 1 } else { counts.lost += 1 }
    }
    counts
}

fn name(channel: u64) -> String {
    format!("channel-{channel}")
}
