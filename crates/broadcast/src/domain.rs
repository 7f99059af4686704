//! The use cases, and the order of their steps.
//!
//! Publish is one script in Redis: it numbers the message, keeps it and notifies the instances. A
//! publish is one atomic step, so a call that is cancelled leaves nothing half done, and the step
//! needs no task of its own.
//!
//! Subscribe attaches to the channels first, then reads their state from Redis, and continues from
//! there. No message is lost without a `Gap` or `Reset`. Each instance receives each message once,
//! and serves it to all its subscribers. A notification appends its message to the channel's `ring`
//! and marks the channel ready for its subscribers. A `subscription` is polled by the flow control
//! of its connection, and reads from the rings the messages between its `cursor`s and their heads.
//! A subscriber costs no task, no queue and no copy of a message. `pubsub` decides which channels
//! are subscribed in Redis, and `repair` fills rings that miss messages.
//!
//! These invariants hold:
//! - **B1** A ring is a contiguous part of its channel: it appends only the message behind its
//!   newest, or pages read from Redis (`Ring`).
//! - **B2** A ring never returns to a past epoch. Only a fill from Redis moves it to another epoch,
//!   and fills of a ring run one after the other (`Feed::request_fill`, `Ring::fill`).
//! - **B3** A ring that misses a message detects it at the next notification or at the next
//!   comparison with Redis, and is filled (`RepairQueue`). Notifications that arrive during the
//!   fill are kept, or trigger another fill (`Ring::merge_ahead`).
//! - **B4** A ring lives exactly as long as a confirmed pub/sub subscription. It starts at the head
//!   that Redis reports after the confirmation, and is dropped before the subscription ends
//!   (`pubsub`, `Feed::close`).
//! - **B5** A cursor passes each message once and in order, by delivering it or by reporting it
//!   missing. It moves to another epoch only with a `Reset`, or from no epoch to the first one
//!   since (`Cursor`).
//! - **B6** A writer marks the flags of a ring's subscribers after it appends, and a reader clears
//!   its flag before it reads, so no wake-up is lost (`ReadyFlag`).
//! - **B7** Nothing waits for a slow subscriber: a stream that is not polled holds only its cursors
//!   (`HubSubscription`).
//! - **B8** An epoch assigns each offset once. The script numbers and keeps a message in one step,
//!   and continues only epochs written in the current incarnation of Redis
//!   (`channels/publish.lua`).
//! - **B9** A page is read together with its epoch and incarnation (`channels/read.lua`), so
//!   messages of another incarnation are never delivered.
//! - **B10** An acknowledged publish is published once. Nothing resends a publish without a request
//!   id.

mod budget;
mod cursor;
mod directory;
mod error;
mod feed;
mod pubsub;
mod reads;
mod ready;
mod repair;
mod ring;
#[cfg(test)]
mod simulation;
mod subscription;

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, stream};
use tidings_redis::WriteOutcome;
use tidings_server::StreamEnd;

pub use error::Error;
pub use ring::RingLimits;
pub use subscription::HubSubscription;

use crate::channels::{self, ChannelStore};
use crate::metrics::Metrics;
use crate::model::{
    ChannelName, ChannelStart, ChannelState, HubSize, PublishOutcome, Published, SubscriptionFrame, UnpublishedMessage,
};
use crate::wire::MessageNotification;
use directory::FeedDirectory;
use feed::{Feed, FeedAction};
use reads::SharedReads;
use repair::RepairQueue;

/// Limits of the hub.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Limits of each ring.
    pub ring: RingLimits,
    /// Most bytes of messages in all rings together.
    pub rings_bytes: usize,
    /// Time that a channel stays subscribed in Redis after its last subscriber has left.
    pub linger: Duration,
    /// Time without a frame after which a stream sends a heartbeat.
    pub heartbeat: Duration,
    /// Longest time that a stream waits for Redis before it ends.
    pub patience: Duration,
}

/// The channels, and the subscribers that this instance serves from its rings.
#[derive(Debug)]
pub struct Hub {
    limits: HubLimits,
    channels: Arc<ChannelStore>,
    directory: FeedDirectory,
    reads: Arc<SharedReads>,
    repairs: RepairQueue,
    streams: AtomicUsize,
    connected: AtomicBool,
    metrics: Metrics,
}

