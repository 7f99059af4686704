//! The feeds of this instance, by channel name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::budget::RingBudget;
use super::feed::Feed;
use super::ready::ReadyFlag;
use super::ring::RingLimits;
use crate::model::ChannelName;

/// Most channels that stay subscribed without a subscriber. It bounds the memory when a client
/// requests one channel name after another.
const IDLE_MAX: usize = 10_000;

/// The feeds of this instance, by channel name.
#[derive(Debug)]
pub(super) struct FeedDirectory {
    limits: RingLimits,
    budget: Arc<RingBudget>,
    table: RwLock<FeedTable>,
    joining_added: Notify,
}

#[derive(Debug, Default)]
struct FeedTable {
    feeds: HashMap<ChannelName, Arc<Feed>>,
    /// Channels whose subscription in Redis has not been requested yet.
    joining: HashSet<ChannelName>,
}

impl FeedDirectory {
    /// Makes a directory without feeds, whose rings may hold `rings_bytes` together.
    pub(super) fn new(limits: RingLimits, rings_bytes: usize) -> Self {
        let budget = Arc::new(RingBudget::new(rings_bytes));
        Self { limits, budget, table: RwLock::default(), joining_added: Notify::new() }
    }

    /// Attaches a subscriber to a channel, whose feed is made if it is absent. Returns the feed,
    /// the subscriber's slot, and the loss count of the ring.
    pub(super) fn attach(&self, channel: &ChannelName, flag: Arc<ReadyFlag>) -> (Arc<Feed>, usize, u64) {
        let mut table = self.table.write();
        let feed = if let Some(feed) = table.feeds.get(channel) {
            Arc::clone(feed)
        } else {
            let feed = Feed::new(channel.clone(), self.limits, Arc::clone(&self.budget));
            table.feeds.insert(channel.clone(), Arc::clone(&feed));
            table.joining.insert(channel.clone());
            self.joining_added.notify_one();
            feed
        };
        // Under the table lock, so that the feed cannot close before it has the subscriber.
        let (slot, losses) = feed.attach(flag);
        (feed, slot, losses)
    }

    /// Returns the feed of a channel.
    pub(super) fn get(&self, channel: &str) -> Option<Arc<Feed>> {
        self.table.read().feeds.get(channel).cloned()
    }

    /// Takes the channels whose subscription has not been requested; the caller must request it.
    pub(super) fn take_joining(&self) -> Vec<ChannelName> {
        let mut table = self.table.write();
        table.joining.drain().collect()
    }

    /// Takes all channels, for a new pub/sub session, in which none is subscribed yet.
    pub(super) fn take_all(&self) -> Vec<ChannelName> {
        let mut table = self.table.write();
        table.joining.clear();
        table.feeds.keys().cloned().collect()
    }

    /// Waits until [`take_joining`](Self::take_joining) has a channel. Supports one waiter.
    pub(super) async fn wait_joining(&self) {
        self.joining_added.notified().await;
    }

    /// Removes the feeds that had no subscriber for `linger`, and returns their channels. With more
    /// than [`IDLE_MAX`] feeds without a subscriber, removes all of these.
    pub(super) fn take_idle(&self, linger: Duration) -> Vec<ChannelName> {
        let mut idle: Vec<_> =
            self.table.read().feeds.values().filter(|feed| feed.is_idle(Duration::ZERO)).cloned().collect();
        let linger = if idle.len() > IDLE_MAX { Duration::ZERO } else { linger };
        idle.retain(|feed| feed.is_idle(linger));
        if idle.is_empty() {
            return Vec::new();
        }
        let mut table = self.table.write();
        let mut removed = Vec::new();
        for feed in idle {
            if feed.close(linger) {
                table.feeds.remove(&feed.channel);
                table.joining.remove(&feed.channel);
                removed.push(feed.channel.clone());
            }
        }
        removed
    }

    /// Returns the channels whose subscription is confirmed.
    pub(super) fn live(&self) -> Vec<ChannelName> {
        self.table.read().feeds.values().filter(|feed| feed.is_live()).map(|feed| feed.channel.clone()).collect()
    }

    /// Records in every feed that notifications may have been missed.
    pub(super) fn on_disconnect(&self) {
        self.table.read().feeds.values().for_each(|feed| feed.on_disconnect());
    }

    /// Returns the number of channels.
    pub(super) fn len(&self) -> usize {
        self.table.read().feeds.len()
    }

    /// Returns the bytes of messages in all rings.
    pub(super) fn rings_bytes(&self) -> usize {
        self.budget.held()
    }

