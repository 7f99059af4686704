//! A lock client for tests, which computes the deadlines of its holds.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_devstack::testing::{PATIENCE, eventually};
use tidings_proto::lock as pb;
use tidings_proto::lock::lock_service_client::LockServiceClient;
use tidings_status::Failure;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

pub(crate) use tidings_proto::lock::acquire_lock_response::{Held, Outcome, TimedOut};
pub(crate) use tidings_proto::lock::check_lock_response::State;
pub(crate) use tidings_proto::lock::release_lock_response::Outcome as Released;

/// Response of a call, or its decoded failure.
pub(crate) type RpcResult<T> = Result<T, Box<Failure>>;

/// A client of one instance. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LockClient(LockServiceClient<Channel>);

/// A hold, as its holder knows it.
#[derive(Clone, Debug)]
pub(crate) struct HeldLock {
    pub(crate) name: String,
    pub(crate) token: i64,
    pub(crate) lease_id: String,
    pub(crate) lease: Duration,
    pub(crate) waited: Duration,
    pub(crate) deduplicated: bool,
    /// End of the time in which the holder may rely on the lease.
    pub(crate) deadline: Instant,
}

/// Outcome of an acquire.
#[derive(Clone, Debug)]
pub(crate) enum AcquireResult {
    Granted(HeldLock),
    Held(Held),
    TimedOut(TimedOut),
}

impl AcquireResult {
    #[track_caller]
    pub(crate) fn granted(self) -> HeldLock {
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

impl LockClient {
    pub(super) fn new(address: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self(LockServiceClient::new(channel))
    }

    /// Waits until the instance accepts calls.
    pub(super) async fn wait_until_reachable(&self) {
        eventually("the instance answers", async || {
            let malformed = self.get("").await.unwrap_err();
            malformed.code == Code::InvalidArgument
        })
        .await;
    }

    /// Acquires without a deadline for the call.
    pub(crate) async fn acquire(&self, request: pb::AcquireLockRequest) -> RpcResult<AcquireResult> {
        self.acquire_within(request, None).await
    }

    /// Acquires with a deadline for the call.
    pub(crate) async fn acquire_within(
        &self,
        request: pb::AcquireLockRequest,
        deadline: Option<Duration>,
    ) -> RpcResult<AcquireResult> {
        let name = request.name.clone();
        let mut request = Request::new(request);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        let sent = Instant::now();
        let response = into_result(self.0.clone().acquire_lock(request).await)?;
        Ok(match response.outcome.unwrap() {
            Outcome::Granted(granted) => {
                let (lease, waited) = (duration(granted.lease), duration(granted.waited));
                let (token, lease_id, deduplicated) = (granted.token, granted.lease_id, granted.deduplicated);
                let deadline = sent + waited + lease;
                AcquireResult::Granted(HeldLock { name, token, lease_id, lease, waited, deduplicated, deadline })
            }
            Outcome::Held(held) => AcquireResult::Held(held),
            Outcome::TimedOut(timed_out) => AcquireResult::TimedOut(timed_out),
        })
    }

    /// Acquires a lock that is free.
    pub(crate) async fn take(&self, name: &str, owner: &str) -> HeldLock {
        self.acquire(once(name, owner)).await.unwrap().granted()
    }

    /// Acquires in the background.
    pub(crate) fn spawn_acquire(&self, request: pb::AcquireLockRequest) -> JoinHandle<RpcResult<AcquireResult>> {
        let client = self.clone();
        tokio::spawn(async move { client.acquire(request).await })
    }

    /// Acquires, and retries while the service is unavailable or in quarantine.
    pub(crate) async fn acquire_with_retries(&self, request: pb::AcquireLockRequest) -> AcquireResult {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.acquire(request.clone()).await {
                Ok(acquired) => return acquired,
                Err(failure) => {
                    let known = failure.code == Code::Unavailable || failure.reason.is_empty();
                    assert!(known && Instant::now() < deadline, "{failure}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Renews a hold and its deadline.
    pub(crate) async fn renew(&self, hold: &mut HeldLock) -> RpcResult<Duration> {
        let request =
            pb::RenewLockRequest { name: hold.name.clone(), lease_id: hold.lease_id.clone(), token: hold.token };
        let sent = Instant::now();
        let lease = duration(into_result(self.0.clone().renew_lock(request).await)?.lease);
        hold.deadline = sent + lease;
        Ok(lease)
    }

    pub(crate) async fn release(&self, hold: &HeldLock) -> RpcResult<Released> {
        let request =
            pb::ReleaseLockRequest { name: hold.name.clone(), lease_id: hold.lease_id.clone(), token: hold.token };
        self.release_as(request).await
    }

    pub(crate) async fn release_as(&self, request: pb::ReleaseLockRequest) -> RpcResult<Released> {
        Ok(into_result(self.0.clone().release_lock(request).await)?.outcome())
    }

    pub(crate) async fn renew_as(&self, request: pb::RenewLockRequest) -> RpcResult<Duration> {
        Ok(duration(into_result(self.0.clone().renew_lock(request).await)?.lease))
    }

    /// Returns the state of a token, and the time left of its lease.
    pub(crate) async fn check(&self, name: &str, token: i64) -> RpcResult<(State, Option<Duration>)> {
        let request = pb::CheckLockRequest { name: name.to_owned(), token };
        let checked = into_result(self.0.clone().check_lock(request).await)?;
        Ok((checked.state(), checked.remaining.map(|remaining| duration(Some(remaining)))))
    }

    pub(crate) async fn get(&self, name: &str) -> RpcResult<pb::Lock> {
        let request = pb::GetLockRequest { name: name.to_owned() };
        Ok(into_result(self.0.clone().get_lock(request).await)?.lock.unwrap())
    }
}

/// Builds a request that does not wait.
pub(crate) fn once(name: &str, owner: &str) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { name: name.to_owned(), owner: owner.to_owned(), ..Default::default() }
}

/// Builds a request that waits for the longest time allowed.
pub(crate) fn waiting(name: &str, owner: &str) -> pb::AcquireLockRequest {
    waiting_for(name, owner, Duration::from_mins(1))
}

/// Builds a request that waits for `wait`.
pub(crate) fn waiting_for(name: &str, owner: &str, wait: Duration) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { wait: wait.try_into().ok(), ..once(name, owner) }
}

/// Sets the lease of a request.
pub(crate) fn lasting(ttl: Duration, request: pb::AcquireLockRequest) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { ttl: ttl.try_into().ok(), ..request }
}

/// Sets the request id of a request.
pub(crate) fn named(request_id: &str, request: pb::AcquireLockRequest) -> pb::AcquireLockRequest {
    pb::AcquireLockRequest { request_id: request_id.to_owned(), ..request }
}

/// Returns code and reason of a refusal.
#[track_caller]
pub(crate) fn refusal<T: std::fmt::Debug>(result: RpcResult<T>) -> (Code, String) {
    let failure = result.unwrap_err();
    (failure.code, failure.reason)
}

fn duration(duration: Option<prost_types::Duration>) -> Duration {
    duration.unwrap().try_into().unwrap()
}

fn into_result<T>(response: Result<Response<T>, Status>) -> RpcResult<T> {
    response.map(Response::into_inner).map_err(|status| Box::new(Failure::from(&status)))
}
