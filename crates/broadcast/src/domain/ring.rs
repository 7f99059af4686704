//! The ring buffer of a channel: its newest messages, encoded, in memory.
//!
//! A ring appends only the message behind its newest. Any other notification is late or shows that
//! messages are missing, and Redis decides which. So a ring never has a hole, and never returns to
//! a past epoch.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::channels::{PAGE_BYTES, PAGE_MESSAGES};
use crate::model::{ChannelEpoch, ChannelPage, Position, count};
use crate::wire::MessageNotification;

/// Limits of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Most messages in one ring.
    pub messages: usize,
    /// Most bytes of messages; the newest message is kept even if it is larger.
    pub bytes: usize,
}

/// Consecutive messages of one epoch, up to a head.
#[derive(Clone, Debug, Default)]
struct Segment {
    head: Position,
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Segment {
    fn at(head: Position) -> Self {
        Self { head, ..Self::default() }
    }

    /// Returns the offset of the oldest message; one above the head if there is none.
    fn first(&self) -> i64 {
        self.head.offset - count(self.messages.len()) + 1
    }

    fn push(&mut self, message: Bytes, limits: RingLimits) {
        self.head.offset += 1;
        self.bytes += message.len();
        self.messages.push_back(message);
        while self.messages.len() > limits.messages || (self.bytes > limits.bytes && self.messages.len() > 1) {
            self.bytes -= self.messages.pop_front().map_or(0, |oldest| oldest.len());
        }
    }

    fn clear(&mut self) {
        *self = Self::at(self.head);
    }
}

/// The effect of a notification on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiveOutcome {
    /// The message is the newest now.
    Appended,
    /// The message is a duplicate, or of a past position; nothing changed.
    Ignored,
    /// Messages are missing before it, or it is of another epoch: the ring must be filled from
    /// Redis.
    OutOfSequence,
}

/// The messages of a ring behind a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RingRead {
    /// The messages that follow the position.
    Messages {
        /// Epoch of the messages.
        epoch: Option<ChannelEpoch>,
        /// Consecutive messages, at most one frame.
        messages: Vec<Bytes>,
        /// True if the ring has further messages.
        more: bool,
    },
    /// No message follows the position yet.
    Empty,
    /// The ring does not hold the position: the subscriber must read from Redis.
    Miss,
}

/// The newest messages of a channel.
#[derive(Debug)]
pub(super) struct Ring {
    limits: RingLimits,
    segment: Segment,
    /// Messages received beyond a hole, kept so that the ring of a busy channel can catch up.
    ahead: Segment,
    /// Head of `ahead` when the last fill began.
    ahead_at_fill: Position,
    /// Epoch of notifications received while the ring has no epoch.
    observed_epoch: Option<ChannelEpoch>,
    /// True if an epoch may have begun and ended unnoticed while the ring has no epoch.
    may_have_missed_epoch: bool,
    /// Number of times that an epoch ended, or may have begun and ended unnoticed.
    losses: u64,
}

impl Ring {
    /// Makes an empty ring of a channel without an epoch.
    pub(super) fn new(limits: RingLimits) -> Self {
        Self {
            limits,
            segment: Segment::default(),
            ahead: Segment::default(),
            ahead_at_fill: Position::default(),
            observed_epoch: None,
            may_have_missed_epoch: false,
            losses: 0,
        }
    }

    /// Returns the position of the newest message.
    pub(super) fn head(&self) -> Position {
        self.segment.head
    }

    /// Returns the bytes of all messages held.
    pub(super) fn bytes(&self) -> usize {
        self.segment.bytes + self.ahead.bytes
    }

    /// Returns the loss count: how often Redis may have lost messages, as far as the ring knows.
    pub(super) fn losses(&self) -> u64 {
        self.losses
    }

    /// Takes a notification.
    pub(super) fn receive(&mut self, notification: MessageNotification) -> ReceiveOutcome {
        let head = self.segment.head;
        if head.epoch == Some(notification.epoch) {
            if notification.offset == head.offset + 1 {
                self.segment.push(notification.message, self.limits);
                return ReceiveOutcome::Appended;
            }
            if notification.offset <= head.offset {
                return ReceiveOutcome::Ignored;
            }
        } else if head.epoch.is_none() {
            let previous = self.observed_epoch.replace(notification.epoch);
            self.may_have_missed_epoch |= previous.is_some_and(|previous| previous != notification.epoch);
        }
        self.keep_ahead(notification);
        ReceiveOutcome::OutOfSequence
    }

    /// Keeps a notification beyond a hole. A newer one that does not follow the kept ones
    /// replaces them: a fill will read the messages before it.
    fn keep_ahead(&mut self, notification: MessageNotification) {
        let before = Position { epoch: Some(notification.epoch), offset: notification.offset - 1 };
        if self.ahead.head.epoch == before.epoch && before.offset < self.ahead.head.offset {
            return;
        }
        if self.ahead.head != before {
            self.ahead = Segment::at(before);
        }
        self.ahead.push(notification.message, self.limits);
    }

    /// Begins a fill, and returns the position to read from. Every notification received until now
    /// is in the page that is read next, or is of a past epoch.
    pub(super) fn begin_fill(&mut self) -> Position {
        self.ahead_at_fill = self.ahead.head;
        self.segment.head
    }

