//! Who watches versions is told those of Postgres first, then each change.
//!
//! A stream sits down before it reads: what is committed from then on is heard, or found. News come through Redis, from
//! the relay, which tells what it has applied; Redis may lose any of them. Therefore every version that is known here is
//! compared with Postgres now and then, and whenever the connection on which news are heard has ended or begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{Stream, TryStreamExt as _, stream};
use tokio::sync::Notify;

use super::Error;
use crate::model::{Frame, UserId, UserVersion};
use crate::store::Store;
use crate::watch::{Ending, Full, Watch, Watches};

/// The ids of one statement of a comparison: few enough to be read within the time-out of a statement from a slow disk.
const COMPARED: usize = 5000;
/// Statements of a comparison at a time, of the connections for background work: the relay needs one.
const COMPARISONS: usize = 2;

/// Those who watch versions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watching {
    store: Store,
    watches: Arc<Watches>,
    /// Whether news are heard.
    hears: Arc<AtomicBool>,
    /// News may have been lost.
    doubt: Arc<Notify>,
}

impl Watching {
    /// Those who watch the users of one store.
    pub fn new(store: Store, watches: Arc<Watches>) -> Self {
        Self { store, watches, hears: Arc::default(), doubt: Arc::default() }
    }

    /// Begins a stream of the versions of these users.
    pub async fn watch(
        &self,
        ids: &[UserId],
        ending: Ending,
    ) -> Result<impl Stream<Item = Frame> + Send + use<>, Error> {
        let ids: Vec<UserId> = ids.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let watch = self.watches.sit_down(&ids, ending)?;
        // From now on all news of them are heard: what was committed before is read here.
        let read = self.store.versions.read(&ids).await?;
        self.watches.hear(&with_absent(ids, read));
        Ok(stream::unfold((self.clone(), watch), async |(watching, mut watch): (Self, Watch)| {
            let frame = watch.next(|| watching.is_degraded()).await?;
            Some((frame, (watching, watch)))
        }))
    }

    /// Takes news; never blocks.
    pub fn hear(&self, news: &[UserVersion]) {
        self.watches.hear(news);
    }

    /// Says whether news are heard from now on, or not: either way some may have been lost.
    pub fn set_hears(&self, hears: bool) {
        self.hears.store(hears, Ordering::Relaxed);
        self.doubt.notify_one();
    }

    /// Waits until news may have been lost. Only one may wait.
    pub async fn doubt(&self) {
        self.doubt.notified().await;
    }

    /// Compares the versions of all watched ids with those in Postgres, and tells what was missed.
    pub async fn compare(&self) -> Result<(), Error> {
        let parts = stream::unfold(None, async |after: Option<UserId>| {
            let known = self.watches.known(after.as_ref(), COMPARED);
            let (last, _) = known.last()?.clone();
            Some((Ok(known), Some(last)))
        });
        parts
            .try_for_each_concurrent(COMPARISONS, async |known: Vec<(UserId, i64)>| {
                let newer = self.store.versions.newer(&known).await?;
                self.watches.numbers().found(self.watches.hear(&newer));
                Ok(())
            })
            .await
    }

    /// Whether changes may come late.
    fn is_degraded(&self) -> bool {
        !self.hears.load(Ordering::Relaxed) || !self.store.answers()
    }
}

/// What was read, and that of the other ids there never was a user.
fn with_absent(ids: Vec<UserId>, read: Vec<UserVersion>) -> Vec<UserVersion> {
    let mut read: BTreeMap<UserId, UserVersion> =
        read.into_iter().map(|version| (version.id.clone(), version)).collect();
    let versions = ids.into_iter().map(|id| read.remove(&id).unwrap_or(UserVersion { id, version: 0, absent: true }));
    versions.collect()
}

impl From<Full> for Error {
    fn from(Full: Full) -> Self {
        Self::TooManyWatched
    }
}
