//! One stream: its cursors, and the next frame to send.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tidings_server::{StreamClock, StreamEnd};
use tokio::time::Instant;

use super::cursor::Cursor;
use super::feed::Feed;
use super::reads::PageRead;
use super::ready::{ReadyFlag, ReadyQueue};
use super::ring::RingRead;
use super::{Error, Hub};
use crate::channels;
use crate::model::{ChannelPage, ChannelStart, Position, SubscriptionFrame, count};

/// Pause before a failed read is retried: about the time to reconnect to Redis.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// One stream with its subscriptions. Dropping it ends the stream.
#[derive(Debug)]
pub struct HubSubscription {
    hub: Arc<Hub>,
    _stream_count: StreamCount,
    ready: Arc<ReadyQueue>,
    subscriptions: Vec<ChannelSubscription>,
    /// Frames to send next; at most those of one ring read or one page.
    frames: VecDeque<SubscriptionFrame>,
    /// Subscriptions that wait for a read from Redis, each once.
    awaiting_read: VecDeque<usize>,
    /// The read in flight and its subscription; a stream has one at a time.
    read: Option<(usize, PageRead)>,
    /// Moment of the next read, after one that failed.
    retry_at: Option<Instant>,
    /// Error of the last read, if it failed.
    read_error: Option<Arc<channels::Error>>,
    /// Number of subscriptions whose channel has not been live yet.
    not_live: usize,
    /// Moment since which the stream waits for Redis: for a channel to be live, or for a read.
    blocked_since: Option<Instant>,
    clock: StreamClock,
}

/// The subscription of a stream to one channel.
#[derive(Debug)]
struct ChannelSubscription {
    flag: Arc<ReadyFlag>,
    feed: Arc<Feed>,
    /// Slot of `flag` in the feed.
    slot: usize,
    cursor: Cursor,
    was_live: bool,
    /// True while it is in `awaiting_read`, or its read is in flight.
    awaits_read: bool,
}

impl Drop for ChannelSubscription {
    fn drop(&mut self) {
        self.feed.detach(self.slot);
    }
}

/// Counts one stream of the hub until it is dropped.
#[derive(Debug)]
struct StreamCount(Arc<Hub>);

