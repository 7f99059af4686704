//! Streams of versions: first those in Postgres, then changes.
//!
//! A stream is registered before it reads Postgres, so each later commit reaches it by a
//! notification or by a comparison, unless a newer one replaces it first. The relay publishes
//! notifications through Redis after each apply; Redis may lose any of them. Therefore all watched
//! versions are compared with Postgres periodically, and whenever the subscription to notifications
//! begins or ends.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use futures_util::{Stream, stream};
use tidings_server::StreamEnd;
use tokio::sync::Notify;

use super::Error;
use crate::model::{UserId, UserVersion, WatchFrame};
use crate::store::Store;
use crate::watch::{VersionStream, WatchLimitReached, WatchRegistry};

/// Ids in one statement of a comparison: few enough for the statement timeout on a slow disk.
const COMPARE_CHUNK: usize = 5000;
/// Concurrent statements of a comparison: leaves the relay one of the background connections.
const COMPARE_CONCURRENCY: usize = 2;

/// The use cases of watched versions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UserWatches {
    store: Store,
    registry: Arc<WatchRegistry>,
    /// True while this instance is subscribed to notifications.
    subscribed: Arc<AtomicBool>,
    /// Wakes the comparison when notifications may have been lost.
    lost: Arc<Notify>,
}

impl UserWatches {
    /// Creates the use cases over a store and the streams of this instance.
    pub fn new(store: Store, registry: Arc<WatchRegistry>) -> Self {
        Self { store, registry, subscribed: Arc::default(), lost: Arc::default() }
    }

    /// Opens a stream of the versions of these users.
    pub async fn watch(
        &self,
        ids: &[UserId],
        stream_end: StreamEnd,
    ) -> Result<impl Stream<Item = WatchFrame> + Send + use<>, Error> {
        let ids: Vec<UserId> = ids.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let stream = self.registry.register(&ids, stream_end)?;
        // Later commits arrive as updates; earlier ones are read here.
        let read = self.store.versions.read(&ids).await?;
        self.registry.update(&with_absent(ids, read));
        Ok(stream::unfold((self.clone(), stream), async |(watches, mut stream): (Self, VersionStream)| {
            let frame = stream.next(|| watches.is_degraded()).await?;
            Some((frame, (watches, stream)))
        }))
    }

    /// Hands received versions to the streams; never blocks.
    pub fn update(&self, versions: &[UserVersion]) {
        self.registry.update(versions);
    }

    /// Records the begin or end of the subscription. Either may mean lost notifications, so it
    /// wakes the comparison.
    pub fn set_subscribed(&self, subscribed: bool) {
        self.subscribed.store(subscribed, Ordering::Relaxed);
        self.lost.notify_one();
    }

    /// Waits until notifications may have been lost. Only one task may wait.
    pub async fn notifications_lost(&self) {
        self.lost.notified().await;
    }

    /// Compares the versions of all watched ids with Postgres, and hands newer ones to the streams.
    /// A part that fails does not prevent the comparison of the others.
    ///
    /// # Errors
    /// The error of the last part that failed.
    pub async fn compare(&self) -> Result<(), Error> {
        let mut after = None;
        let next_part = || {
            let known = self.registry.known_versions(after.as_ref(), COMPARE_CHUNK);
            after = Some(known.last()?.0.clone());
            Some(self.compare_part(known))
        };
        run_all(next_part).await
    }

    /// Compares these versions with Postgres.
    async fn compare_part(&self, known: Vec<(UserId, i64)>) -> Result<(), Error> {
        let newer = self.store.versions.newer(&known).await?;
        self.registry.metrics().record_reconciled(self.registry.update(&newer));
        Ok(())
    }

    /// Returns true while changes may arrive late.
    fn is_degraded(&self) -> bool {
        !self.subscribed.load(Ordering::Relaxed) || !self.store.is_available()
    }
}

/// Runs the parts of a comparison, also after one has failed. Returns the last error.
async fn run_all<F>(mut next_part: impl FnMut() -> Option<F>) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut outcome = Ok(());
    loop {
        let parts: Vec<F> = iter::from_fn(&mut next_part).take(COMPARE_CONCURRENCY).collect();
        if parts.is_empty() {
            return outcome;
        }
        outcome = join_all(parts).await.into_iter().fold(outcome, |earlier, part| part.and(earlier));
    }
}

/// Adds version 0, absent, for each id without a row.
fn with_absent(ids: Vec<UserId>, read: Vec<UserVersion>) -> Vec<UserVersion> {
    let mut read: BTreeMap<UserId, UserVersion> =
        read.into_iter().map(|version| (version.id.clone(), version)).collect();
    let versions = ids.into_iter().map(|id| read.remove(&id).unwrap_or(UserVersion { id, version: 0, absent: true }));
    versions.collect()
}

impl From<WatchLimitReached> for Error {
    fn from(WatchLimitReached: WatchLimitReached) -> Self {
        Self::TooManyWatched
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn a_failing_part_does_not_end_the_others() {
        let done = RefCell::new(Vec::new());
        let part = |number: u32| {
            done.borrow_mut().push(number);
            ready(if number == 1 { Err(Error::TooManyWatched) } else { Ok(()) })
        };
        let mut numbers = 0..9;

        let compared = run_all(|| numbers.next().map(part)).await;

        assert!(matches!(compared, Err(Error::TooManyWatched)));
        assert_eq!(done.into_inner(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
