//! Who watches which users, and the newest version of each that this instance knows of.
//!
//! News come from the relay, from the comparison with Postgres, and from what a stream reads when it begins, in any order
//! and as often as they like. A stream is polled by the flow control of its connection, and takes what is new to it then:
//! there is no task and no queue for it. These invariants hold:
//! - **W1** the version of an id only grows, here and for each stream (`Directory::hear`, `Desk::hear`);
//! - **W2** every stream has heard, of each of its ids, at least the version that the directory has: whoever sits down hears
//!   it, and whatever raises it is told to all who sit there, in the same step. So one version for each id is all that a
//!   comparison needs;
//! - **W3** a stream holds one version for each of its ids, whether it is read or not: nothing grows (`Desk`).

mod desk;
mod directory;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use stream::{Ending, Watch};

use crate::model::{UserId, UserVersion};
use crate::numbers::WatchNumbers;
use directory::Directory;

/// What bounds the streams.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most ids that all streams together may watch, each stream's counted for itself.
    pub ids: usize,
    /// After how long without another frame a stream hears a heartbeat.
    pub heartbeat: Duration,
}

/// There is no room for another stream of so many ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Who watches, and what is known.
#[derive(Debug)]
pub struct Watches {
    limits: Limits,
    directory: Mutex<Directory>,
    numbers: WatchNumbers,
}

impl Watches {
    /// Nobody watches yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, directory: Mutex::default(), numbers: WatchNumbers::new() })
    }

    /// Begins a stream: from the return on it hears all news of these ids. It is to be polled when the first versions of all
    /// of them were heard.
    ///
    /// # Errors
    /// [`Full`]; nobody sits down then.
    pub fn sit_down(self: &Arc<Self>, ids: &[UserId], ending: Ending) -> Result<Watch, Full> {
        Watch::begin(self, ids, ending)
    }

    /// Takes versions, and returns how many of them are news. Never blocks.
    pub fn hear(&self, versions: &[UserVersion]) -> usize {
        // A lock for each, so that a long list holds up nobody else.
        versions.iter().filter(|version| lock(&self.directory).hear(version)).count()
    }

    /// The next ids behind one, at most `limit`, with the version that every stream has heard at least; below 0: none yet.
    pub fn known(&self, after: Option<&UserId>, limit: usize) -> Vec<(UserId, i64)> {
        lock(&self.directory).known(after, limit)
    }

    /// What is counted.
    pub(crate) fn numbers(&self) -> &WatchNumbers {
        &self.numbers
    }
}

/// Locks; what a panic left behind is used all the same, as nothing is left half done between two statements that may
/// panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
