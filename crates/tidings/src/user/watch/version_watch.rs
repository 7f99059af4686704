//! A watch of user versions that reconnects when a stream or an instance ends.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tidings_client::{Address, AttemptFailure, Endpoints, Error};
use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::watch_users_response::Frame;
use tidings_proto::user::{UserVersion, WatchUsersRequest, WatchUsersResponse};
use tidings_status::Failure;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Status, Streaming};

/// The method's name in errors.
const METHOD: &str = "WatchUsers";
/// The longest time to open a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time without a frame: more than two heartbeat intervals (25 s).
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The first and the longest pause before a reconnect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// An event of the watch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum WatchEvent {
    /// A version of a user, later than all returned before.
    Version(UserVersion),
    /// The current versions of all users have been returned; from now on come changes. Occurs once.
    CaughtUp,
    /// The service became degraded (true: changes may arrive late) or recovered (false).
    Degraded(bool),
}

/// A watch of users that survives the end of streams and instances.
pub(super) struct VersionWatch {
    endpoints: Endpoints,
    ids: Vec<String>,
    /// Longest time without a frame from any instance; then the watch fails.
    patience: Duration,
    /// The latest version returned per user: a new stream begins with the current versions again.
    seen_versions: HashMap<String, i64>,
    pending: VecDeque<WatchEvent>,
    stream: Option<(Address, Streaming<WatchUsersResponse>)>,
    is_degraded: bool,
    is_caught_up: bool,
    /// Arrival of the last frame, from any instance.
    last_frame_at: Instant,
    backoff: Duration,
    attempts: u32,
}

impl VersionWatch {
    /// Creates a watch; the first [`VersionWatch::next`] connects.
    pub(super) fn new(endpoints: Endpoints, ids: Vec<String>, patience: Duration) -> Self {
        Self {
            endpoints,
            ids,
            patience,
            seen_versions: HashMap::new(),
            pending: VecDeque::new(),
            stream: None,
            is_degraded: false,
            is_caught_up: false,
            last_frame_at: Instant::now(),
            backoff: BACKOFF.0,
            attempts: 0,
        }
    }

    /// Returns the next event. Cancel-safe: dropping the future loses no event.
    ///
    /// # Errors
    /// An instance refuses the watch, or no instance sent a frame for `patience`.
    pub(super) async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let Some((address, stream)) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            let frame = match timeout(IDLE_TIMEOUT, stream.message()).await {
                Ok(Ok(Some(frame))) => frame,
                // An orderly end: the stream has sent its Goodbye.
                Ok(Ok(None)) => {
                    self.stream = None;
                    continue;
                }
                Ok(Err(status)) => {
                    let address = address.clone();
                    self.handle_failure(&status, &address).await?;
                    continue;
                }
                Err(_) => {
                    self.stream = None; // no heartbeat: the connection is dead
                    continue;
                }
            };
            (self.last_frame_at, self.backoff, self.attempts) = (Instant::now(), BACKOFF.0, 0);
            self.handle(frame);
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let endpoint = self.endpoints.pick();
        let mut request = Request::new(WatchUsersRequest { ids: self.ids.clone() });
        endpoint.authorize(&mut request);
        self.attempts += 1;
        let mut client = UserServiceClient::new(endpoint.channel());
        let limit = OPEN_TIMEOUT.min(self.patience);
        match timeout(limit, client.watch_users(request)).await {
            Ok(Ok(stream)) => {
                self.stream = Some((endpoint.address().clone(), stream.into_inner()));
                Ok(())
            }
            Ok(Err(status)) => self.handle_failure(&status, endpoint.address()).await,
            Err(_) => {
                let timeout = Status::deadline_exceeded("timeout: the stream did not open");
                self.handle_failure(&timeout, endpoint.address()).await
            }
        }
    }

    fn handle(&mut self, frame: WatchUsersResponse) {
        match frame.frame {
            Some(Frame::Versions(versions)) => {
                for version in versions.versions {
                    let latest = self.seen_versions.entry(version.id.clone()).or_insert(-1);
                    if version.version > *latest {
                        *latest = version.version;
                        self.pending.push_back(WatchEvent::Version(version));
                    }
                }
            }
            Some(Frame::CaughtUp(_)) if !self.is_caught_up => {
                self.is_caught_up = true;
                self.pending.push_back(WatchEvent::CaughtUp);
            }
            Some(Frame::Heartbeat(heartbeat)) if heartbeat.degraded != self.is_degraded => {
                self.is_degraded = heartbeat.degraded;
                self.pending.push_back(WatchEvent::Degraded(self.is_degraded));
            }
            Some(Frame::Goodbye(_)) => self.stream = None,
            Some(Frame::CaughtUp(_) | Frame::Heartbeat(_)) | None => {}
        }
    }

    /// Handles a stream that failed or did not open; returns when it is time to reconnect.
    ///
    /// # Errors
    /// The failure is permanent, or `patience` would pass during the pause.
    async fn handle_failure(&mut self, status: &Status, address: &Address) -> Result<(), Error> {
        self.stream = None;
        let failure = Failure::from(status);
        if is_permanent(&failure) {
            return Err(Error::Refused { method: METHOD, address: address.clone(), failure: Box::new(failure) });
        }
        let pause = self.backoff.max(failure.retry_after.unwrap_or_default().min(BACKOFF.1));
        let elapsed = self.last_frame_at.elapsed();
        if elapsed + pause > self.patience {
            let elapsed = Duration::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            let last = Box::new(AttemptFailure::new(status, address));
            return Err(Error::GaveUp { method: METHOD, last, attempts: self.attempts, elapsed });
        }
        self.backoff = (2 * self.backoff).min(BACKOFF.1);
        sleep(pause).await;
        Ok(())
    }
}

/// Returns true if a retry would fail in the same way.
fn is_permanent(failure: &Failure) -> bool {
    let permanent = [Code::InvalidArgument, Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented];
    permanent.contains(&failure.code)
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

    /// Returns the events that these frames cause.
    fn events(frames: Vec<Frame>) -> Vec<WatchEvent> {
        let endpoints = Endpoints::new(&"127.0.0.1:1".parse().unwrap());
        let mut watch = VersionWatch::new(endpoints, vec!["ada".to_owned()], Duration::from_secs(1));
        for frame in frames {
            watch.handle(WatchUsersResponse { frame: Some(frame) });
        }
        watch.pending.into()
    }

    #[tokio::test]
    async fn versions_never_repeat_or_go_back() {
        let frames = vec![
            versions(&[("ada", 0), ("bob", 3)]),
            versions(&[("ada", 2)]),
            versions(&[("ada", 2), ("bob", 3)]), // the start of another stream
            versions(&[("ada", 1), ("bob", 4)]),
        ];

        let expected = [("ada", 0), ("bob", 3), ("ada", 2), ("bob", 4)];
        assert_eq!(events(frames), expected.map(|(id, number)| WatchEvent::Version(version(id, number))));
    }

    #[tokio::test]
    async fn caught_up_and_degraded_are_returned_only_on_change() {
        let beat = |degraded| Frame::Heartbeat(Heartbeat { degraded });
        let caught_up = || Frame::CaughtUp(CaughtUp {});
        let frames = vec![caught_up(), beat(false), beat(true), beat(true), caught_up(), beat(false)];

        assert_eq!(events(frames), [WatchEvent::CaughtUp, WatchEvent::Degraded(true), WatchEvent::Degraded(false)]);
    }
}
