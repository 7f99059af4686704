//! Fills rings that miss messages, and detects rings that have not noticed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::feed::Feed;
use super::{Error, Hub};
use crate::channels::{self, CHANNELS_MAX};
use crate::model::{ChannelName, Position};

/// Most rings that are filled at a time: half of all reads, so that subscribers can read, too.
const FILLS_MAX: usize = 32;
/// Pause before a failed fill is retried: about the time to reconnect to Redis.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The feeds that must be filled, each once.
#[derive(Debug, Default)]
pub(super) struct RepairQueue {
    due: Mutex<VecDeque<Arc<Feed>>>,
    added: Notify,
}

impl RepairQueue {
    /// Adds a feed. A feed requests one fill until it is filled, so the queue is bounded by the
    /// number of feeds.
    pub(super) fn add(&self, feed: Arc<Feed>) {
        self.due.lock().push_back(feed);
        self.added.notify_one();
    }

    /// Returns the next feed, and waits for one. Supports one waiter.
    async fn next(&self) -> Arc<Feed> {
        loop {
            if let Some(feed) = self.due.lock().pop_front() {
                return feed;
            }
            self.added.notified().await;
        }
    }
}

impl Hub {
    /// Fills rings that miss messages as soon as they request it; runs until it is dropped.
    pub async fn repair_rings(&self) {
        let due = stream::unfold((), async |()| Some((self.repairs.next().await, ())));
        due.for_each_concurrent(FILLS_MAX, async |feed| self.fill(feed).await).await;
    }

    /// Compares the head of every ring with Redis; a ring that is behind, or in another epoch, is
    /// queued for a fill.
    ///
    /// # Errors
    /// [`Error::Channel`] if Redis cannot be read; some rings may have been compared.
    pub async fn compare_with_redis(&self) -> Result<(), Error> {
        for channels in self.directory.live().chunks(CHANNELS_MAX) {
            for (channel, head) in self.heads(channels).await? {
                if let Some(feed) = self.directory.get(channel.as_str()) {
                    self.perform(&feed, feed.compare(head));
                }
            }
        }
        Ok(())
    }

    /// Reads the heads of channels from Redis.
    pub(super) async fn heads<'a>(
        &self,
        channels: &'a [ChannelName],
    ) -> Result<impl Iterator<Item = (&'a ChannelName, Position)> + use<'a>, channels::Error> {
        Ok(channels.iter().zip(self.channels.heads(channels).await?))
    }

    async fn fill(&self, feed: Arc<Feed>) {
        while let Some(from) = feed.begin_fill() {
            self.metrics.fills.increment(1);
            match self.reads.read(&feed.channel, from).await {
                Ok(page) => {
                    let complete = feed.fill(&page);
                    self.directory.evict_excess();
                    if complete {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(channel = %feed.channel, %error, "cannot fill the ring yet");
                    sleep(RETRY_DELAY).await;
                    return self.repairs.add(feed);
                }
            }
        }
    }
}
