//! The lock under which a conversation is imported: one importer at a time, however many replays run.

use std::process;

use tidings_client::LockGuard;

use super::services::{Error, Services};

/// A held lock, taken again whenever it is lost.
#[derive(Debug)]
pub(super) struct Hold<'a> {
    services: &'a Services,
    name: String,
    owner: String,
    guard: LockGuard,
    losses: usize,
}

impl<'a> Hold<'a> {
    /// Takes the lock of a conversation.
    pub(super) async fn take(services: &'a Services, conversation: &str) -> Result<Self, Error> {
        let name = format!("replay/{conversation}");
        let owner = format!("tidings replay, process {}", process::id());
        let guard = services.lock(&name, &owner).await?;
        Ok(Self { services, name, owner, guard, losses: 0 })
    }

    /// Makes a call under the lock. If the lock is lost meanwhile the call is dropped, and made again when the lock is held
    /// again: it must be safe to repeat.
    pub(super) async fn during<R>(&mut self, call: impl AsyncFn() -> Result<R, Error>) -> Result<R, Error> {
        loop {
            if let Ok(answer) = self.guard.guard(call()).await {
                return answer;
            }
            self.losses += 1;
            self.guard = self.services.lock(&self.name, &self.owner).await?;
        }
    }

    /// Releases it. Returns how often it was lost.
    pub(super) async fn release(self) -> usize {
        // If nobody hears it, the lease runs out by itself; the messages are sent all the same.
        let _ = self.guard.release().await;
        self.losses
    }
}