    /// Evicts rings, the one published to least recently first, until all of them together are
    /// within their limit.
    pub(super) fn evict_excess(&self) {
        while let Some(channel) = self.budget.take_excess() {
            if let Some(feed) = self.get(channel.as_str()) {
                feed.evict();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::ready::ReadyQueue;
    use crate::model::{ChannelEpoch, ChannelPage, ChannelState, Position};
    use crate::wire::MessageNotification;

    const NEVER: Duration = Duration::from_hours(1);

    fn directory() -> FeedDirectory {
        FeedDirectory::new(RingLimits { messages: 10, bytes: 1000 }, 10_000)
    }

    /// Attaches to a channel, makes it live, and detaches.
    fn visit(directory: &FeedDirectory, number: usize) {
        let queue = Arc::new(ReadyQueue::default());
        let (feed, slot, _) = directory.attach(&ChannelName::new(number.to_string()), ReadyFlag::new(&queue, 0));
        feed.go_live(Position::default());
        feed.detach(slot);
    }

    #[test]
    fn an_idle_channel_lingers_before_it_is_removed() {
        let directory = directory();
        visit(&directory, 0);
        assert!(directory.take_idle(NEVER).is_empty());
        assert_eq!(directory.take_idle(Duration::ZERO), [ChannelName::new("0")]);
        assert_eq!(directory.len(), 0);
    }

    #[test]
    fn an_idle_channel_with_a_new_subscriber_stays() {
        let directory = directory();
        visit(&directory, 0);
        let queue = Arc::new(ReadyQueue::default());
        let (feed, slot, _) = directory.attach(&ChannelName::new("0"), ReadyFlag::new(&queue, 0));
        assert!(directory.take_idle(Duration::ZERO).is_empty());
        feed.detach(slot);
        assert_eq!(directory.take_idle(Duration::ZERO).len(), 1);
    }

    #[test]
    fn too_many_idle_channels_are_removed_at_once() {
        let directory = directory();
        (0..IDLE_MAX).for_each(|number| visit(&directory, number));
        assert!(directory.take_idle(NEVER).is_empty());
        visit(&directory, IDLE_MAX);
        assert_eq!(directory.take_idle(NEVER).len(), IDLE_MAX + 1);
    }

    /// Live feeds with a budget, and the newest offset of each.
    struct BudgetedFeeds {
        directory: FeedDirectory,
        epoch: ChannelEpoch,
        feeds: Vec<(Arc<Feed>, usize, i64)>,
    }

    impl BudgetedFeeds {
        fn new(count: usize, rings_bytes: usize) -> Self {
            let directory = FeedDirectory::new(RingLimits { messages: 10, bytes: 1000 }, rings_bytes);
            let (epoch, queue) = (ChannelEpoch::random(), Arc::new(ReadyQueue::default()));
            let feed = |number: usize| {
                let flag = ReadyFlag::new(&queue, number);
                let (feed, slot, _) = directory.attach(&ChannelName::new(number.to_string()), flag);
                feed.go_live(Position::beginning(Some(epoch)));
                (feed, slot, 0)
            };
            Self { feeds: (0..count).map(feed).collect(), epoch, directory }
        }

        /// Publishes 100 bytes to a feed.
        fn publish(&mut self, number: usize) {
            let (feed, _, offset) = &mut self.feeds[number];
            *offset += 1;
            let message = Bytes::from(vec![0; 100]);
            feed.receive(MessageNotification { epoch: self.epoch, offset: *offset, message });
            self.directory.evict_excess();
        }

        /// Detaches the subscriber of a feed, which then closes.
        fn close(&mut self, number: usize) {
            let (feed, slot, _) = &self.feeds[number];
            feed.detach(*slot);
            assert_eq!(self.directory.take_idle(Duration::ZERO), std::slice::from_ref(&feed.channel));
        }

        fn held(&self) -> Vec<usize> {
            self.feeds.iter().map(|(feed, ..)| feed.bytes()).collect()
        }
    }

    #[test]
    fn the_least_recently_published_ring_is_evicted_first() {
        let mut feeds = BudgetedFeeds::new(3, 500);
        for number in [0, 1, 2, 0, 1] {
            feeds.publish(number);
        }
        assert_eq!((feeds.held(), feeds.directory.rings_bytes()), (vec![200, 200, 100], 500));

        feeds.publish(1);
        assert_eq!((feeds.held(), feeds.directory.rings_bytes()), (vec![200, 300, 0], 500));
        feeds.publish(2);
        assert_eq!((feeds.held(), feeds.directory.rings_bytes()), (vec![0, 300, 100], 400));
    }

    #[test]
    fn a_closed_feed_releases_its_memory() {
        let mut feeds = BudgetedFeeds::new(2, 10_000);
        for number in [0, 0, 1] {
            feeds.publish(number);
        }
        feeds.close(0);
        assert_eq!(feeds.directory.rings_bytes(), 100);

        feeds.publish(0);
        assert_eq!(feeds.directory.rings_bytes(), 100, "a closed feed keeps no messages");
    }

    #[test]
    fn a_fill_that_ends_after_the_close_keeps_no_messages() {
        let mut feeds = BudgetedFeeds::new(1, 10_000);
        let feed = Arc::clone(&feeds.feeds[0].0);
        feed.begin_fill().unwrap();
        feeds.close(0);

        let head = Position { epoch: Some(feeds.epoch), offset: 1 };
        let state = ChannelState { head, oldest: 1, publish_time: None };
        let complete = feed.fill(&ChannelPage { state, first: 1, messages: vec![Bytes::from(vec![0; 100])] });

        assert!(complete, "a closed feed needs no other fill");
        assert_eq!((feed.bytes(), feeds.directory.rings_bytes()), (0, 0));
    }
}
