//! How much is worked on at once: what is more is refused at once, because a queue would only make everybody late.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use tidings_status::Reply;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::methods::Kind;
use crate::{Args, Reason};

/// When to try again what was one too many: many times as long as a call takes, and nothing that a person would notice.
const LATER: Duration = Duration::from_millis(100);

/// The right to be worked on, for as long as it is held.
pub(super) type Permit = Option<OwnedSemaphorePermit>;

/// The limits of a process.
#[derive(Debug)]
pub(super) struct Limits {
    calls: Limit,
    streams: Limit,
}

#[derive(Debug)]
struct Limit {
    what: &'static str,
    max: usize,
    free: Arc<Semaphore>,
    shed: Counter,
}

/// How much is worked on right now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) calls: usize,
    pub(crate) streams: usize,
}

/// There is no room.
#[derive(Debug)]
pub(super) struct Full(&'static str);

impl Limits {
    pub(super) fn new(args: &Args) -> Self {
        let limit = |what, label, max: u32| Limit {
            what,
            max: max as usize,
            free: Arc::new(Semaphore::new(max as usize)),
            shed: counter!("tidings_server_shed_total", "limit" => label),
        };
        Self {
            calls: limit("calls in flight", "calls_in_flight", args.max_in_flight),
            streams: limit("streams", "streams", args.max_open_streams),
        }
    }

    /// Makes room for a call, or refuses it.
    pub(super) fn take(&self, kind: Kind) -> Result<Permit, Full> {
        let limit = match kind {
            Kind::Brief => &self.calls,
            Kind::Stream => &self.streams,
            Kind::Waiting | Kind::Open | Kind::OpenStream => return Ok(None),
        };
        if let Ok(permit) = Arc::clone(&limit.free).try_acquire_owned() {
            return Ok(Some(permit));
        }
        limit.shed.increment(1);
        Err(Full(limit.what))
    }

    pub(super) fn load(&self) -> Load {
        Load { calls: self.calls.used(), streams: self.streams.used() }
    }
}

impl Limit {
    fn used(&self) -> usize {
        self.max - self.free.available_permits()
    }
}

impl Full {
    pub(super) fn reply(self, path: &str) -> Reply {
        let Self(what) = self;
        Reason::Overloaded.reply(path, format!("too many {what}")).quota(what).retry_after(LATER)
    }
}
