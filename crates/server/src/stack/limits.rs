//! Concurrency limits. Calls beyond a limit are refused at once: a queue would only delay all of
//! them.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use tidings_status::Reply;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::methods::CallKind;
use crate::args::Args;
use crate::reason::Reason;

/// Retry delay of a refused call: many times the duration of a call, too short for people to
/// notice.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The permit of a call, held while the call runs; `None` if its kind has no limit here.
pub(super) type Permit = Option<OwnedSemaphorePermit>;

/// The concurrency limits of a process.
#[derive(Debug)]
pub(super) struct CallLimits {
    calls: ConcurrencyLimit,
    streams: ConcurrencyLimit,
}

#[derive(Debug)]
struct ConcurrencyLimit {
    name: &'static str,
    max: usize,
    available: Arc<Semaphore>,
    shed: Counter,
}

/// The current numbers of calls in flight and open streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurrentLoad {
    pub(crate) calls: usize,
    pub(crate) streams: usize,
}

/// A concurrency limit is reached; holds its name.
#[derive(Debug)]
pub(super) struct LimitReached(&'static str);

impl CallLimits {
    pub(super) fn new(args: &Args) -> Self {
        let limit = |name, label, max: u32| ConcurrencyLimit {
            name,
            max: max as usize,
            available: Arc::new(Semaphore::new(max as usize)),
            shed: counter!("tidings_server_shed_total", "limit" => label),
        };
        Self {
            calls: limit("calls in flight", "calls_in_flight", args.max_in_flight),
            streams: limit("streams", "streams", args.max_open_streams),
        }
    }

    /// Takes a permit for a call, or refuses the call.
    pub(super) fn take(&self, kind: CallKind) -> Result<Permit, LimitReached> {
        let limit = match kind {
            CallKind::Brief => &self.calls,
            CallKind::Stream => &self.streams,
            CallKind::Waiting | CallKind::Public | CallKind::PublicStream => return Ok(None),
        };
        if let Ok(permit) = Arc::clone(&limit.available).try_acquire_owned() {
            return Ok(Some(permit));
        }
        limit.shed.increment(1);
        Err(LimitReached(limit.name))
    }

    pub(super) fn load(&self) -> CurrentLoad {
        CurrentLoad { calls: self.calls.used(), streams: self.streams.used() }
    }
}

impl ConcurrencyLimit {
    fn used(&self) -> usize {
        self.max - self.available.available_permits()
    }
}

impl LimitReached {
    pub(super) fn reply(self, path: &str) -> Reply {
        let Self(name) = self;
        Reason::Overloaded.reply(path, format!("too many {name}")).quota(name).retry_after(RETRY_DELAY)
    }
}
