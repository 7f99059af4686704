//! One channel of this instance: its ring and its subscribers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::budget::{LruKey, RingBudget};
use super::cursor::Cursor;
use super::ready::{ReadyFlag, ReadyFlags};
use super::ring::{ReceiveOutcome, Ring, RingLimits, RingRead};
use crate::model::{ChannelName, ChannelPage, Position};
use crate::wire::MessageNotification;

/// The state of a channel's subscription in Redis. A channel without subscribers has no feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedState {
    /// Requested by a subscriber; the subscription is not confirmed yet.
    Joining,
    /// Confirmed by Redis.
    Live,
    /// Without subscribers: the subscription ends, and the feed with it. A new subscriber gets a
    /// new feed.
    Leaving,
}

/// The action that a feed requests from the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedAction {
    /// Nothing to do.
    None,
    /// The ring misses messages and must be filled from Redis.
    Fill,
}

/// One channel of this instance: its ring and its subscribers.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) channel: ChannelName,
    budget: Arc<RingBudget>,
    inner: Mutex<FeedInner>,
}

#[derive(Debug)]
struct FeedInner {
    state: FeedState,
    ring: Ring,
    subscribers: ReadyFlags,
    /// True while a fill is queued or running; a feed has one at a time.
    filling: bool,
    /// Moment since which the feed has no subscriber.
    idle_since: Option<Instant>,
    lru_key: LruKey,
}

impl Feed {
    pub(super) fn new(channel: ChannelName, limits: RingLimits, budget: Arc<RingBudget>) -> Arc<Self> {
        let inner = FeedInner {
            state: FeedState::Joining,
            ring: Ring::new(limits),
            subscribers: ReadyFlags::default(),
            filling: false,
            idle_since: Some(Instant::now()),
            lru_key: LruKey::default(),
        };
        Arc::new(Self { channel, budget, inner: Mutex::new(inner) })
    }

    /// Attaches a subscriber. Returns its slot and the loss count of the ring.
    pub(super) fn attach(&self, flag: Arc<ReadyFlag>) -> (usize, u64) {
        let mut inner = self.inner.lock();
        inner.idle_since = None;
        if inner.state == FeedState::Live {
            flag.mark_ready();
        }
        (inner.subscribers.add(flag), inner.ring.losses())
    }

    /// Detaches the subscriber in a slot.
    pub(super) fn detach(&self, slot: usize) {
        let mut inner = self.inner.lock();
        inner.subscribers.remove(slot);
        if inner.subscribers.len() == 0 {
            inner.idle_since.get_or_insert_with(Instant::now);
        }
    }

    /// Returns the number of attached subscribers.
    pub(super) fn subscriber_count(&self) -> usize {
        self.inner.lock().subscribers.len()
    }

