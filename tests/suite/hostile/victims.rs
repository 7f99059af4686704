//! Callers of good will, on connections of their own: each of their calls succeeds, whatever somebody else does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_proto::user::user_service_client::UserServiceClient;
use tidings_proto::user::{CreateUserRequest, GetUserRequest, User};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Channel;

use crate::service::{SOON, Service};

/// How many call at once.
const CALLERS: usize = 2;
/// A pause between two calls of one caller: the attack shall have the machine, not they.
const PAUSE: Duration = Duration::from_millis(3);
/// The user that they read.
pub(crate) const VICTIM: &str = "victim";

/// Callers that go on calling until they are asked to end.
pub(crate) struct Victims {
    tasks: Vec<JoinHandle<()>>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: AtomicU64,
    slowest: Mutex<Duration>,
    failures: Mutex<Vec<Status>>,
    over: AtomicBool,
}

impl Victims {
    /// Begins to call a user service; returns after the first answers.
    pub(crate) async fn of(service: &Service) -> Self {
        let user = User { id: VICTIM.to_owned(), ..User::default() };
        let request = CreateUserRequest { user: Some(user), ..CreateUserRequest::default() };
        UserServiceClient::new(service.channel().await).create_user(request).await.unwrap();
        let seen = Arc::new(Seen::default());
        let mut tasks = Vec::new();
        for _ in 0..CALLERS {
            let (users, seen) = (UserServiceClient::new(service.channel().await), Arc::clone(&seen));
            tasks.push(tokio::spawn(async move {
                while !seen.over.load(Ordering::Relaxed) {
                    seen.note(call(users.clone()).await);
                    sleep(PAUSE).await;
                }
            }));
        }
        let victims = Self { tasks, seen };
        victims.get_on().await;
        victims
    }

    /// How many calls were answered so far.
    pub(crate) fn calls(&self) -> u64 {
        self.seen.calls.load(Ordering::Relaxed)
    }

    /// The longest that a call took since this was asked last.
    pub(crate) fn slowest(&self) -> Duration {
        std::mem::take(&mut self.seen.slowest.lock().unwrap())
    }

    /// Waits until ten more calls were answered.
    ///
    /// # Panics
    /// If they are not, or if any call failed.
    pub(crate) async fn get_on(&self) {
        let (before, deadline) = (self.calls(), Instant::now() + SOON);
        while self.calls() < before + 10 {
            self.assert_all_succeeded();
            assert!(Instant::now() < deadline, "victims get no answers");
            sleep(PAUSE).await;
        }
    }

    /// Ends the calls.
    ///
    /// # Panics
    /// If any call failed.
    pub(crate) async fn end(self) {
        self.seen.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        assert_eq!(self.seen.failures.lock().unwrap().len(), 0, "{:?}", self.seen.failures);
    }

    /// # Panics
    /// If any call failed.
    pub(crate) fn assert_all_succeeded(&self) {
        let failures = self.seen.failures.lock().unwrap();
        assert!(failures.is_empty(), "calls of victims failed: {failures:?}");
    }
}

impl Seen {
    fn note(&self, (answer, took): (Result<(), Status>, Duration)) {
        match answer {
            Ok(()) => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                let mut slowest = self.slowest.lock().unwrap();
                *slowest = took.max(*slowest);
            }
            Err(status) => self.failures.lock().unwrap().push(status),
        }
    }
}

/// One call, and how long it took.
async fn call(mut users: UserServiceClient<Channel>) -> (Result<(), Status>, Duration) {
    let start = Instant::now();
    let request = GetUserRequest { id: VICTIM.to_owned(), ..GetUserRequest::default() };
    let answer = users.get_user(request).await.map(drop);
    (answer, start.elapsed())
}