impl Hub {
    /// Makes a hub without subscribers; [`run_pubsub`](Self::run_pubsub) connects it.
    pub fn new(channels: Arc<ChannelStore>, limits: HubLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            directory: FeedDirectory::new(limits.ring, limits.rings_bytes),
            reads: SharedReads::new(Arc::clone(&channels)),
            repairs: RepairQueue::default(),
            streams: AtomicUsize::new(0),
            connected: AtomicBool::new(false),
            metrics: Metrics::new(),
            channels,
        })
    }

    /// Publishes one message.
    pub async fn publish(&self, message: &UnpublishedMessage) -> Result<Published, Error> {
        let _permit = self.channels.admit(slice::from_ref(message)).await.ok_or(Error::Overloaded)?;
        let outcome = into_result(self.channels.publish(message).await)?;
        self.metrics.record_publish(&outcome);
        into_published(outcome)
    }

    /// Publishes messages to any channels, those of one channel in the order given. Returns one
    /// result per message, in the same order.
    ///
    /// A large batch is published in parts, so that it holds up no other publish. After a failure
    /// the parts before have been published, and the parts behind have not.
    pub async fn publish_all(&self, messages: &[UnpublishedMessage]) -> Result<Vec<Result<Published, Error>>, Error> {
        let mut results = Vec::with_capacity(messages.len());
        for part in channels::parts(messages) {
            let begun = !results.is_empty();
            let permit = if begun { self.channels.admit_further(part).await } else { self.channels.admit(part).await };
            let _permit = permit.ok_or(Error::Overloaded)?;
            let outcomes = into_result(self.channels.publish_all(part).await).map_err(|error| match error {
                Error::NotPublished(cause) if begun => Error::OutcomeUnknown(cause),
                error => error,
            })?;
            if outcomes.len() != part.len() {
                return Err(Error::ReplyCount);
            }
            for outcome in &outcomes {
                self.metrics.record_publish(outcome);
            }
            results.extend(outcomes.into_iter().map(into_published));
        }
        Ok(results)
    }

    /// Subscribes to channels. Every message published after the return is delivered or reported
    /// missing.
    ///
    /// # Errors
    /// [`Error::Channel`] if the state of the channels cannot be read.
    pub async fn subscribe(
        self: &Arc<Self>,
        starts: &[ChannelStart],
        stream_end: StreamEnd,
    ) -> Result<impl Stream<Item = Result<SubscriptionFrame, Error>> + Send + use<>, Error> {
        let subscription = HubSubscription::begin(self, starts, stream_end).await?;
        Ok(stream::unfold(subscription, async |mut subscription: HubSubscription| {
            Some((subscription.next().await?, subscription))
        }))
    }

    /// Returns the state of a channel, and its number of subscribers at this instance.
    pub async fn get(&self, channel: &ChannelName) -> Result<(ChannelState, usize), Error> {
        let states = self.channels.states([channel].into_iter()).await?;
        let state = states.first().copied().ok_or(Error::ReplyCount)?;
        let subscribers = self.directory.get(channel.as_str()).map_or(0, |feed| feed.subscriber_count());
        Ok((state, subscribers))
    }

    /// Takes a notification from a pub/sub channel. Runs on the connection's task, so it is short
    /// and never blocks.
    pub fn receive(&self, pubsub_channel: &str, payload: Vec<u8>) {
        let feed = channels::parse_pubsub_channel(pubsub_channel).and_then(|channel| self.directory.get(channel));
        // A channel without subscribers and a payload of another program are ignored.
        if let (Some(feed), Some(notification)) = (feed, MessageNotification::parse(payload)) {
            let action = feed.receive(notification);
            self.directory.evict_excess();
            self.perform(&feed, action);
        }
    }

    /// Returns true if Redis replies but the hub has no pub/sub session.
    pub async fn is_disconnected(&self) -> bool {
        !self.is_connected() && self.channels.is_reachable().await
    }

    /// Sets the gauges to the present numbers of streams, channels and bytes.
    pub fn record_size(&self) {
        self.metrics.record_size(HubSize {
            streams: self.streams.load(Ordering::Relaxed),
            channels: self.directory.len(),
            rings_bytes: self.directory.rings_bytes(),
        });
    }

    /// Returns true while the hub has a pub/sub session with all its channels subscribed.
    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Performs the action that a feed has requested.
    fn perform(&self, feed: &Arc<Feed>, action: FeedAction) {
        match action {
            FeedAction::None => {}
            FeedAction::Fill => self.repairs.add(Arc::clone(feed)),
        }
    }
}

/// Separates a publish that was done from one that was not, or may not have been.
fn into_result<T>(written: WriteOutcome<T>) -> Result<T, Error> {
    match written {
        WriteOutcome::Done(outcome) => Ok(outcome),
        WriteOutcome::NotDone(error) => Err(Error::NotPublished(error)),
        WriteOutcome::Unknown(error) => Err(Error::OutcomeUnknown(error)),
    }
}

fn into_published(outcome: PublishOutcome) -> Result<Published, Error> {
    match outcome {
        PublishOutcome::Published(published) => Ok(published),
        PublishOutcome::RequestIdReused { epoch, offset } => Err(Error::RequestIdReused { epoch, offset }),
    }
}