    /// Returns the bytes that the ring holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().ring.bytes()
    }

    /// Returns true if Redis has confirmed the subscription.
    pub(super) fn is_live(&self) -> bool {
        self.inner.lock().state == FeedState::Live
    }

    /// Takes a notification from Redis. Never blocks for long.
    pub(super) fn receive(&self, notification: MessageNotification) -> FeedAction {
        self.change(|inner| match inner.receive(notification) {
            ReceiveOutcome::Appended => {
                inner.subscribers.mark_all_ready();
                FeedAction::None
            }
            ReceiveOutcome::Ignored => FeedAction::None,
            ReceiveOutcome::OutOfSequence => inner.request_fill(),
        })
    }

    /// Records that notifications may have been missed.
    pub(super) fn on_disconnect(&self) {
        self.inner.lock().ring.on_disconnect();
    }

    /// Makes the feed live, after the confirmation of its subscription. `head` is the head of the
    /// channel as read after the confirmation. A feed that is live already is compared with `head`.
    pub(super) fn go_live(&self, head: Position) -> FeedAction {
        self.change(|inner| {
            if inner.state == FeedState::Live {
                return inner.compare(head);
            }
            inner.state = FeedState::Live;
            let complete = inner.ring.start_at(head);
            inner.subscribers.mark_all_ready();
            if complete { FeedAction::None } else { inner.request_fill() }
        })
    }

    /// Compares the ring with the head of the channel in Redis.
    pub(super) fn compare(&self, head: Position) -> FeedAction {
        self.inner.lock().compare(head)
    }

    /// Requests a fill, unless one is queued or running.
    pub(super) fn request_fill(&self) -> FeedAction {
        self.inner.lock().request_fill()
    }

    /// Begins a fill. Returns the position to read from, or `None` if the feed is not live.
    pub(super) fn begin_fill(&self) -> Option<Position> {
        let mut from = None;
        self.change(|inner| from = (inner.state == FeedState::Live).then(|| inner.ring.begin_fill()));
        from
    }

    /// Applies the page that a fill has read. Returns true if the ring is complete; otherwise
    /// another fill must follow. A feed that was closed meanwhile ignores the page.
    pub(super) fn fill(&self, page: &ChannelPage) -> bool {
        self.change(|inner| {
            let complete = inner.state == FeedState::Leaving || inner.ring.fill(page);
            inner.filling = !complete;
            inner.subscribers.mark_all_ready();
            complete
        })
    }

    /// Reads the messages behind a cursor; returns `None` if the feed is not live.
    pub(super) fn read(&self, cursor: &Cursor) -> Option<RingRead> {
        let inner = self.inner.lock();
        if inner.state != FeedState::Live {
            return None;
        }
        Some(inner.ring.read(cursor.position, cursor.losses))
    }

    /// Returns the head of the ring and its loss count.
    pub(super) fn head_and_losses(&self) -> (Position, u64) {
        let inner = self.inner.lock();
        (inner.ring.head(), inner.ring.losses())
    }

    /// Returns true if the feed had no subscriber for `linger`.
    pub(super) fn is_idle(&self, linger: Duration) -> bool {
        self.inner.lock().is_idle(linger)
    }

    /// Closes the feed and empties its ring, if it had no subscriber for `linger`. Returns true if
    /// it did.
    pub(super) fn close(&self, linger: Duration) -> bool {
        self.change(|inner| {
            let closes = inner.is_idle(linger);
            if closes {
                inner.state = FeedState::Leaving;
                inner.ring.evict();
            }
            closes
        })
    }

    /// Drops the messages of the ring, to free memory for other rings.
    pub(super) fn evict(&self) {
        self.change(|inner| inner.ring.evict());
    }

    /// Changes the feed and updates the memory budget.
    fn change<T>(&self, change: impl FnOnce(&mut FeedInner) -> T) -> T {
        let mut inner = self.inner.lock();
        let (bytes, head) = (inner.ring.bytes(), inner.ring.head());
        let changed = change(&mut inner);
        let (now, advanced) = (inner.ring.bytes(), inner.ring.head() != head);
        if now == 0 {
            self.budget.remove(&mut inner.lru_key);
        } else if advanced {
            self.budget.touch(&mut inner.lru_key, &self.channel);
        }
        self.budget.record_resize(bytes, now);
        changed
    }
}

impl FeedInner {
    /// Takes a notification; a closed feed ignores it.
    fn receive(&mut self, notification: MessageNotification) -> ReceiveOutcome {
        if self.state == FeedState::Leaving { ReceiveOutcome::Ignored } else { self.ring.receive(notification) }
    }

    fn request_fill(&mut self) -> FeedAction {
        // A joining feed will start at the head that Redis reports; a leaving one needs no
        // messages.
        if self.state != FeedState::Live || std::mem::replace(&mut self.filling, true) {
            return FeedAction::None;
        }
        FeedAction::Fill
    }

    /// Returns true if the feed had no subscriber for `linger`. A joining feed does not linger: its
    /// ring is empty.
    fn is_idle(&self, linger: Duration) -> bool {
        self.idle_since.is_some_and(|since| since.elapsed() >= linger || self.state == FeedState::Joining)
    }

    fn compare(&mut self, head: Position) -> FeedAction {
        let ring_head = self.ring.head();
        if ring_head.epoch == head.epoch && ring_head.offset >= head.offset {
            return FeedAction::None;
        }
        self.request_fill()
    }
}
