//! What is published is heard here once, and given to every subscriber of this instance.
//!
//! A message that is heard enters the `ring` of its channel and rings the `seat`s there. A `subscription` is
//! polled by the flow control of its connection, and takes from the rings what lies between its `cursor`s and their
//! heads: there is no task, no queue and no copy of a message for a subscriber. `interest` decides what is heard at
//! all, `repair` fills rings that have missed something. These invariants hold:
//! - **B1** a ring is a part of its channel without a hole: it takes the message behind its newest, or what Redis says
//!   (`Ring`);
//! - **B2** a ring never goes back to an epoch that is over: only Redis moves it to another, and one fill at a time,
//!   each read after the one before (`Feed::ask`, `Ring::fill`);
//! - **B3** a ring that misses something knows it at the next message, or at the next comparison, and is filled
//!   (`Repairs`); what is heard while it is filled is kept, or filled next (`Ring::absorb`);
//! - **B4** a ring lives exactly as long as a confirmed subscription: it begins where Redis says that the channel
//!   stands after the confirmation, and is dropped before the subscription ends (`Interest`, `Feed::leave`);
//! - **B5** a cursor moves over each message once, in order, by delivering it or by saying that it is missing; to
//!   another epoch only by saying `Reset`, or from no epoch to the first one since (`Cursor`);
//! - **B6** whoever adds to a ring rings its seats, whoever takes heeds first: no wake-up is lost (`Seat`);
//! - **B7** nobody waits for a reader: a stream that is not polled holds its cursors and nothing else (`Subscription`).

mod budget;
mod cursor;
mod directory;
mod feed;
mod interest;
mod reads;
mod repair;
mod ring;
#[cfg(test)]
mod rules;
mod seat;
mod subscription;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use ring::RingLimits;
pub use subscription::{Ending, Subscription};

use crate::channels::{self, Channels};
use crate::model::{ChannelName, Wish};
use crate::numbers::Numbers;
use crate::wire::Told;
use budget::Budget;
use directory::Directory;
use feed::{Feed, Next};
use reads::Reads;
use repair::Repairs;

/// What bounds the hub.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One ring.
    pub ring: RingLimits,
    /// The bytes of all rings together.
    pub rings_bytes: usize,
    /// How long a channel is heard after its last subscriber.
    pub linger: Duration,
    /// After how long without another frame a stream hears a heartbeat.
    pub heartbeat: Duration,
    /// How long a stream waits for Redis where it needs it.
    pub patience: Duration,
}

/// Why there is no stream, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis could not be read.
    #[error("channel could not be read")]
    Channel(#[from] channels::Error),
    /// Redis could not be read for as long as a stream waits.
    #[error("channel could not be read for as long as a stream waits")]
    Unread(#[source] Arc<channels::Error>),
    /// Redis could be read, but not subscribed to, for as long as a stream waits.
    #[error("channel could not be heard for as long as a stream waits")]
    Unheard,
}

/// What is heard, and who listens.
#[derive(Debug)]
pub struct Hub {
    limits: Limits,
    channels: Arc<Channels>,
    budget: Arc<Budget>,
    directory: Directory,
    reads: Arc<Reads>,
    repairs: Repairs,
    streams: AtomicUsize,
    hears: AtomicBool,
    numbers: Numbers,
}

impl Hub {
    /// A hub that hears nothing yet.
    pub fn new(channels: Arc<Channels>, limits: Limits) -> Arc<Self> {
        let budget = Arc::new(Budget::new(limits.rings_bytes));
        Arc::new(Self {
            limits,
            directory: Directory::new(limits.ring, Arc::clone(&budget)),
            reads: Reads::new(Arc::clone(&channels)),
            repairs: Repairs::default(),
            streams: AtomicUsize::new(0),
            hears: AtomicBool::new(false),
            numbers: Numbers::new(),
            channels,
            budget,
        })
    }

    /// Takes what was heard on a pub/sub channel. Runs on the task of the connection: short, and never blocks.
    pub fn hear(&self, ear: &str, told: Vec<u8>) {
        let feed = channels::heard_on(ear).and_then(|channel| self.directory.get(channel));
        // What nobody wants any more, or somebody else has said there, is nothing to us.
        if let (Some(feed), Some(told)) = (feed, Told::parse(told)) {
            let next = feed.hear(told);
            self.see_to(&feed, next);
        }
    }

    /// Subscribes. From the return on, all that is published is delivered or said to be missing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn subscribe(self: &Arc<Self>, wishes: &[Wish], ending: Ending) -> Result<Subscription, Error> {
        Subscription::begin(self, wishes, ending).await
    }

    /// How many streams subscribe to a channel.
    pub fn subscribers(&self, channel: &ChannelName) -> usize {
        self.directory.get(channel.as_str()).map_or(0, |feed| feed.seats())
    }

    /// Whether anything is heard at all, of all that is wanted.
    pub fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }

    /// How much there is to it.
    pub fn size(&self) -> Size {
        Size {
            streams: self.streams.load(Ordering::Relaxed),
            channels: self.directory.len(),
            rings_bytes: self.budget.held(),
        }
    }

    /// What is counted.
    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Does what a feed wants to be done.
    fn see_to(&self, feed: &Arc<Feed>, next: Next) {
        match next {
            Next::Rest => {}
            Next::Fill => self.repairs.add(Arc::clone(feed)),
        }
    }
}

/// How much there is to a hub.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Open streams.
    pub streams: usize,
    /// Channels that are heard, or about to be.
    pub channels: usize,
    /// Bytes of messages in all rings.
    pub rings_bytes: usize,
}

/// Locks; what a panic left behind is used all the same, as nothing is left half done between two statements that may
/// panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
