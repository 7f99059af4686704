//! The lock that lets only one replay at a time import a conversation.

use std::process;

use tidings_client::LockGuard;

use super::clients::{Error, ServiceClients};

/// A held lock that is reacquired whenever it is lost.
#[derive(Debug)]
pub(super) struct ImportLock<'a> {
    clients: &'a ServiceClients,
    name: String,
    owner: String,
    guard: LockGuard,
    losses: usize,
}

impl<'a> ImportLock<'a> {
    /// Acquires the lock of a conversation.
    pub(super) async fn acquire(clients: &'a ServiceClients, conversation: &str) -> Result<Self, Error> {
        let name = format!("replay/{conversation}");
        let owner = format!("tidings replay, process {}", process::id());
        let guard = clients.lock(&name, &owner).await?;
        Ok(Self { clients, name, owner, guard, losses: 0 })
    }

    /// Makes a call under the lock. If the lock is lost meanwhile, the call is cancelled, and
    /// retried once the lock is reacquired. The call must therefore be idempotent.
    pub(super) async fn call_locked<R>(&mut self, call: impl AsyncFn() -> Result<R, Error>) -> Result<R, Error> {
        loop {
            if let Ok(outcome) = self.guard.guard(call()).await {
                return outcome;
            }
            self.losses += 1;
            self.guard = self.clients.lock(&self.name, &self.owner).await?;
        }
    }

    /// Releases the lock. Returns how often it was lost.
    pub(super) async fn release(self) -> usize {
        // A failed release is harmless: the lease expires, and all messages were sent.
        let _ = self.guard.release().await;
        self.losses
    }
}
