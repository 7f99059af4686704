//! The incarnation of the database that a cache copies.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// The incarnation of the database that a cache copies: a part of every key of the cache, so that
/// another incarnation is an empty cache. Empty until it is known, and for a service without a
/// cache. Cheap to clone; all clones have the same value.
#[derive(Clone)]
pub struct SourceIncarnation(Arc<watch::Sender<Arc<str>>>);

impl Default for SourceIncarnation {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new("".into())))
    }
}

impl SourceIncarnation {
    /// Sets the incarnation, for all keys from now on.
    pub fn set(&self, incarnation: &str) {
        let part = if incarnation.is_empty() { String::new() } else { format!("{incarnation}:") };
        self.0.send_if_modified(|known| {
            let changes = **known != *part;
            if changes {
                *known = part.into();
            }
            changes
        });
    }

    /// Returns the part of keys.
    pub(crate) fn part(&self) -> Arc<str> {
        Arc::clone(&self.0.borrow())
    }

    /// Returns the part of keys and its changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<str>> {
        self.0.subscribe()
    }
}

impl fmt::Debug for SourceIncarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceIncarnation").field(&self.part()).finish()
    }
}
