//! The room of one connection for long calls: calls that wait, and streams.
//!
//! HTTP/2 has one limit of concurrent calls per connection, and a client queues its calls beyond
//! it. Without a smaller limit for long calls, they would fill the connection, and the short calls
//! of the same client would wait for them: renewals would wait for acquires, and leases expire.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use tidings_status::Reply;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::reason::Reason;

/// Retry delay of a refused call: by then a long call may have ended.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The room of a connection for long calls: three quarters of its concurrent calls. In the
/// extensions of every request.
///
/// The server takes the slots of streams. A service takes those of its unary calls that wait.
#[derive(Clone, Debug)]
pub struct LongCallSlots {
    free: Arc<Semaphore>,
    max: u32,
}

/// The slot of a long call, free again when it is dropped.
#[derive(Debug)]
pub struct LongCallSlot {
    _permit: OwnedSemaphorePermit,
}

/// A connection has no room for another long call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many waiting calls and streams on this connection: at most {max}; \
     use several connections, e.g. one for short calls and one for each {max} others"
)]
pub struct ConnectionFull {
    max: u32,
}

/// Returns the number of refused calls.
pub(crate) fn shed() -> Counter {
    counter!("tidings_server_shed_total", "limit" => "long_calls_per_connection")
}

impl LongCallSlots {
    /// Creates the slots of a connection with this limit of concurrent calls.
    pub fn new(max_calls: u32) -> Self {
        let max = (max_calls - max_calls / 4).max(1);
        Self { free: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// Takes a slot for a call.
    ///
    /// # Errors
    /// The connection has no free slot.
    pub fn take(&self) -> Result<LongCallSlot, ConnectionFull> {
        let permit = Arc::clone(&self.free).try_acquire_owned();
        let permit = permit.inspect_err(|_| shed().increment(1)).map_err(|_| ConnectionFull { max: self.max })?;
        Ok(LongCallSlot { _permit: permit })
    }
}

impl ConnectionFull {
    /// Returns the reply to a refused call of this path.
    pub(crate) fn reply(self, path: &str) -> Reply {
        Reason::Overloaded.reply(path, self.to_string()).quota("long calls per connection").retry_after(RETRY_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_calls_get_three_quarters_of_a_connection() {
        for (max_calls, max) in [(1024, 768), (256, 192), (4, 3), (1, 1)] {
            let slots = LongCallSlots::new(max_calls);

            let taken: Vec<_> = std::iter::from_fn(|| slots.take().ok()).take(2000).collect();

            assert_eq!(taken.len(), max);
        }
    }

    #[test]
    fn a_slot_is_free_again_after_its_call() {
        let slots = LongCallSlots::new(1);
        let slot = slots.take().unwrap();
        slots.take().unwrap_err();

        drop(slot);

        slots.take().unwrap();
    }
}
