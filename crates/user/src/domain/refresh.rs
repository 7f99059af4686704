//! Users whose cached profile is old are answered with it once more, and read anew meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, Users};
use crate::cache::{Fill, Leased};
use crate::model::{Record, UserId};

impl Users {
    /// Reads these users anew, in the background, unless that is under way or Postgres is away.
    pub(super) fn refresh(&self, mut ids: Vec<UserId>) {
        if !self.store.answers() {
            return;
        }
        let mut refreshed = lock(&self.refreshed);
        ids.retain(|id| refreshed.insert(id.clone()));
        drop(refreshed);
        if ids.is_empty() {
            return;
        }
        let (users, refreshing) = (self.clone(), Refreshing { refreshed: Arc::clone(&self.refreshed), ids });
        self.tasks.spawn(async move {
            if let Err(error) = users.read_anew(&refreshing.ids).await {
                tracing::debug!(%error, "old profiles stay"); // whoever reads one next tries again
            }
        });
    }

    /// One round of leases, one read of Postgres, one round of fills. What others read anew is left to them.
    async fn read_anew(&self, ids: &[UserId]) -> Result<(), Error> {
        let leases = self.cache.lease_many(ids, Fill::Old).await?;
        let mut tokens = BTreeMap::new();
        for (id, lease) in ids.iter().zip(leases) {
            if let Leased::Granted(token) = lease {
                tokens.insert(id.clone(), token);
            }
        }
        if tokens.is_empty() {
            return Ok(());
        }
        let ids: Vec<UserId> = tokens.keys().cloned().collect();
        let mut records = self.store.accounts.read_many(&ids).await?;
        let fills: Vec<_> = tokens
            .into_iter()
            .map(|(id, token)| {
                let record = records.remove(&id).unwrap_or(Record::Absent { version: 0 });
                (id, token, record)
            })
            .collect();
        fail::fail_point!("user::before_refill");
        self.cache.fill_many(&fills).await?;
        self.numbers.refreshed(fills.len());
        Ok(())
    }
}

/// Users who are read anew. Dropped, also by a panic, whoever reads one next may try again.
struct Refreshing {
    refreshed: Arc<Mutex<HashSet<UserId>>>,
    ids: Vec<UserId>,
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        let mut refreshed = lock(&self.refreshed);
        for id in &self.ids {
            refreshed.remove(id);
        }
    }
}

fn lock(refreshed: &Mutex<HashSet<UserId>>) -> MutexGuard<'_, HashSet<UserId>> {
    refreshed.lock().unwrap_or_else(PoisonError::into_inner)
}
