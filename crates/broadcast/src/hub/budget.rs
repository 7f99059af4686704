//! The memory of all rings together.
//!
//! When it is used up, the ring that was published to least recently is emptied: its subscribers have what it held, or read it
//! from Redis.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::feed::Feed;
use super::lock;

/// The place of a feed in the order in which the feeds were published to last; none while its ring is empty.
#[derive(Debug, Default)]
pub(super) struct Turn(Option<u64>);

/// The memory of all rings together.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    held: AtomicUsize,
    order: Mutex<Order>,
}

#[derive(Debug, Default)]
struct Order {
    next: u64,
    feeds: BTreeMap<u64, Weak<Feed>>,
}

impl Budget {
    /// At most so many bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { max, held: AtomicUsize::new(0), order: Mutex::default() }
    }

    /// The bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Says that a ring held so many bytes before, and holds so many now.
    pub(super) fn count(&self, before: usize, now: usize) {
        // A difference below zero wraps, and so does the sum: it comes out right.
        self.held.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Says that a feed was published to just now.
    pub(super) fn touch(&self, turn: &mut Turn, feed: &Arc<Feed>) {
        let mut order = lock(&self.order);
        if turn.0.is_some_and(|turn| turn + 1 == order.next) {
            return; // still the latest
        }
        let feed = turn.0.and_then(|turn| order.feeds.remove(&turn)).unwrap_or_else(|| Arc::downgrade(feed));
        let next = order.next;
        order.feeds.insert(next, feed);
        order.next += 1;
        *turn = Turn(Some(next));
    }

    /// Says that a feed holds nothing.
    pub(super) fn forget(&self, turn: &mut Turn) {
        if let Some(turn) = turn.0.take() {
            lock(&self.order).feeds.remove(&turn);
        }
    }

    /// Empties rings until the rest is within the limit. No feed may be locked by whoever calls it.
    pub(super) fn relieve(&self) {
        while self.held() > self.max {
            let Some((_, oldest)) = lock(&self.order).feeds.pop_first() else {
                return;
            };
            if let Some(feed) = oldest.upgrade() {
                feed.shed();
            }
        }
    }
}
