//! The versions of users, across instances that come and go.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tidings_client::{Address, Endpoints, Error, Refusal};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::watch_users_response::Frame;
use tidings_proto::user::{UserVersion, WatchUsersRequest, WatchUsersResponse};
use tidings_status::Failure;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Status, Streaming};

/// The method, as errors call it.
const METHOD: &str = "WatchUsers";
/// How long a stream may take to begin.
const OPENING: Duration = Duration::from_secs(10);
/// How long a stream may say nothing: more than two heartbeats.
const SILENT: Duration = Duration::from_mins(1);
/// The pauses before another attempt: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What is heard.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// A user came to a version that was not told before.
    Version(UserVersion),
    /// The versions that all users have now were told.
    CaughtUp,
    /// Whether changes may come late, when that changes.
    Late(bool),
}

/// A watch that goes on.
pub(super) struct Versions {
    endpoints: Endpoints,
    ids: Vec<String>,
    patience: Duration,
    /// The latest version of each user that was told: a new stream tells them again.
    told: HashMap<String, i64>,
    heard: VecDeque<Event>,
    stream: Option<(Address, Streaming<WatchUsersResponse>)>,
    is_late: bool,
    is_caught_up: bool,
    /// When an instance was heard last.
    last: Instant,
    pause: Duration,
    attempts: u32,
}

impl Versions {
    /// Begins with the first [`Versions::next`].
    pub(super) fn new(endpoints: Endpoints, ids: Vec<String>, patience: Duration) -> Self {
        Self {
            endpoints,
            ids,
            patience,
            told: HashMap::new(),
            heard: VecDeque::new(),
            stream: None,
            is_late: false,
            is_caught_up: false,
            last: Instant::now(),
            pause: PAUSES.0,
            attempts: 0,
        }
    }

    /// What is heard next. Safe to drop unfinished: nothing is lost.
    ///
    /// # Errors
    /// An instance refuses it, or none answered for as long as our patience lasts.
    pub(super) async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.heard.pop_front() {
                return Ok(event);
            }
            let Some((address, stream)) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            let frame = match timeout(SILENT, stream.message()).await {
                Ok(Ok(Some(frame))) => frame,
                // It said goodbye before that.
                Ok(Ok(None)) => {
                    self.stream = None;
                    continue;
                }
                Ok(Err(status)) => {
                    let address = address.clone();
                    self.failed(&status, &address).await?;
                    continue;
                }
                Err(_) => {
                    self.stream = None; // half a minute after it should have said something
                    continue;
                }
            };
            (self.last, self.pause, self.attempts) = (Instant::now(), PAUSES.0, 0);
            self.hear(frame);
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let endpoint = self.endpoints.pick();
        let mut request = Request::new(WatchUsersRequest { ids: self.ids.clone() });
        endpoint.authorize(&mut request);
        self.attempts += 1;
        let mut client = UserServiceClient::new(endpoint.channel());
        let limit = OPENING.min(self.patience);
        match timeout(limit, client.watch_users(request)).await {
            Ok(Ok(stream)) => {
                self.stream = Some((endpoint.address().clone(), stream.into_inner()));
                Ok(())
            }
            Ok(Err(status)) => self.failed(&status, endpoint.address()).await,
            Err(_) => {
                let late = Status::deadline_exceeded("the stream did not begin in time");
                self.failed(&late, endpoint.address()).await
            }
        }
    }

    fn hear(&mut self, frame: WatchUsersResponse) {
        match frame.frame {
            Some(Frame::Versions(versions)) => {
                for version in versions.versions {
                    let told = self.told.entry(version.id.clone()).or_insert(-1);
                    if version.version > *told {
                        *told = version.version;
                        self.heard.push_back(Event::Version(version));
                    }
                }
            }
            Some(Frame::CaughtUp(_)) if !self.is_caught_up => {
                self.is_caught_up = true;
                self.heard.push_back(Event::CaughtUp);
            }
            Some(Frame::Heartbeat(heartbeat)) if heartbeat.degraded != self.is_late => {
                self.is_late = heartbeat.degraded;
                self.heard.push_back(Event::Late(self.is_late));
            }
            Some(Frame::Goodbye(_)) => self.stream = None,
            Some(Frame::CaughtUp(_) | Frame::Heartbeat(_)) | None => {}
        }
    }

    /// A stream did not begin, or ended. Returns when it is time for another.
    async fn failed(&mut self, status: &Status, address: &Address) -> Result<(), Error> {
        self.stream = None;
        let failure = Failure::from(status);
        if is_for_good(&failure) {
            return Err(Error::Refused { method: METHOD, address: address.clone(), failure: Box::new(failure) });
        }
        let pause = self.pause.max(failure.retry_after.unwrap_or_default().min(PAUSES.1));
        let elapsed = self.last.elapsed();
        if elapsed + pause > self.patience {
            let elapsed = Duration::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            let last = Box::new(Refusal::new(status, address));
            return Err(Error::GaveUp { method: METHOD, last, attempts: self.attempts, elapsed });
        }
        self.pause = (2 * self.pause).min(PAUSES.1);
        sleep(pause).await;
        Ok(())
    }
}

/// Whether another attempt would be refused, too.
fn is_for_good(failure: &Failure) -> bool {
    let for_good = [Code::InvalidArgument, Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented];
    for_good.contains(&failure.code)
}

#[cfg(test)]
mod tests {
    use tidings_proto::user::{CaughtUp, Heartbeat, UserVersions};

    use super::*;

    fn version(id: &str, version: i64) -> UserVersion {
        UserVersion { id: id.to_owned(), version, absent: version == 0 }
    }

    fn versions(versions: &[(&str, i64)]) -> Frame {
        Frame::Versions(UserVersions { versions: versions.iter().map(|(id, number)| version(id, *number)).collect() })
    }

    /// What is told of these frames.
    fn told(frames: Vec<Frame>) -> Vec<Event> {
        let endpoints = Endpoints::new(&"127.0.0.1:1".parse().unwrap());
        let mut watch = Versions::new(endpoints, vec!["ada".to_owned()], Duration::from_secs(1));
        for frame in frames {
            watch.hear(WatchUsersResponse { frame: Some(frame) });
        }
        watch.heard.into()
    }

    #[tokio::test]
    async fn a_version_is_told_once_and_none_after_a_later_one() {
        let frames = vec![
            versions(&[("ada", 0), ("bob", 3)]),
            versions(&[("ada", 2)]),
            versions(&[("ada", 2), ("bob", 3)]), // of another stream
            versions(&[("ada", 1), ("bob", 4)]),
        ];

        let expected = [("ada", 0), ("bob", 3), ("ada", 2), ("bob", 4)];
        assert_eq!(told(frames), expected.map(|(id, number)| Event::Version(version(id, number))));
    }

    #[tokio::test]
    async fn that_the_first_versions_were_told_and_that_changes_are_late_is_said_when_it_changes() {
        let beat = |degraded| Frame::Heartbeat(Heartbeat { degraded });
        let caught_up = || Frame::CaughtUp(CaughtUp {});
        let frames = vec![caught_up(), beat(false), beat(true), beat(true), caught_up(), beat(false)];

        assert_eq!(told(frames), [Event::CaughtUp, Event::Late(true), Event::Late(false)]);
    }
}
