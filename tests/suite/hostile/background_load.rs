//! Well-behaved callers on their own connections; every call must succeed during any abuse.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{CreateUserRequest, GetUserRequest, User};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Channel;

use crate::service::{MAX_WAIT, TestService};

/// Number of concurrent callers.
const CALLERS: usize = 2;
/// Pause between two calls of one caller, so that the load leaves the machine to the abuse.
const PAUSE: Duration = Duration::from_millis(3);
/// Id of the user that the callers read.
pub(crate) const BACKGROUND_USER: &str = "background";

/// Callers that repeat a read until they are stopped.
pub(crate) struct BackgroundLoad {
    tasks: Vec<JoinHandle<()>>,
    stats: Arc<LoadStats>,
}

#[derive(Default)]
struct LoadStats {
    calls: AtomicU64,
    slowest: Mutex<Duration>,
    failures: Mutex<Vec<Status>>,
    stopping: AtomicBool,
}

impl BackgroundLoad {
    /// Starts callers of a user service; returns after the first responses.
    pub(crate) async fn start(service: &TestService) -> Self {
        let user = User { id: BACKGROUND_USER.to_owned(), ..User::default() };
        let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
        UserServiceClient::new(service.channel().await).create_user(request).await.unwrap();
        let stats = Arc::new(LoadStats::default());
        let mut tasks = Vec::new();
        for _ in 0..CALLERS {
            let (users, stats) = (UserServiceClient::new(service.channel().await), Arc::clone(&stats));
            tasks.push(tokio::spawn(async move {
                while !stats.stopping.load(Ordering::Relaxed) {
                    stats.record(call(users.clone()).await);
                    sleep(PAUSE).await;
                }
            }));
        }
        let background = Self { tasks, stats };
        background.wait_for_progress().await;
        background
    }

    /// Returns the number of calls answered so far.
    pub(crate) fn calls(&self) -> u64 {
        self.stats.calls.load(Ordering::Relaxed)
    }

    /// Returns the longest duration of a call, and resets it.
    pub(crate) fn slowest(&self) -> Duration {
        std::mem::take(&mut self.stats.slowest.lock().unwrap())
    }

    /// Waits until ten more calls are answered.
    ///
    /// # Panics
    /// If that takes longer than [`MAX_WAIT`], or any call has failed.
    pub(crate) async fn wait_for_progress(&self) {
        let (before, deadline) = (self.calls(), Instant::now() + MAX_WAIT);
        while self.calls() < before + 10 {
            self.assert_all_succeeded();
            assert!(Instant::now() < deadline, "background calls are not answered");
            sleep(PAUSE).await;
        }
    }

    /// Stops the callers.
    ///
    /// # Panics
    /// If any call has failed.
    pub(crate) async fn stop(self) {
        self.stats.stopping.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        assert_eq!(self.stats.failures.lock().unwrap().len(), 0, "{:?}", self.stats.failures);
    }

    /// Asserts that no call has failed.
    pub(crate) fn assert_all_succeeded(&self) {
        let failures = self.stats.failures.lock().unwrap();
        assert!(failures.is_empty(), "background calls failed: {failures:?}");
    }
}

impl LoadStats {
    fn record(&self, (result, took): (Result<(), Status>, Duration)) {
        match result {
            Ok(()) => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                let mut slowest = self.slowest.lock().unwrap();
                *slowest = took.max(*slowest);
            }
            Err(status) => self.failures.lock().unwrap().push(status),
        }
    }
}

/// Makes one call; returns its result and duration.
async fn call(mut users: UserServiceClient<Channel>) -> (Result<(), Status>, Duration) {
    let start = Instant::now();
    let request = GetUserRequest { id: BACKGROUND_USER.to_owned(), ..GetUserRequest::default() };
    let result = users.get_user(request).await.map(drop);
    (result, start.elapsed())
}
