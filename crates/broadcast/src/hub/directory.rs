//! The feeds of this instance, by channel.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::Notify;

use super::budget::Budget;
use super::feed::Feed;
use super::ring::RingLimits;
use super::seat::Seat;
use crate::model::ChannelName;

/// The most channels that are heard though nobody wants them: whoever asks for one name after the other must not fill
/// the memory.
const IDLE_MAX: usize = 10_000;

/// The feeds of this instance, by channel.
#[derive(Debug)]
pub(super) struct Directory {
    limits: RingLimits,
    budget: Arc<Budget>,
    table: RwLock<Table>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Table {
    feeds: HashMap<ChannelName, Arc<Feed>>,
    /// Those that nobody has subscribed yet.
    joining: HashSet<ChannelName>,
}

impl Directory {
    pub(super) fn new(limits: RingLimits, budget: Arc<Budget>) -> Self {
        Self { limits, budget, table: RwLock::default(), wanted: Notify::new() }
    }

    /// Sits down at a channel, whose feed is made if it is absent. Returns the feed, the place, and what its ring
    /// counts as losses.
    pub(super) fn sit(&self, channel: &ChannelName, seat: Arc<Seat>) -> (Arc<Feed>, usize, u64) {
        let mut table = self.write();
        let feed = if let Some(feed) = table.feeds.get(channel) {
            Arc::clone(feed)
        } else {
            let feed = Feed::new(channel.clone(), self.limits, Arc::clone(&self.budget));
            table.feeds.insert(channel.clone(), Arc::clone(&feed));
            table.joining.insert(channel.clone());
            self.wanted.notify_one();
            feed
        };
        // While the table is locked: a feed with a seat does not leave.
        let (place, losses) = feed.sit(seat);
        (feed, place, losses)
    }

    /// The feed of a channel.
    pub(super) fn get(&self, channel: &str) -> Option<Arc<Feed>> {
        self.read().feeds.get(channel).cloned()
    }

    /// The channels that nobody has subscribed yet; whoever takes them does.
    pub(super) fn take_joining(&self) -> Vec<ChannelName> {
        let mut table = self.write();
        table.joining.drain().collect()
    }

    /// All channels, none of which is subscribed: a session begins.
    pub(super) fn take_all(&self) -> Vec<ChannelName> {
        let mut table = self.write();
        table.joining.clear();
        table.feeds.keys().cloned().collect()
    }

    /// Waits until a channel is wanted that nobody has subscribed yet. Only one may wait.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Removes the feeds where nobody has sat for `linger`, or at all if there are too many, and returns their
    /// channels.
    pub(super) fn take_idle(&self, linger: Duration) -> Vec<ChannelName> {
        let mut idle: Vec<_> =
            self.read().feeds.values().filter(|feed| feed.is_idle(Duration::ZERO)).cloned().collect();
        let linger = if idle.len() > IDLE_MAX { Duration::ZERO } else { linger };
        idle.retain(|feed| feed.is_idle(linger));
        if idle.is_empty() {
            return Vec::new();
        }
        let mut table = self.write();
        let mut left = Vec::new();
        for feed in idle {
            if feed.leave(linger) {
                table.feeds.remove(&feed.channel);
                table.joining.remove(&feed.channel);
                left.push(feed.channel.clone());
            }
        }
        left
    }

    /// The channels that are heard for sure.
    pub(super) fn live(&self) -> Vec<ChannelName> {
        self.read().feeds.values().filter(|feed| feed.is_live()).map(|feed| feed.channel.clone()).collect()
    }

    /// Says that something may not have been heard, on any channel.
    pub(super) fn was_deaf(&self) {
        self.read().feeds.values().for_each(|feed| feed.was_deaf());
    }

    /// How many channels there are.
    pub(super) fn len(&self) -> usize {
        self.read().feeds.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::seat::Bell;
    use crate::model::Position;

    const NEVER: Duration = Duration::from_hours(1);

    fn directory() -> Directory {
        Directory::new(RingLimits { messages: 10, bytes: 1000 }, Arc::new(Budget::new(10_000)))
    }

    /// Sits down at a channel, lets it be heard, and stands up.
    fn visit(directory: &Directory, number: usize) {
        let bell = Arc::new(Bell::default());
        let (feed, place, _) = directory.sit(&ChannelName::new(number.to_string()), Seat::new(&bell, 0));
        feed.open(Position::default());
        feed.stand_up(place);
    }

    #[test]
    fn a_channel_that_nobody_wants_lingers_and_then_leaves() {
        let directory = directory();
        visit(&directory, 0);
        assert!(directory.take_idle(NEVER).is_empty());
        assert_eq!(directory.take_idle(Duration::ZERO), [ChannelName::new("0")]);
        assert_eq!(directory.len(), 0);
    }

    #[test]
    fn a_channel_that_somebody_wants_again_stays() {
        let directory = directory();
        visit(&directory, 0);
        let bell = Arc::new(Bell::default());
        let (feed, place, _) = directory.sit(&ChannelName::new("0"), Seat::new(&bell, 0));
        assert!(directory.take_idle(Duration::ZERO).is_empty());
        feed.stand_up(place);
        assert_eq!(directory.take_idle(Duration::ZERO).len(), 1);
    }

    #[test]
    fn too_many_channels_that_nobody_wants_leave_at_once() {
        let directory = directory();
        (0..IDLE_MAX).for_each(|number| visit(&directory, number));
        assert!(directory.take_idle(NEVER).is_empty());
        visit(&directory, IDLE_MAX);
        assert_eq!(directory.take_idle(NEVER).len(), IDLE_MAX + 1);
    }
}
