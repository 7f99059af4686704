//! A client whose calls read like sentences, and that knows until when it may believe in what it holds.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_proto::lock as pb;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_status::Failure;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::{PATIENCE, eventually};

pub(crate) use tidings_proto::lock::acquire_lock_response::{Held, Outcome, TimedOut};
pub(crate) use tidings_proto::lock::check_lock_response::State;
pub(crate) use tidings_proto::lock::release_lock_response::Outcome as Released;

/// An answer, or why there is none.
pub(crate) type Answer<T> = Result<T, Box<Failure>>;

/// A client of one instance. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client(LockServiceClient<Channel>);

/// A hold, as its holder knows it.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) name: String,
    pub(crate) token: i64,
    pub(crate) lease_id: String,
    pub(crate) lease: Duration,
    pub(crate) waited: Duration,
    pub(crate) deduplicated: bool,
    /// Until when its holder may believe in it.
    pub(crate) deadline: Instant,
}

/// What became of an acquire.
#[derive(Clone, Debug)]
pub(crate) enum Acquired {
    Granted(Hold),
    Held(Held),
    TimedOut(TimedOut),
}

impl Acquired {
    #[track_caller]
    pub(crate) fn granted(self) -> Hold {
        match self {
            Self::Granted(hold) => hold,
            other => panic!("not granted: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn held(self) -> Held {
        match self {
            Self::Held(held) => held,
            other => panic!("not held by another: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn timed_out(self) -> TimedOut {
        match self {
            Self::TimedOut(timed_out) => timed_out,
            other => panic!("not timed out: {other:?}"),
        }
    }
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self(LockServiceClient::new(channel))
    }

    /// Waits until the instance accepts calls.
    pub(super) async fn reachable(&self) {
        eventually("the instance answers", async || {
            let malformed = self.get("").await.unwrap_err();
            malformed.code == Code::InvalidArgument
        })
        .await;
    }

    /// Acquires as asked for.
    pub(crate) async fn acquire(&self, request: pb::AcquireLockRequest) -> Answer<Acquired> {
        self.acquire_within(request, None).await
    }

    /// Acquires with a deadline for the call.
    pub(crate) async fn acquire_within(
        &self,
        request: pb::AcquireLockRequest,
        deadline: Option<Duration>,
    ) -> Answer<Acquired> {
        let name = request.name.clone();
        let mut request = Request::new(request);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        let sent = Instant::now();
        let answered = answer(self.0.clone().acquire_lock(request).await)?;
        Ok(match answered.outcome.unwrap() {
            Outcome::Granted(granted) => {
                let (lease, waited) = (duration(granted.lease), duration(granted.waited));
                let (token, lease_id, deduplicated) = (granted.token, granted.lease_id, granted.deduplicated);
                let deadline = sent + waited + lease;
                Acquired::Granted(Hold { name, token, lease_id, lease, waited, deduplicated, deadline })
            }
            Outcome::Held(held) => Acquired::Held(held),
            Outcome::TimedOut(timed_out) => Acquired::TimedOut(timed_out),
        })
    }

    /// Acquires a lock that is free.
    pub(crate) async fn take(&self, name: &str, owner: &str) -> Hold {
        self.acquire(once(name, owner)).await.unwrap().granted()
    }

    /// Acquires in the background.
    pub(crate) fn acquiring(&self, request: pb::AcquireLockRequest) -> JoinHandle<Answer<Acquired>> {
        let client = self.clone();
        tokio::spawn(async move { client.acquire(request).await })
    }

    /// Acquires once, again and again while nobody is granted anything.
    pub(crate) async fn insist(&self, request: pb::AcquireLockRequest) -> Acquired {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.acquire(request.clone()).await {
                Ok(acquired) => return acquired,
                Err(failure) => {
                    let known = failure.code == Code::Unavailable || failure.reason.is_empty();
                    assert!(known && Instant::now() < until, "{failure}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Renews a hold; its deadline is that of the answer.
    pub(crate) async fn renew(&self, hold: &mut Hold) -> Answer<Duration> {
        let request =
            pb::RenewLockRequest { name: hold.name.clone(), lease_id: hold.lease_id.clone(), token: hold.token };
        let sent = Instant::now();
        let lease = duration(answer(self.0.clone().renew_lock(request).await)?.lease);
        hold.deadline = sent + lease;
        Ok(lease)
    }

    pub(crate) async fn release(&self, hold: &Hold) -> Answer<Released> {
        let request =
            pb::ReleaseLockRequest { name: hold.name.clone(), lease_id: hold.lease_id.clone(), token: hold.token };
        self.release_as(request).await
    }

    pub(crate) async fn release_as(&self, request: pb::ReleaseLockRequest) -> Answer<Released> {
        Ok(answer(self.0.clone().release_lock(request).await)?.outcome())
    }

    pub(crate) async fn renew_as(&self, request: pb::RenewLockRequest) -> Answer<Duration> {
        Ok(duration(answer(self.0.clone().renew_lock(request).await)?.lease))
    }

    /// What a token is worth, and how much is left of its lease.
    pub(crate) async fn check(&self, name: &str, token: i64) -> Answer<(State, Option<Duration>)> {
        let request = pb::CheckLockRequest { name: name.to_owned(), token };
        let checked = answer(self.0.clone().check_lock(request).await)?;
        Ok((checked.state(), checked.remaining.map(|remaining| duration(Some(remaining)))))
    }

    pub(crate) async fn get(&self, name: &str) -> Answer<pb::Lock> {
        let request = pb::GetLockRequest { name: name.to_owned() };
        Ok(answer(self.0.clone().get_lock(request).await)?.lock.unwrap())
    }
}

/// A request that does not wait.
pub(crate) fn once(name: &str, owner: &str) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { name: name.to_owned(), owner: owner.to_owned(), ..Default::default() }
}

/// A request that waits for as long as it may.
pub(crate) fn waiting(name: &str, owner: &str) -> pb::AcquireLockRequest {
    waiting_for(name, owner, Duration::from_mins(1))
}

/// A request that waits for so long.
pub(crate) fn waiting_for(name: &str, owner: &str, wait: Duration) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { wait: wait.try_into().ok(), ..once(name, owner) }
}

/// The same with a longer lease.
pub(crate) fn lasting(ttl: Duration, request: pb::AcquireLockRequest) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { ttl: ttl.try_into().ok(), ..request }
}

/// The same with a name for the acquire.
pub(crate) fn named(request_id: &str, request: pb::AcquireLockRequest) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { request_id: request_id.to_owned(), ..request }
}

/// Code and reason of a refusal.
#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Answer<T>) -> (Code, String) {
    let failure = answer.unwrap_err();
    (failure.code, failure.reason)
}

fn duration(duration: Option<prost_types::Duration>) -> Duration {
    duration.unwrap().try_into().unwrap()
}

fn answer<T>(response: Result<Response<T>, Status>) -> Answer<T> {
    response.map(Response::into_inner).map_err(|status| Box::new(Failure::from(&status)))
}
