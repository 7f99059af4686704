//! Fills rings that have missed something, and finds those that have not noticed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::feed::Feed;
use super::{Hub, lock};
use crate::channels::{CHANNELS_MAX, Error};
use crate::model::{ChannelName, Position};

/// The most rings that are filled at a time: half of all reads, so that subscribers go on.
const FILLS_MAX: usize = 32;
/// How long a fill that failed waits before it is tried again: as long as Redis may take to be found again.
const PAUSE: Duration = Duration::from_millis(200);

/// The feeds that have to be filled, each once.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    due: Mutex<VecDeque<Arc<Feed>>>,
    news: Notify,
}

impl Repairs {
    /// Adds a feed that asked for it, as it does once until it is filled: there are never more than there are feeds.
    pub(super) fn add(&self, feed: Arc<Feed>) {
        lock(&self.due).push_back(feed);
        self.news.notify_one();
    }

    /// The next feed. Only one may wait.
    async fn next(&self) -> Arc<Feed> {
        loop {
            if let Some(feed) = lock(&self.due).pop_front() {
                return feed;
            }
            self.news.notified().await;
        }
    }
}

impl Hub {
    /// Fills the rings that have missed something, as soon as they know; runs for ever.
    pub async fn repair(&self) {
        let due = stream::unfold((), async |()| Some((self.repairs.next().await, ())));
        due.for_each_concurrent(FILLS_MAX, async |feed| self.fill(feed).await).await;
    }

    /// Compares every ring with where Redis says that its channel stands; those that are behind, or in another epoch,
    /// are filled.
    ///
    /// # Errors
    /// [`Error`]; some were compared.
    pub async fn compare(&self) -> Result<(), Error> {
        for channels in self.directory.live().chunks(CHANNELS_MAX) {
            for (channel, head) in self.heads(channels).await? {
                if let Some(feed) = self.directory.get(channel.as_str()) {
                    self.see_to(&feed, feed.compare(head));
                }
            }
        }
        Ok(())
    }

    /// Where channels stand.
    pub(super) async fn heads<'a>(
        &self,
        channels: &'a [ChannelName],
    ) -> Result<impl Iterator<Item = (&'a ChannelName, Position)> + use<'a>, Error> {
        Ok(channels.iter().zip(self.channels.heads(channels).await?))
    }

    async fn fill(&self, feed: Arc<Feed>) {
        while let Some(from) = feed.begin_fill() {
            self.numbers.fills.increment(1);
            match self.reads.read(&feed.channel, from).await {
                Ok(page) if feed.fill(&page) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(channel = %feed.channel, %error, "could not be filled yet");
                    sleep(PAUSE).await;
                    return self.repairs.add(feed);
                }
            }
        }
    }
}
