//! Reads of what the rings do not have: few at a time, and one for all who want the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::Semaphore;

use super::lock;
use crate::channels::{Channels, Error};
use crate::model::{ChannelName, Page, Position};

/// The most reads at a time: enough to keep the connections to Redis busy, few enough to leave room for publishes. More
/// wait, each stream for one of its own.
const READS_MAX: usize = 64;

/// What a read brings, for all who share it.
type Reading = BoxFuture<'static, Result<Arc<Page>, Arc<Error>>>;

/// A read that may be shared.
pub(super) type Read = Shared<Reading>;

type Key = (ChannelName, Position);

/// The reads under way.
#[derive(Debug)]
pub(super) struct Reads {
    channels: Arc<Channels>,
    permits: Semaphore,
    under_way: Mutex<HashMap<Key, WeakShared<Reading>>>,
}

impl Reads {
    pub(super) fn new(channels: Arc<Channels>) -> Arc<Self> {
        Arc::new(Self { channels, permits: Semaphore::new(READS_MAX), under_way: Mutex::default() })
    }

    /// Reads what follows a position; joins a read of the same that is under way. Its page may be a little older than
    /// the call: whoever read it first was at the same place.
    pub(super) fn join(self: &Arc<Self>, channel: &ChannelName, after: Position) -> Read {
        let key = (channel.clone(), after);
        let mut under_way = lock(&self.under_way);
        if let Some(read) = under_way.get(&key).and_then(WeakShared::upgrade) {
            return read;
        }
        let entry = Entry { reads: Arc::clone(self), key: key.clone() };
        let read = async move {
            let Entry { reads, key: (channel, after) } = &entry;
            reads.read(channel, *after).await.map(Arc::new).map_err(Arc::new)
        };
        let read = read.boxed().shared();
        // A read that was not polled to its end yet can always be referred to.
        under_way.extend(read.downgrade().map(|weak| (key, weak)));
        read
    }

    /// Reads what follows a position, as it is after the call.
    pub(super) async fn read(&self, channel: &ChannelName, after: Position) -> Result<Page, Error> {
        let _permit = self.permits.acquire().await; // never closed
        self.channels.read(channel, after).await
    }
}

/// A read in the list of those under way, for as long as it is.
struct Entry {
    reads: Arc<Reads>,
    key: Key,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.reads.under_way).remove(&self.key);
    }
}
