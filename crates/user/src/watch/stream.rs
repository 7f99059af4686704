//! One stream, and what it is told next.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Fuse};
use tokio::time::{Instant, Sleep, sleep_until};

use super::directory::Party;
use super::{Full, Watches, lock};
use crate::model::{Frame, UserId, UserVersion};

/// When a stream that ends may come back: after a restart, and not all at the same moment.
const COME_BACK: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(5);

/// Comes when a stream has to end, because its connection or the process does.
pub struct Ending(Fuse<BoxFuture<'static, ()>>);

impl Ending {
    /// The moment at which this future ends.
    pub fn at(moment: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(moment.boxed().fuse())
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ending")
    }
}

/// One stream. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    watches: Arc<Watches>,
    party: Party,
    caught_up: bool,
    /// When something was told last.
    told: Instant,
    timer: Pin<Box<Sleep>>,
    ending: Ending,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The moment has come, and is to be told.
    Ending,
    Ended,
}

impl Watch {
    pub(super) fn begin(watches: &Arc<Watches>, ids: &[UserId], ending: Ending) -> Result<Self, Full> {
        let mut directory = lock(&watches.directory);
        let party = directory.sit_down(ids, watches.limits.ids).ok_or(Full)?;
        watches.numbers.size(directory.size());
        drop(directory);
        let now = Instant::now();
        Ok(Self {
            watches: Arc::clone(watches),
            party,
            caught_up: false,
            told: now,
            timer: Box::pin(sleep_until(now + watches.limits.heartbeat)),
            ending,
            state: State::Open,
        })
    }

    /// What the stream is told next; `None` after its end. `degraded` says whether changes may come late at the moment.
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self, degraded: impl Fn() -> bool) -> Option<Frame> {
        let frame = loop {
            if self.state == State::Ended {
                return None;
            }
            // Also while there is so much to tell that the stream never waits.
            if self.state == State::Ending || (&mut self.ending.0).now_or_never().is_some() {
                self.state = State::Ended;
                break Frame::Goodbye { retry_after: rand::random_range(COME_BACK) };
            }
            if let Some(versions) = self.versions() {
                break Frame::Versions(versions);
            }
            if !std::mem::replace(&mut self.caught_up, true) {
                break Frame::CaughtUp;
            }
            if Instant::now() >= self.told + self.watches.limits.heartbeat {
                break Frame::Heartbeat { degraded: degraded() };
            }
            self.wait().await;
        };
        self.told = Instant::now();
        Some(frame)
    }

    /// What is new to the stream.
    fn versions(&self) -> Option<Vec<UserVersion>> {
        let news = self.party.desk.take();
        self.watches.numbers.told(news.len());
        let versions = news.into_iter().map(|(number, stand)| {
            let id = UserId::new(self.party.ids[number].to_string());
            UserVersion { id, version: stand.version, absent: stand.absent }
        });
        Some(versions.collect::<Vec<_>>()).filter(|versions| !versions.is_empty())
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let due = self.told + self.watches.limits.heartbeat;
        // Set anew only when it is over: one that is early costs a look, and is rarer than frames are.
        if self.timer.is_elapsed() {
            self.timer.as_mut().reset(due);
        }
        tokio::select! {
            () = &mut self.ending.0 => self.state = State::Ending,
            () = self.party.desk.news() => {}
            () = self.timer.as_mut() => {}
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut directory = lock(&self.watches.directory);
        directory.stand_up(&self.party);
        self.watches.numbers.size(directory.size());
    }
}