impl StreamCount {
    fn increment(hub: &Arc<Hub>) -> Self {
        hub.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hub))
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HubSubscription {
    /// Attaches to the channels first, then reads their state from Redis, so that messages
    /// published in between reach the ring or are read.
    pub(super) async fn begin(hub: &Arc<Hub>, starts: &[ChannelStart], stream_end: StreamEnd) -> Result<Self, Error> {
        let stream_count = StreamCount::increment(hub);
        let ready = Arc::new(ReadyQueue::default());
        let mut subscriptions: Vec<_> = starts
            .iter()
            .enumerate()
            .map(|(index, start)| {
                let flag = ReadyFlag::new(&ready, index);
                let (feed, slot, losses) = hub.directory.attach(&start.channel, Arc::clone(&flag));
                let cursor = Cursor::unpositioned(losses);
                ChannelSubscription { flag, feed, slot, cursor, was_live: false, awaits_read: false }
            })
            .collect();
        let states = hub.channels.states(starts.iter().map(|start| &start.channel)).await?;
        let mut frames = VecDeque::new();
        for ((subscription, start), state) in subscriptions.iter_mut().zip(starts).zip(&states) {
            frames.extend(subscription.cursor.start(&start.channel, start.start, state));
        }
        Ok(Self {
            hub: Arc::clone(hub),
            _stream_count: stream_count,
            ready,
            not_live: subscriptions.len(),
            subscriptions,
            frames,
            awaiting_read: VecDeque::new(),
            read: None,
            retry_at: None,
            read_error: None,
            blocked_since: Some(Instant::now()),
            clock: StreamClock::start(hub.limits.heartbeat, stream_end),
        })
    }

    /// Waits for the next frame; returns `None` after the end of the stream. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::ReadTimeout`] and [`Error::SubscribeTimeout`]; the stream has ended then.
    pub async fn next(&mut self) -> Option<Result<SubscriptionFrame, Error>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                self.clock.frame_sent();
                self.hub.metrics.record_frame(&frame);
                return Some(Ok(frame));
            }
            if self.clock.has_ended() {
                return None;
            }
            if let Some(goodbye) = self.clock.goodbye().await {
                self.frames.push_back(SubscriptionFrame::Goodbye(goodbye));
                continue;
            }
            if let Some(error) = self.timeout_error() {
                self.clock.finish();
                return Some(Err(error));
            }
            // Polls the read first, also while other channels are so busy that the stream never
            // waits.
            if let Some((index, read)) = &mut self.read
                && let Some(page) = read.now_or_never()
            {
                let index = *index;
                self.finish_read(index, page);
            } else if let Some(index) = self.ready.pop() {
                self.read_ring(index);
            } else {
                self.wait().await;
            }
        }
    }

    /// Takes the next messages of a channel from its ring.
    fn read_ring(&mut self, index: usize) {
        let subscription = &mut self.subscriptions[index];
        subscription.flag.clear();
        if subscription.awaits_read {
            return; // the end of the read marks it ready again
        }
        let Some(ring_read) = subscription.feed.read(&subscription.cursor) else {
            return; // the feed marks it ready when it is live
        };
        if !std::mem::replace(&mut subscription.was_live, true) {
            self.not_live -= 1;
        }
        let (channel, cursor) = (&subscription.feed.channel, &mut subscription.cursor);
        match ring_read {
            RingRead::Miss => {
                subscription.awaits_read = true;
                self.awaiting_read.push_back(index);
            }
            RingRead::Empty => self.frames.extend(cursor.take_caught_up(channel)),
            RingRead::Messages { epoch, messages, more } => {
                self.frames.extend(cursor.take_caught_up(channel));
                cursor.position = Position { epoch, offset: cursor.position.offset + count(messages.len()) };
                self.frames.push_back(SubscriptionFrame::Messages(messages));
                self.frames.extend(cursor.take_caught_up(channel));
                if more {
                    subscription.flag.mark_ready(); // behind the other ready channels
                }
            }
        }
        self.start_next_read();
    }

    /// Applies the result of a read from Redis.
    fn finish_read(&mut self, index: usize, page: Result<Arc<ChannelPage>, Arc<channels::Error>>) {
        self.read = None;
        let subscription = &mut self.subscriptions[index];
        match page {
            Ok(page) => {
                self.read_error = None;
                subscription.awaits_read = false;
                let feed = &subscription.feed;
                let frames = subscription.cursor.apply_page(&feed.channel, &page, feed.head_and_losses());
                if frames.is_empty() {
                    // The ring disagrees with Redis: its fill will mark the subscription ready.
                    self.hub.perform(feed, feed.request_fill());
                } else {
                    subscription.flag.mark_ready();
                }
                self.frames.extend(frames);
            }
            Err(error) => {
                self.read_error = Some(error);
                self.awaiting_read.push_back(index);
                self.retry_at = Some(Instant::now() + RETRY_DELAY);
            }
        }
        self.start_next_read();
    }

    /// Starts the next read if one is due, and updates `blocked_since`.
    fn start_next_read(&mut self) {
        if self.read.is_none()
            && self.retry_at.is_none()
            && let Some(index) = self.awaiting_read.pop_front()
        {
            let ChannelSubscription { feed, cursor, .. } = &self.subscriptions[index];
            self.read = Some((index, self.hub.reads.join_or_start(&feed.channel, cursor.position)));
        }
        if self.not_live == 0 && self.read_error.is_none() {
            self.blocked_since = None;
        } else {
            self.blocked_since.get_or_insert_with(Instant::now);
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let give_up = self.blocked_since.map(|since| since + self.hub.limits.patience);
        let due = [self.retry_at, give_up].into_iter().flatten().min();
        let read = async {
            match &mut self.read {
                Some((index, read)) => (*index, read.await),
                None => std::future::pending().await,
            }
        };
        // The most frequent wake-up comes first; the other branches are not polled when it is
        // ready.
        tokio::select! {
            biased;
            () = self.ready.wait() => {}
            (index, page) = read => self.finish_read(index, page),
            () = self.clock.tick(due) => self.on_tick(),
        }
    }

    fn on_tick(&mut self) {
        if self.clock.is_heartbeat_due() {
            self.frames.push_back(SubscriptionFrame::Heartbeat { degraded: !self.hub.is_connected() });
        }
        if self.retry_at.take_if(|retry_at| Instant::now() >= *retry_at).is_some() {
            self.start_next_read();
        }
    }

    /// Returns the error that ends the stream, if it was blocked for [`HubLimits::patience`].
    ///
    /// [`HubLimits::patience`]: super::HubLimits::patience
    fn timeout_error(&self) -> Option<Error> {
        self.blocked_since.filter(|since| since.elapsed() >= self.hub.limits.patience)?;
        Some(self.read_error.clone().map_or(Error::SubscribeTimeout, Error::ReadTimeout))
    }
}
