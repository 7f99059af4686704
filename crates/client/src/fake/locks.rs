//! A lock service that works correctly unless faults are injected.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidings_proto::lock::acquire_lock_response::{Granted, Held, Outcome, TimedOut};
use tidings_proto::lock::lock_service_server::{LockService, LockServiceServer};
use tidings_proto::lock::release_lock_response::Outcome as Released;
use tidings_proto::lock::{self as pb, Holder};
use tidings_status::Reply;
use tokio::time::{Instant, sleep};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

use super::FakeInstance;

/// Interval at which a waiter checks the lock.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Fault injected into one call.
#[derive(Clone, Debug)]
pub(crate) enum CallFault {
    /// The call succeeds.
    None,
    /// The call fails without effect.
    Refuse(Status),
    /// The call takes effect, and its response is lost.
    LoseResponse,
    /// The call takes effect after this time.
    Delay(Duration),
    /// The call takes effect at once; its response arrives after this time.
    DelayResponse(Duration),
}

/// State shared by all instances.
#[derive(Clone)]
pub(crate) struct FakeLocks {
    state: Arc<Mutex<FakeLockTable>>,
    faults: Arc<Mutex<FaultFn>>,
}

type FaultFn = Box<dyn FnMut(&'static str, usize) -> CallFault + Send>;

#[derive(Debug, Default)]
pub(crate) struct FakeLockTable {
    holds: BTreeMap<String, HoldEntry>,
    last_token: i64,
    /// Number of calls by method.
    calls: BTreeMap<&'static str, usize>,
    /// All AcquireLock requests, in order of arrival.
    pub(crate) acquires: Vec<pb::AcquireLockRequest>,
    /// Request ids that were granted before.
    granted: Vec<String>,
}

#[derive(Clone, Debug)]
struct HoldEntry {
    owner: String,
    token: i64,
    lease_id: String,
    request_id: String,
    ttl: Duration,
    expires_at: Instant,
}

impl fmt::Debug for FakeLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

fn status(code: Code, reason: pb::ErrorReason) -> Status {
    Reply::new(code, "lock.tidings", reason.text(), "injected by the test").into_status()
}

/// Returns the status of a draining instance.
pub(crate) fn draining() -> Status {
    status(Code::Unavailable, pb::ErrorReason::Draining)
}

/// Returns the status of a renewal whose lease has ended.
pub(crate) fn lease_lost() -> Status {
    status(Code::Aborted, pb::ErrorReason::LeaseLost)
}

/// Returns the status of a call that another call with its request id replaced.
pub(crate) fn taken_over() -> Status {
    status(Code::Aborted, pb::ErrorReason::TakenOver)
}

impl FakeLocks {
    /// A service without holds and without an instance.
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), faults: Arc::new(Mutex::new(Box::new(|_, _| CallFault::None))) }
    }

    /// Starts an instance.
    pub(crate) fn instance(&self, name: &str) -> FakeInstance {
        FakeInstance::start(name, Routes::new(LockServiceServer::new(self.clone())))
    }

    /// Injects `faults(method, n)` into the n-th call of a method since the start, counted from 1.
    pub(crate) fn inject_faults(&self, faults: impl FnMut(&'static str, usize) -> CallFault + Send + 'static) {
        *self.faults.lock().unwrap() = Box::new(faults);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, FakeLockTable> {
        self.state.lock().unwrap()
    }

    /// Returns true if `token` holds `name` and its lease has not expired.
    pub(crate) fn is_held(&self, name: &str, token: i64) -> bool {
        self.state().hold(name).is_some_and(|hold| hold.token == token)
    }

    /// Returns the remaining lease of `token` at the service; zero if it does not hold `name`.
    pub(crate) fn remaining(&self, name: &str, token: i64) -> Duration {
        let remaining = |hold: &HoldEntry| hold.expires_at.saturating_duration_since(Instant::now());
        self.state().hold(name).filter(|hold| hold.token == token).map(remaining).unwrap_or_default()
    }

    /// Returns the number of calls of a method.
    pub(crate) fn calls(&self, method: &'static str) -> usize {
        self.state().calls.get(method).copied().unwrap_or_default()
    }

    /// Drops the hold of `name`, as if Redis had lost it.
    pub(crate) fn drop_hold(&self, name: &str) {
        self.state().holds.remove(name);
    }

    /// Counts a call, and runs it with the injected fault.
    async fn respond<R>(
        &self,
        method: &'static str,
        done: impl Future<Output = Result<R, Status>>,
    ) -> Result<Response<R>, Status> {
        let count = {
            let mut state = self.state();
            let count = state.calls.entry(method).or_default();
            *count += 1;
            *count
        };
        let fault = (self.faults.lock().unwrap())(method, count);
        match fault {
            CallFault::Refuse(status) => return Err(status),
            CallFault::Delay(time) => sleep(time).await,
            _ => {}
        }
        let response = done.await?;
        match fault {
            CallFault::LoseResponse => return Err(Status::unavailable("the connection was cut")),
            CallFault::DelayResponse(time) => sleep(time).await,
            _ => {}
        }
        Ok(Response::new(response))
    }
}

impl FakeLockTable {
    /// Returns the hold of a lock, `None` if its lease has expired.
    fn hold(&self, name: &str) -> Option<&HoldEntry> {
        self.holds.get(name).filter(|hold| Instant::now() < hold.expires_at)
    }

    /// Tries to acquire a lock. Returns the hold and if it existed before, `None` if it is taken.
    fn acquire(&mut self, request: &pb::AcquireLockRequest) -> Result<Option<(HoldEntry, bool)>, Status> {
        let now = Instant::now();
        match self.hold(&request.name).cloned() {
            Some(mut hold) if hold.request_id == request.request_id => {
                hold.expires_at = now + hold.ttl;
                self.holds.insert(request.name.clone(), hold.clone());
                return Ok(Some((hold, true)));
            }
            _ if self.granted.contains(&request.request_id) => {
                return Err(status(Code::FailedPrecondition, pb::ErrorReason::LeaseOver));
            }
            Some(_) => return Ok(None),
            None => {}
        }
        self.last_token += 1;
        self.granted.push(request.request_id.clone());
        let ttl = request.ttl.and_then(|ttl| ttl.try_into().ok()).unwrap();
        let hold = HoldEntry {
            owner: request.owner.clone(),
            token: self.last_token,
            lease_id: format!("lease-{}", self.last_token),
            request_id: request.request_id.clone(),
            ttl,
            expires_at: now + ttl,
        };
        self.holds.insert(request.name.clone(), hold.clone());
        Ok(Some((hold, false)))
    }

    /// Returns the outcome for a caller that has `waited` of `wait`; `None` if it keeps waiting.
    fn outcome(
        &mut self,
        request: &pb::AcquireLockRequest,
        waited: Duration,
        wait: Duration,
    ) -> Result<Option<Outcome>, Status> {
        if let Some((hold, deduplicated)) = self.acquire(request)? {
            return Ok(Some(Outcome::Granted(Granted {
                token: hold.token,
                lease_id: hold.lease_id,
                lease: hold.ttl.try_into().ok(),
                waited: waited.try_into().ok(),
                deduplicated,
            })));
        }
        let blockers = self.blockers(&request.name);
        Ok(if wait.is_zero() {
            Some(Outcome::Held(Held { blockers, waiting: 3 }))
        } else if waited >= wait {
            Some(Outcome::TimedOut(TimedOut { blockers, position: 1 }))
        } else {
            None
        })
    }

    fn blockers(&self, name: &str) -> Vec<Holder> {
        let holder = |hold: &HoldEntry| Holder { owner: hold.owner.clone(), token: hold.token, ..Default::default() };
        self.hold(name).map(holder).into_iter().collect()
    }
}

#[tonic::async_trait]
impl LockService for FakeLocks {
    async fn acquire_lock(
        &self,
        request: Request<pb::AcquireLockRequest>,
    ) -> Result<Response<pb::AcquireLockResponse>, Status> {
        let (arrived, request) = (Instant::now(), request.into_inner());
        self.state().acquires.push(request.clone());
        let acquire = async {
            let wait = request.wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
            loop {
                if let Some(outcome) = self.state().outcome(&request, arrived.elapsed(), wait)? {
                    return Ok(pb::AcquireLockResponse { outcome: Some(outcome) });
                }
                sleep(POLL_INTERVAL).await;
            }
        };
        self.respond("AcquireLock", acquire).await
    }

    async fn renew_lock(
        &self,
        request: Request<pb::RenewLockRequest>,
    ) -> Result<Response<pb::RenewLockResponse>, Status> {
        let request = request.into_inner();
        let renew = async {
            let mut state = self.state();
            let hold = state.hold(&request.name).filter(|hold| hold.lease_id == request.lease_id).cloned();
            let mut hold = hold.filter(|hold| hold.token == request.token).ok_or_else(lease_lost)?;
            hold.expires_at = Instant::now() + hold.ttl;
            let lease = hold.ttl.try_into().ok();
            state.holds.insert(request.name.clone(), hold);
            Ok(pb::RenewLockResponse { lease })
        };
        self.respond("RenewLock", renew).await
    }

    async fn release_lock(
        &self,
        request: Request<pb::ReleaseLockRequest>,
    ) -> Result<Response<pb::ReleaseLockResponse>, Status> {
        let request = request.into_inner();
        let release = async {
            let mut state = self.state();
            let held = state.hold(&request.name).is_some_and(|hold| hold.lease_id == request.lease_id);
            if held {
                state.holds.remove(&request.name);
            }
            let outcome = if held { Released::Released } else { Released::NotHeld };
            Ok(pb::ReleaseLockResponse { outcome: outcome.into() })
        };
        self.respond("ReleaseLock", release).await
    }

    async fn check_lock(&self, _: Request<pb::CheckLockRequest>) -> Result<Response<pb::CheckLockResponse>, Status> {
        Err(Status::unimplemented("not part of this fake"))
    }

    async fn get_lock(&self, _: Request<pb::GetLockRequest>) -> Result<Response<pb::GetLockResponse>, Status> {
        Err(Status::unimplemented("not part of this fake"))
    }
}
