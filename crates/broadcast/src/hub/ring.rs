//! The newest messages of a channel, in memory, encoded: what subscribers are served from.
//!
//! A ring takes only the message that follows its newest; what else is heard shows that something is missing, or comes
//! late, and Redis says which. So a ring never has a hole, and never goes back to an epoch that is over.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::channels::{PAGE_BYTES, PAGE_MESSAGES};
use crate::model::{Epoch, Page, Position, count};
use crate::wire::Told;

/// How much a ring holds.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// The most messages.
    pub messages: usize,
    /// The most bytes of them; the newest stays, however long.
    pub bytes: usize,
}

/// Messages of one epoch that follow each other, up to a head.
#[derive(Clone, Debug, Default)]
struct Run {
    head: Position,
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Run {
    fn at(head: Position) -> Self {
        Self { head, ..Self::default() }
    }

    /// The offset of the oldest message, one above the head if there is none.
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

/// What a ring did with a message that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is the newest now.
    Added,
    /// It was there, or is over: nothing to do.
    Known,
    /// Something is missing before it, or it is of another epoch: Redis must say.
    Astray,
}

/// What a ring has for a reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// These follow the position; the boolean says that there are more.
    Messages {
        /// The numbering that they are of.
        epoch: Option<Epoch>,
        /// At most a frame of them.
        messages: Vec<Bytes>,
        /// Whether there are more.
        more: bool,
    },
    /// Nothing follows the position yet.
    Nothing,
    /// The reader is somewhere else: it must read from Redis.
    Behind,
}

/// The newest messages of a channel.
#[derive(Debug)]
pub(super) struct Ring {
    limits: RingLimits,
    run: Run,
    /// What was heard behind a hole that is being filled, newest last, so that a ring of a busy channel can catch up.
    early: Run,
    /// How far that was when Redis was asked last.
    asked: Position,
    /// The epoch of what was heard while the channel has none.
    witness: Option<Epoch>,
    /// Whether an epoch may have come and gone while the channel has none.
    doubt: bool,
    /// How often an epoch ended, or may have come and gone.
    losses: u64,
}

impl Ring {
    /// An empty ring of a channel that has no epoch yet, as far as is known.
    pub(super) fn new(limits: RingLimits) -> Self {
        Self {
            limits,
            run: Run::default(),
            early: Run::default(),
            asked: Position::default(),
            witness: None,
            doubt: false,
            losses: 0,
        }
    }

    /// The newest message.
    pub(super) fn head(&self) -> Position {
        self.run.head
    }

