//! Refreshes users past their soft TTL in the background, while the cached profile is still served.
//!
//! A refresh is for freshness: a change that reached no cache, such as one by SQL, is seen after
//! the soft TTL (10 min) instead of the TTL (24 h), and no reader waits for Postgres. Without it
//! `a_profile_past_its_soft_ttl_is_served_and_refreshed` fails.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::batch::{fills, granted};
use crate::cache::FillTarget;
use crate::domain::{Error, Users};
use crate::model::UserId;

impl Users {
    /// Reloads these users in the background, except those being reloaded; does nothing while
    /// Postgres is unavailable.
    pub(super) fn refresh(&self, mut ids: Vec<UserId>) {
        if !self.store.is_available() {
            return;
        }
        let mut refreshing = self.refreshing.lock();
        ids.retain(|id| refreshing.insert(id.clone()));
        drop(refreshing);
        if ids.is_empty() {
            return;
        }
        let (users, guard) = (self.clone(), RefreshGuard { refreshing: Arc::clone(&self.refreshing), ids });
        self.tasks.spawn(async move {
            if let Err(error) = users.reload(&guard.ids).await {
                tracing::debug!(%error, "refresh of cached profiles failed"); // the next reader retries
            }
        });
    }

    /// Leases, reads and fills in bulk; skips users whose lease another reader holds.
    async fn reload(&self, ids: &[UserId]) -> Result<(), Error> {
        let leases = self.cache.lease_many(ids, FillTarget::SoftExpired).await?;
        let tokens = granted(ids, leases);
        if tokens.is_empty() {
            return Ok(());
        }
        let ids: Vec<UserId> = tokens.keys().cloned().collect();
        let records = match self.store.accounts.read_many(&ids).await {
            Ok(records) => records,
            Err(fault) => {
                self.release_many(&tokens).await;
                return Err(fault.into());
            }
        };
        let fills = fills(&tokens, &records);
        fail::fail_point!("user::before_refill");
        self.cache.fill_many(&fills).await?;
        self.metrics.record_refreshed(fills.len());
        Ok(())
    }
}

/// Marks users as being reloaded until it is dropped, also by a panic: then the next reader may
/// retry.
struct RefreshGuard {
    refreshing: Arc<Mutex<HashSet<UserId>>>,
    ids: Vec<UserId>,
}

impl Drop for RefreshGuard {
    fn drop(&mut self) {
        let mut refreshing = self.refreshing.lock();
        for id in &self.ids {
            refreshing.remove(id);
        }
    }
}
