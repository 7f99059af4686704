//! The memory limit of all rings together.
//!
//! When the limit is exceeded, the ring that was published to least recently is evicted. Its
//! subscribers have its messages already, or read them from Redis.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::model::ChannelName;

/// A ring's key in the LRU order; `None` while the ring is empty.
#[derive(Debug, Default)]
pub(super) struct LruKey(Option<u64>);

/// The memory limit of all rings, and the order in which rings are evicted.
#[derive(Debug)]
pub(super) struct RingBudget {
    max: usize,
    held: AtomicUsize,
    order: Mutex<LruOrder>,
}

/// The channels by the time of their last publish, oldest first.
#[derive(Debug, Default)]
struct LruOrder {
    next: u64,
    channels: BTreeMap<u64, ChannelName>,
}

impl RingBudget {
    /// Makes a budget of `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { max, held: AtomicUsize::new(0), order: Mutex::default() }
    }

    /// Returns the bytes held by all rings.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Records that the size of a ring changed from `before` to `now` bytes.
    pub(super) fn record_resize(&self, before: usize, now: usize) {
        // A negative difference wraps, and so does the sum: the result is right.
        self.held.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Moves a channel to the end of the LRU order, after a publish.
    pub(super) fn touch(&self, key: &mut LruKey, channel: &ChannelName) {
        let mut order = self.order.lock();
        if key.0.is_some_and(|key| key + 1 == order.next) {
            return; // still the latest
        }
        let channel = key.0.and_then(|key| order.channels.remove(&key)).unwrap_or_else(|| channel.clone());
        let next = order.next;
        order.channels.insert(next, channel);
        order.next += 1;
        *key = LruKey(Some(next));
    }

    /// Removes a channel with an empty ring from the LRU order.
    pub(super) fn remove(&self, key: &mut LruKey) {
        if let Some(key) = key.0.take() {
            self.order.lock().channels.remove(&key);
        }
    }

    /// Takes the channel whose ring is to be evicted next; `None` if the total is within the limit.
    pub(super) fn take_excess(&self) -> Option<ChannelName> {
        if self.held() <= self.max {
            return None;
        }
        self.order.lock().channels.pop_first().map(|(_, channel)| channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_published_to_least_recently_is_taken_first() {
        let budget = RingBudget::new(0);
        let names = ["0", "1", "2"].map(ChannelName::new);
        let mut keys = [LruKey::default(), LruKey::default(), LruKey::default()];
        for number in [0, 1, 2, 0, 0] {
            budget.touch(&mut keys[number], &names[number]);
        }

        assert_eq!(budget.take_excess(), None, "within the limit");
        budget.record_resize(0, 1);
        budget.remove(&mut keys[2]);
        let taken: Vec<_> = std::iter::from_fn(|| budget.take_excess()).collect();
        assert_eq!(taken, [names[1].clone(), names[0].clone()]);
    }
}
