//! The connections to one instance: for each class of calls as many as its calls fill.
//!
//! HTTP/2 has one limit of concurrent calls per connection, and calls beyond it wait at the client.
//! On a shared connection, many calls that wait for locks would delay the renewals of the locks
//! that are held.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::Channel;

/// Calls on one connection, beyond which another one is opened: below the three quarters that a
/// service allows to long calls, if it allows 100 calls, the least that HTTP/2 recommends.
const CALLS_PER_CONNECTION: usize = 64;
/// Time after which an additional connection without calls is closed: longer than a pause between
/// two bursts of calls.
const IDLE: Duration = Duration::from_mins(1);

/// Class of a call. Calls of different classes never share a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallClass {
    /// Gets its response within seconds.
    Short,
    /// Waits for an event, such as an acquire for its lock.
    Waiting,
    /// Is a stream of responses.
    Streaming,
}

/// A connection with room for one more call, which counts until this is dropped: the caller keeps
/// it as long as its call or its stream.
#[derive(Debug)]
pub struct ChannelSlot {
    channel: Channel,
    /// Counted by the pool.
    _in_use: Arc<()>,
}

impl ChannelSlot {
    /// Returns the channel, for generated clients.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// Creates a channel, which connects on its first call.
pub(crate) type ConnectFn = Box<dyn Fn() -> Channel + Send + Sync>;

/// The connections to one instance, by class of calls.
pub(crate) struct ChannelPools {
    connect: ConnectFn,
    pools: [Mutex<Vec<PooledChannel>>; 3],
}

#[derive(Debug)]
struct PooledChannel {
    channel: Channel,
    in_use: Arc<()>,
    last_used: Instant,
}

impl PooledChannel {
    fn calls(&self) -> usize {
        Arc::strong_count(&self.in_use) - 1
    }
}

impl ChannelPools {
    /// Creates the pools; no connection is opened yet.
    pub(crate) fn new(connect: ConnectFn) -> Self {
        Self { connect, pools: Default::default() }
    }

    /// Returns a connection with room for a call: the first one, so that the others become idle.
    pub(crate) fn take(&self, class: CallClass) -> ChannelSlot {
        let mut pool = self.pools[class as usize].lock();
        let now = Instant::now();
        let index = pool.iter().position(|pooled| pooled.calls() < CALLS_PER_CONNECTION);
        let index = index.unwrap_or_else(|| {
            pool.push(PooledChannel { channel: (self.connect)(), in_use: Arc::default(), last_used: now });
            pool.len() - 1
        });
        let taken = &mut pool[index];
        taken.last_used = now;
        let slot = ChannelSlot { channel: taken.channel.clone(), _in_use: Arc::clone(&taken.in_use) };
        let mut position = 0;
        pool.retain(|pooled| {
            position += 1;
            position == 1 || pooled.calls() > 0 || now < pooled.last_used + IDLE
        });
        slot
    }
}

impl fmt::Debug for ChannelPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelPools").field("pools", &self.pools).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::advance;
    use tonic::transport::Endpoint;

    use super::*;

    /// Returns pools of connections to nowhere, and the number of connections that were created.
    fn pools() -> (ChannelPools, Arc<AtomicUsize>) {
        let created = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&created);
        let pools = ChannelPools::new(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
        }));
        (pools, created)
    }

    fn take(pools: &ChannelPools, class: CallClass, calls: usize) -> Vec<ChannelSlot> {
        (0..calls).map(|_| pools.take(class)).collect()
    }

    #[tokio::test]
    async fn classes_of_calls_share_no_connection() {
        let (pools, created) = pools();

        let _calls = [CallClass::Short, CallClass::Waiting, CallClass::Streaming].map(|class| pools.take(class));

        assert_eq!(created.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_full_connection_gets_another_one_beside_it() {
        let (pools, created) = pools();

        let mut calls = take(&pools, CallClass::Waiting, 300);
        assert_eq!(created.load(Ordering::Relaxed), 300_usize.div_ceil(CALLS_PER_CONNECTION));

        calls.truncate(100);
        calls.extend(take(&pools, CallClass::Waiting, 200));
        assert_eq!(created.load(Ordering::Relaxed), 300_usize.div_ceil(CALLS_PER_CONNECTION), "free places are used");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_additional_connection_is_closed() {
        let (pools, _) = pools();
        let open = || pools.pools[CallClass::Short as usize].lock().len();
        drop(take(&pools, CallClass::Short, 2 * CALLS_PER_CONNECTION));

        drop(pools.take(CallClass::Short));
        assert_eq!(open(), 2);
        advance(IDLE).await;
        drop(pools.take(CallClass::Short));

        assert_eq!(open(), 1);
    }
}
