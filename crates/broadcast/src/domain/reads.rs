//! Reads from Redis of messages that the rings do not hold: bounded, and shared by streams at the
//! same position.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::channels::{ChannelStore, Error};
use crate::model::{ChannelName, ChannelPage, Position};

/// Most concurrent reads: enough to keep the connections to Redis busy, few enough to leave room
/// for publishes. Further reads wait, at most one per stream.
const READS_MAX: usize = 64;

/// A read whose result all its waiters share.
type PageFuture = BoxFuture<'static, Result<Arc<ChannelPage>, Arc<Error>>>;

/// A handle to a read that may be shared with other streams.
pub(super) type PageRead = Shared<PageFuture>;

type ReadKey = (ChannelName, Position);

/// The reads in flight.
#[derive(Debug)]
pub(super) struct SharedReads {
    channels: Arc<ChannelStore>,
    permits: Semaphore,
    in_flight: Mutex<HashMap<ReadKey, WeakShared<PageFuture>>>,
}

impl SharedReads {
    pub(super) fn new(channels: Arc<ChannelStore>) -> Arc<Self> {
        Arc::new(Self { channels, permits: Semaphore::new(READS_MAX), in_flight: Mutex::default() })
    }

    /// Reads the messages behind a position, or joins a read in flight from the same position. The
    /// page may then be slightly older than this call.
    pub(super) fn join_or_start(self: &Arc<Self>, channel: &ChannelName, after: Position) -> PageRead {
        let key = (channel.clone(), after);
        let mut in_flight = self.in_flight.lock();
        if let Some(read) = in_flight.get(&key).and_then(WeakShared::upgrade) {
            return read;
        }
        let entry = InFlightRead { reads: Arc::clone(self), key: key.clone() };
        let read = async move {
            let InFlightRead { reads, key: (channel, after) } = &entry;
            reads.read(channel, *after).await.map(Arc::new).map_err(Arc::new)
        };
        let read = read.boxed().shared();
        // `downgrade` returns `None` only for a read that has completed, which this one has not.
        in_flight.extend(read.downgrade().map(|weak| (key, weak)));
        read
    }

    /// Reads the messages behind a position, as they are after the call.
    pub(super) async fn read(&self, channel: &ChannelName, after: Position) -> Result<ChannelPage, Error> {
        let _permit = self.permits.acquire().await; // never closed
        self.channels.read(channel, after).await
    }
}

/// Keeps a read in the map of reads in flight until the read completes or is dropped.
struct InFlightRead {
    reads: Arc<SharedReads>,
    key: ReadKey,
}

impl Drop for InFlightRead {
    fn drop(&mut self) {
        self.reads.in_flight.lock().remove(&self.key);
    }
}
