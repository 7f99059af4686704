//! One channel of this instance: its ring, and who sits at it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::budget::{Budget, Turn};
use super::cursor::Cursor;
use super::lock;
use super::ring::{Heard, Ring, RingLimits, Taken};
use super::seat::{Seat, Seats};
use crate::model::{ChannelName, Page, Position};
use crate::wire::Told;

/// What this instance hears of a channel. A channel without a feed is absent: nobody wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Wanted, and not heard yet for sure.
    Joining,
    /// Heard.
    Live,
    /// Not wanted any more: the subscription ends, and this feed with it. Whoever comes now gets a feed of its own.
    Leaving,
}

/// What a feed wants to be done after something happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Rest,
    /// Something is missing: it must be filled.
    Fill,
}

/// One channel of this instance.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) channel: ChannelName,
    budget: Arc<Budget>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    ring: Ring,
    seats: Seats,
    /// Whether a fill is due or under way: one at a time.
    filling: bool,
    /// Since when nobody sits here.
    idle: Option<Instant>,
    turn: Turn,
}

impl Feed {
    pub(super) fn new(channel: ChannelName, limits: RingLimits, budget: Arc<Budget>) -> Arc<Self> {
        let inner = Inner {
            state: State::Joining,
            ring: Ring::new(limits),
            seats: Seats::default(),
            filling: false,
            idle: Some(Instant::now()),
            turn: Turn::default(),
        };
        Arc::new(Self { channel, budget, inner: Mutex::new(inner) })
    }

    /// Sits down; returns the place, and what the ring counts as losses.
    pub(super) fn sit(&self, seat: Arc<Seat>) -> (usize, u64) {
        let mut inner = lock(&self.inner);
        inner.idle = None;
        if inner.state == State::Live {
            seat.ring();
        }
        (inner.seats.add(seat), inner.ring.losses())
    }

    /// Stands up.
    pub(super) fn stand_up(&self, place: usize) {
        let mut inner = lock(&self.inner);
        inner.seats.remove(place);
        if inner.seats.len() == 0 {
            inner.idle.get_or_insert_with(Instant::now);
        }
    }

    /// How many sit here.
    pub(super) fn seats(&self) -> usize {
        lock(&self.inner).seats.len()
    }

    /// The bytes that its ring holds.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        lock(&self.inner).ring.bytes()
    }

    /// Whether it is heard for sure.
    pub(super) fn is_live(&self) -> bool {
        lock(&self.inner).state == State::Live
    }

    /// Takes a message that was heard. Never blocks for long.
    pub(super) fn hear(self: &Arc<Self>, told: Told) -> Next {
        let next = self.change(|inner| match inner.hear(told) {
            Heard::Added => {
                inner.seats.ring();
                Next::Rest
            }
            Heard::Known => Next::Rest,
            Heard::Astray => inner.ask(),
        });
        self.budget.relieve();
        next
    }

    /// Says that something may not have been heard.
    pub(super) fn was_deaf(&self) {
        lock(&self.inner).ring.was_deaf();
    }

    /// Takes where Redis says that the channel stands, after it is heard for sure: the feed is live from now on. One
    /// that was live before learns whether it missed something.
    pub(super) fn open(self: &Arc<Self>, head: Position) -> Next {
        self.change(|inner| {
            if inner.state == State::Live {
                return inner.compare(head);
            }
            inner.state = State::Live;
            let whole = inner.ring.open(head);
            inner.seats.ring();
            if whole { Next::Rest } else { inner.ask() }
        })
    }

    /// Compares the ring with where Redis says that the channel stands.
    pub(super) fn compare(&self, head: Position) -> Next {
        lock(&self.inner).compare(head)
    }

    /// Asks for a fill, unless one is due.
    pub(super) fn ask(&self) -> Next {
        lock(&self.inner).ask()
    }

    /// Begins a fill: returns where to read from; `None` if nobody wants it any more.
    pub(super) fn begin_fill(self: &Arc<Self>) -> Option<Position> {
        let mut from = None;
        self.change(|inner| from = (inner.state == State::Live).then(|| inner.ring.begin_fill()));
        from
    }

    /// Takes what Redis has behind the place where the fill began. Returns whether the fill is done; else it goes on,
    /// with what was heard meanwhile.
    pub(super) fn fill(self: &Arc<Self>, page: &Page) -> bool {
        let done = self.change(|inner| {
            let whole = inner.ring.fill(page);
            inner.filling = !whole;
            inner.seats.ring();
            whole
        });
        self.budget.relieve();
        done
    }

    /// What the ring has behind a cursor; `None` while the channel is not heard for sure.
    pub(super) fn take(&self, cursor: &Cursor) -> Option<Taken> {
        let inner = lock(&self.inner);
        if inner.state != State::Live {
            return None;
        }
        Some(inner.ring.take(cursor.position, cursor.losses))
    }

    /// Where the ring is, and what it counts as losses.
    pub(super) fn present(&self) -> (Position, u64) {
        let inner = lock(&self.inner);
        (inner.ring.head(), inner.ring.losses())
    }

    /// Whether nobody has sat here for `linger`.
    pub(super) fn is_idle(&self, linger: Duration) -> bool {
        lock(&self.inner).is_idle(linger)
    }

    /// Leaves, if nobody has sat here for `linger`. The ring is gone then.
    pub(super) fn leave(self: &Arc<Self>, linger: Duration) -> bool {
        self.change(|inner| {
            let leaves = inner.is_idle(linger);
            if leaves {
                inner.state = State::Leaving;
                inner.ring.shed();
            }
            leaves
        })
    }

    /// Forgets the messages for the sake of others.
    pub(super) fn shed(self: &Arc<Self>) {
        self.change(|inner| inner.ring.shed());
    }

    /// Changes the feed, and keeps the books of the memory it uses.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = lock(&self.inner);
        let (bytes, head) = (inner.ring.bytes(), inner.ring.head());
        let changed = change(&mut inner);
        let (now, grew) = (inner.ring.bytes(), inner.ring.head() != head);
        if now == 0 {
            self.budget.forget(&mut inner.turn);
        } else if grew {
            self.budget.touch(&mut inner.turn, self);
        }
        self.budget.count(bytes, now);
        changed
    }
}

impl Inner {
    /// Takes a message that was heard; one that comes after the end changes nothing.
    fn hear(&mut self, told: Told) -> Heard {
        if self.state == State::Leaving { Heard::Known } else { self.ring.hear(told) }
    }

    /// Asks for a fill, unless one is due.
    fn ask(&mut self) -> Next {
        // What is not heard for sure yet will begin where Redis says; what is left needs nothing.
        if self.state != State::Live || std::mem::replace(&mut self.filling, true) {
            return Next::Rest;
        }
        Next::Fill
    }

    /// One that was never heard has no ring worth to be kept.
    fn is_idle(&self, linger: Duration) -> bool {
        self.idle.is_some_and(|since| since.elapsed() >= linger || self.state == State::Joining)
    }

    fn compare(&mut self, head: Position) -> Next {
        let ring = self.ring.head();
        if ring.epoch == head.epoch && ring.offset >= head.offset {
            return Next::Rest;
        }
        self.ask()
    }
}
