//! The memory of all rings together.
//!
//! When it is used up, the ring that was published to least recently is emptied: its subscribers have what it held, or
//! read it from Redis.

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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::hub::ring::RingLimits;
    use crate::model::{ChannelName, Epoch, Position};
    use crate::wire::Told;

    struct Feeds {
        budget: Arc<Budget>,
        feeds: Vec<(Arc<Feed>, Epoch, i64)>,
    }

    impl Feeds {
        fn new(count: usize, max: usize) -> Self {
            let budget = Arc::new(Budget::new(max));
            let feed = |number: usize| {
                let limits = RingLimits { messages: 10, bytes: 1000 };
                let feed = Feed::new(ChannelName::new(number.to_string()), limits, Arc::clone(&budget));
                let epoch = Epoch::random();
                feed.open(Position::beginning(Some(epoch)));
                (feed, epoch, 0)
            };
            Self { feeds: (0..count).map(feed).collect(), budget }
        }

        /// Publishes 100 bytes to a feed.
        fn publish(&mut self, number: usize) {
            let (feed, epoch, offset) = &mut self.feeds[number];
            *offset += 1;
            feed.hear(Told { epoch: *epoch, offset: *offset, message: Bytes::from(vec![0; 100]) });
        }

        fn held(&self) -> Vec<usize> {
            self.feeds.iter().map(|(feed, ..)| feed.bytes()).collect()
        }
    }

    #[test]
    fn the_ring_that_was_published_to_least_recently_is_emptied_first() {
        let mut feeds = Feeds::new(3, 500);
        for number in [0, 1, 2, 0, 1] {
            feeds.publish(number);
        }
        assert_eq!((feeds.held(), feeds.budget.held()), (vec![200, 200, 100], 500));

        feeds.publish(1);
        assert_eq!((feeds.held(), feeds.budget.held()), (vec![200, 300, 0], 500));
        feeds.publish(2);
        assert_eq!((feeds.held(), feeds.budget.held()), (vec![0, 300, 100], 400));
    }

    #[test]
    fn a_feed_that_leaves_gives_back_what_it_held() {
        let mut feeds = Feeds::new(2, 10_000);
        for number in [0, 0, 1] {
            feeds.publish(number);
        }
        assert!(feeds.feeds[0].0.leave(std::time::Duration::ZERO));
        assert_eq!(feeds.budget.held(), 100);

        feeds.publish(0);
        assert_eq!(feeds.budget.held(), 100, "what comes after the end is not kept");
    }
}
