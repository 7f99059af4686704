//! Concurrency limits. Calls beyond a limit are refused at once: a queue would only delay all of
//! them.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use tidings_status::Reply;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::methods::CallKind;
use crate::args::Args;
use crate::connection_state::ConnectionState;
use crate::long_calls::{self, ConnectionFull, LongCallSlot};
use crate::reason::Reason;

/// Retry delay of a refused call: many times the duration of a call, too short for people to
/// notice.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The permit of a call, held while the call runs.
#[derive(Debug)]
pub(super) struct Permit {
    /// `None` if the kind of the call has no limit per process here.
    _process: Option<OwnedSemaphorePermit>,
    /// The slot of a stream on its connection.
    _connection: Option<LongCallSlot>,
}

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

/// A concurrency limit is reached.
#[derive(Debug)]
pub(super) enum LimitReached {
    /// Limit of the process; holds its name.
    Process(&'static str),
    Connection(ConnectionFull),
}

impl CallLimits {
    pub(super) fn new(args: &Args) -> Self {
        long_calls::shed().increment(0); // exported from the start
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

    /// Takes a permit for a call, or refuses the call. A service takes the slots of its waiting
    /// calls itself, because not each of them waits.
    pub(super) fn take(&self, kind: CallKind, connection: &ConnectionState) -> Result<Permit, LimitReached> {
        let slot =
            if kind.is_stream() { Some(connection.long_calls.take().map_err(LimitReached::Connection)?) } else { None };
        let permit = match kind {
            CallKind::Brief => Some(self.calls.take()?),
            CallKind::Stream => Some(self.streams.take()?),
            CallKind::Waiting | CallKind::Public | CallKind::PublicStream => None,
        };
        Ok(Permit { _process: permit, _connection: slot })
    }

    pub(super) fn load(&self) -> CurrentLoad {
        CurrentLoad { calls: self.calls.used(), streams: self.streams.used() }
    }
}

impl ConcurrencyLimit {
    fn take(&self) -> Result<OwnedSemaphorePermit, LimitReached> {
        let permit = Arc::clone(&self.available).try_acquire_owned();
        permit.inspect_err(|_| self.shed.increment(1)).map_err(|_| LimitReached::Process(self.name))
    }

    fn used(&self) -> usize {
        self.max - self.available.available_permits()
    }
}

impl LimitReached {
    pub(super) fn reply(self, path: &str) -> Reply {
        match self {
            Self::Process(name) => {
                Reason::Overloaded.reply(path, format!("too many {name}")).quota(name).retry_after(RETRY_DELAY)
            }
            Self::Connection(full) => full.reply(path),
        }
    }
}