    /// The bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.run.bytes + self.early.bytes
    }

    /// How often messages may have been lost with Redis' data, as far as is known here.
    pub(super) fn losses(&self) -> u64 {
        self.losses
    }

    /// Takes a message that was heard.
    pub(super) fn hear(&mut self, told: Told) -> Heard {
        let head = self.run.head;
        if head.epoch == Some(told.epoch) {
            if told.offset == head.offset + 1 {
                self.run.push(told.message, self.limits);
                return Heard::Added;
            }
            if told.offset <= head.offset {
                return Heard::Known;
            }
        } else if head.epoch.is_none() {
            let other = self.witness.replace(told.epoch);
            self.doubt |= other.is_some_and(|other| other != told.epoch);
        }
        self.keep(told);
        Heard::Astray
    }

    /// Keeps what follows what was kept; anything newer begins anew: what came before it will be read.
    fn keep(&mut self, told: Told) {
        let before = Position { epoch: Some(told.epoch), offset: told.offset - 1 };
        if self.early.head.epoch == before.epoch && before.offset < self.early.head.offset {
            return;
        }
        if self.early.head != before {
            self.early = Run::at(before);
        }
        self.early.push(told.message, self.limits);
    }

    /// Where to read from, to learn what is missing. What was heard until now is in that page, or is over.
    pub(super) fn begin_fill(&mut self) -> Position {
        self.asked = self.early.head;
        self.run.head
    }

    /// Takes what Redis has behind the place where the fill began; Redis is right, whatever was heard. Returns whether
    /// the ring has all that was heard meanwhile: if not, another fill is due.
    pub(super) fn fill(&mut self, page: &Page) -> bool {
        let now = page.stand.head;
        let all_was_heard_before = self.early.head == self.asked;
        if now.epoch != self.run.head.epoch {
            let first = self.run.head.epoch.is_none() && self.witness == now.epoch && !self.doubt;
            self.begin(now.epoch, !first);
            self.witness = self.early.head.epoch.filter(|_| now.epoch.is_none() && !all_was_heard_before);
        } else if self.witness.is_some() && all_was_heard_before {
            self.begin(None, true); // there was an epoch, and it is over
        }
        let mut whole = self.absorb();
        if now.offset > self.run.head.offset {
            self.take_page(page);
            whole = self.absorb();
        }
        if !whole && all_was_heard_before {
            self.early = Run::default(); // it is over
            whole = true;
        }
        whole
    }

    /// Takes where Redis says that the channel stands, right after it was subscribed: nothing is missing before that.
    /// Returns like [`fill`](Self::fill).
    pub(super) fn open(&mut self, head: Position) -> bool {
        if head.epoch.is_some() {
            let other = self.witness.is_some_and(|witness| head.epoch != Some(witness));
            self.begin(head.epoch, other || self.doubt);
            self.run = Run::at(head);
        }
        self.absorb()
    }

    /// Begins an epoch, or the time without one.
    fn begin(&mut self, epoch: Option<Epoch>, lost: bool) {
        self.losses += u64::from(lost);
        self.run = Run::at(Position::beginning(epoch));
        self.witness = None;
        self.doubt = false;
    }

    /// Takes a page that goes further than the ring.
    fn take_page(&mut self, page: &Page) {
        if page.last() < page.stand.head.offset {
            // More is missing than one page: whoever wants it reads for himself.
            self.run = Run::at(page.stand.head);
            return;
        }
        if page.first > self.run.head.offset + 1 {
            self.run = Run::at(Position { offset: page.first - 1, ..page.stand.head });
        }
        let known = usize::try_from(self.run.head.offset + 1 - page.first).unwrap_or_default();
        for message in page.messages.iter().skip(known) {
            self.run.push(message.clone(), self.limits);
        }
    }

    /// Takes what was heard early, if it follows. Returns whether nothing is left.
    fn absorb(&mut self) -> bool {
        if self.early.head.epoch.is_none() {
            return true;
        }
        if self.early.head.epoch != self.run.head.epoch || self.early.first() > self.run.head.offset + 1 {
            return false;
        }
        let early = std::mem::take(&mut self.early);
        let known = usize::try_from(self.run.head.offset + 1 - early.first()).unwrap_or_default();
        for message in early.messages.into_iter().skip(known) {
            self.run.push(message, self.limits);
        }
        true
    }

    /// Says that something may not have been heard. A ring in an epoch finds out what; one without can not.
    pub(super) fn was_deaf(&mut self) {
        self.doubt |= self.run.head.epoch.is_none();
    }

    /// Forgets the messages, for the sake of others; where the channel stands stays known.
    pub(super) fn shed(&mut self) {
        self.run.clear();
        self.early.clear();
    }

    /// What follows a position, at most a frame of it.
    ///
    /// Whoever has seen no epoch yet, and knows of as many `losses` as the ring, takes the first epoch from its first
    /// message on: nothing can have been lost before it.
    pub(super) fn take(&self, after: Position, losses: u64) -> Taken {
        let Run { head, messages, .. } = &self.run;
        let continues = match after.epoch {
            Some(epoch) => head.epoch == Some(epoch),
            None => losses == self.losses && (head.epoch.is_none() || self.run.first() == 1),
        };
        if !continues {
            return Taken::Behind;
        }
        if after.offset >= head.offset {
            return Taken::Nothing;
        }
        let Ok(skip) = usize::try_from(after.offset + 1 - self.run.first()) else {
            return Taken::Behind;
        };
        let mut bytes = 0;
        let fits = |message: &&Bytes| {
            bytes += message.len();
            bytes <= PAGE_BYTES
        };
        let mut taken: Vec<Bytes> = messages.range(skip..).take(PAGE_MESSAGES).take_while(fits).cloned().collect();
        if taken.is_empty() {
            taken.extend(messages.get(skip).cloned()); // one alone may be larger than a frame
        }
        let more = after.offset + count(taken.len()) < head.offset;
        Taken::Messages { epoch: head.epoch, messages: taken, more }
    }
}

#[cfg(test)]
mod tests;