    /// Applies the page read by a fill. Redis decides: notifications that disagree are discarded.
    /// Returns true if the ring is complete, false if notifications received during the fill
    /// require another one.
    pub(super) fn fill(&mut self, page: &ChannelPage) -> bool {
        let now = page.state.head;
        let none_since_begin = self.ahead.head == self.ahead_at_fill;
        if now.epoch != self.segment.head.epoch {
            let had_epoch = self.segment.head.epoch.is_some();
            let first_epoch = !had_epoch && self.observed_epoch == now.epoch && !self.may_have_missed_epoch;
            self.begin_epoch(now.epoch, !first_epoch);
            self.observed_epoch = self.ahead.head.epoch.filter(|_| now.epoch.is_none() && !none_since_begin);
        } else if self.observed_epoch.is_some() && none_since_begin {
            self.begin_epoch(None, true); // the observed epoch has ended already
        }
        let mut complete = self.merge_ahead();
        if now.offset > self.segment.head.offset {
            self.append_page(page);
            complete = self.merge_ahead();
        }
        if !complete && none_since_begin {
            self.ahead = Segment::default(); // of a past epoch
            complete = true;
        }
        complete
    }

    /// Starts the ring at the head that Redis reports right after the subscription was confirmed.
    /// Returns the same as [`fill`](Self::fill).
    pub(super) fn start_at(&mut self, head: Position) -> bool {
        if head.epoch.is_some() {
            let other = self.observed_epoch.is_some_and(|observed| head.epoch != Some(observed));
            self.begin_epoch(head.epoch, other || self.may_have_missed_epoch);
            self.segment = Segment::at(head);
        }
        self.merge_ahead()
    }

    /// Begins an epoch, or a time without one.
    fn begin_epoch(&mut self, epoch: Option<ChannelEpoch>, lost: bool) {
        self.losses += u64::from(lost);
        self.segment = Segment::at(Position::beginning(epoch));
        self.observed_epoch = None;
        self.may_have_missed_epoch = false;
    }

    /// Appends a page that reaches further than the ring.
    fn append_page(&mut self, page: &ChannelPage) {
        if page.last() < page.state.head.offset {
            // More than one page is missing: subscribers that need it read it from Redis.
            self.segment = Segment::at(page.state.head);
            return;
        }
        if page.first > self.segment.head.offset + 1 {
            self.segment = Segment::at(Position { offset: page.first - 1, ..page.state.head });
        }
        let known = usize::try_from(self.segment.head.offset + 1 - page.first).unwrap_or_default();
        for message in page.messages.iter().skip(known) {
            self.segment.push(message.clone(), self.limits);
        }
    }

    /// Appends the messages in `ahead` if they follow. Returns true if none are left.
    fn merge_ahead(&mut self) -> bool {
        if self.ahead.head.epoch.is_none() {
            return true;
        }
        if self.ahead.head.epoch != self.segment.head.epoch || self.ahead.first() > self.segment.head.offset + 1 {
            return false;
        }
        let ahead = std::mem::take(&mut self.ahead);
        let known = usize::try_from(self.segment.head.offset + 1 - ahead.first()).unwrap_or_default();
        for message in ahead.messages.into_iter().skip(known) {
            self.segment.push(message, self.limits);
        }
        true
    }

    /// Records that notifications may have been missed. In an epoch, a ring detects the missing
    /// offsets; without one, it cannot detect an epoch that began and ended.
    pub(super) fn on_disconnect(&mut self) {
        self.may_have_missed_epoch |= self.segment.head.epoch.is_none();
    }

    /// Drops the messages to free memory; the head stays known.
    pub(super) fn evict(&mut self) {
        self.segment.clear();
        self.ahead.clear();
    }

    /// Reads the messages behind a position, at most one frame.
    ///
    /// A subscriber without an epoch, whose loss count equals the ring's, reads the first epoch
    /// from its first message on: nothing can have been lost before it.
    pub(super) fn read(&self, after: Position, losses: u64) -> RingRead {
        let Segment { head, messages, .. } = &self.segment;
        let continues = match after.epoch {
            Some(epoch) => head.epoch == Some(epoch),
            None => losses == self.losses && (head.epoch.is_none() || self.segment.first() == 1),
        };
        if !continues {
            return RingRead::Miss;
        }
        if after.offset >= head.offset {
            return RingRead::Empty;
        }
        let Ok(skip) = usize::try_from(after.offset + 1 - self.segment.first()) else {
            return RingRead::Miss;
        };
        let mut bytes = 0;
        let fits = |message: &&Bytes| {
            bytes += message.len();
            bytes <= PAGE_BYTES
        };
        let mut frame: Vec<Bytes> = messages.range(skip..).take(PAGE_MESSAGES).take_while(fits).cloned().collect();
        if frame.is_empty() {
            frame.extend(messages.get(skip).cloned()); // a single message may exceed the frame size
        }
        let more = after.offset + count(frame.len()) < head.offset;
        RingRead::Messages { epoch: head.epoch, messages: frame, more }
    }
}

#[cfg(test)]
mod tests;
