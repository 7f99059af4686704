//! Publishes take turns: no more is on its way to Redis at once than it answers well within the answer time-out. So many who
//! publish at once wait for each other, and not for an answer that comes too late to say what was published.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::model::NewMessage;

/// How much is on its way at once, in messages: a slow machine does as many in some 20 ms.
const MESSAGES: u32 = 256;
/// A message counts as one more for as many bytes.
const BYTES: usize = 4096;
/// How long a publish waits for its turn.
const PATIENCE: Duration = Duration::from_millis(500);

/// The turns of one Redis.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

/// The right to have messages on their way; it ends when it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(#[expect(dead_code, reason = "it is held")] SemaphorePermit<'a>);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(MESSAGES as usize))
    }

    /// Waits for those who came before; `None` if that takes too long. What is more than all may have goes alone.
    pub(super) async fn wait(&self, messages: &[NewMessage]) -> Option<Turn<'_>> {
        let weight: usize = messages.iter().map(|message| 1 + message.data.len() / BYTES).sum();
        let weight = u32::try_from(weight).unwrap_or(MESSAGES).min(MESSAGES);
        if let Ok(turn) = self.0.try_acquire_many(weight) {
            return Some(Turn(turn));
        }
        timeout(PATIENCE, self.0.acquire_many(weight)).await.ok()?.ok().map(Turn)
    }
}
