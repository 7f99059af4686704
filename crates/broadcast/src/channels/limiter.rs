//! Limits the publishes in flight to what Redis processes well within the reply timeout.
//!
//! Under load, publishes wait here for each other. Without the limit, replies would come after the
//! timeout, and the outcome of those publishes would be unknown.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::model::UnpublishedMessage;

/// Most messages in flight: a slow machine publishes them in about 20 ms.
const MESSAGES: u32 = 256;
/// Bytes of payload that count as one more message.
const BYTES: usize = 4096;
/// Longest wait of a publish for a permit.
const PATIENCE: Duration = Duration::from_millis(500);

/// Limits the publishes in flight to one Redis.
#[derive(Debug)]
pub(super) struct PublishLimiter(Semaphore);

/// Permission to have messages in flight, until it is dropped.
#[derive(Debug)]
pub struct PublishPermit<'a>(#[expect(dead_code, reason = "held for its drop")] SemaphorePermit<'a>);

impl PublishLimiter {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(MESSAGES as usize))
    }

    /// Waits for a permit, in order of arrival; returns `None` after 500 ms. A batch larger than
    /// the limit takes all permits.
    pub(super) async fn acquire(&self, messages: &[UnpublishedMessage]) -> Option<PublishPermit<'_>> {
        if let Ok(permit) = self.0.try_acquire_many(weight(messages)) {
            return Some(PublishPermit(permit));
        }
        timeout(PATIENCE, self.acquire_further(messages)).await.ok()?
    }

    /// Waits for a permit like [`acquire`](Self::acquire), without a limit: the calls ahead are
    /// bounded, and each ends.
    pub(super) async fn acquire_further(&self, messages: &[UnpublishedMessage]) -> Option<PublishPermit<'_>> {
        self.0.acquire_many(weight(messages)).await.ok().map(PublishPermit)
    }
}

/// Returns the permits that messages take.
fn weight(messages: &[UnpublishedMessage]) -> u32 {
    let weight: usize = messages.iter().map(|message| 1 + message.data.len() / BYTES).sum();
    u32::try_from(weight).unwrap_or(MESSAGES).min(MESSAGES)
}
