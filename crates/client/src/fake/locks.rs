//! The lock service, honest unless told otherwise.

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

use super::Instance;

/// How often a waiter looks whether the lock is free.
const LOOK: Duration = Duration::from_millis(10);

/// What happens to one call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing: it is answered.
    None,
    /// It is not done.
    Refuse(Status),
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// It arrives so much later.
    Delay(Duration),
    /// It is done, and answered so much later.
    DelayAnswer(Duration),
}

/// What all instances have in common.
#[derive(Clone)]
pub(crate) struct Locks {
    state: Arc<Mutex<State>>,
    faults: Arc<Mutex<Faults>>,
}

type Faults = Box<dyn FnMut(&'static str, usize) -> Fault + Send>;

#[derive(Debug, Default)]
pub(crate) struct State {
    holds: BTreeMap<String, Hold>,
    last_token: i64,
    /// The calls by method, as they arrived.
    calls: BTreeMap<&'static str, usize>,
    /// Each AcquireLock as it arrived.
    pub(crate) acquires: Vec<pb::AcquireLockRequest>,
    /// The requests that were granted once.
    granted: Vec<String>,
}

#[derive(Clone, Debug)]
struct Hold {
    owner: String,
    token: i64,
    lease_id: String,
    request_id: String,
    ttl: Duration,
    ends: Instant,
}

impl fmt::Debug for Locks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

fn refusal(code: Code, reason: &'static str) -> Status {
    Reply::new(code, "lock.tidings", reason, "as the test wants it").into_status()
}

/// What an instance that shuts down says.
pub(crate) fn draining() -> Status {
    refusal(Code::Unavailable, "DRAINING")
}

/// What an instance says of a lease that is over.
pub(crate) fn lease_lost() -> Status {
    refusal(Code::Aborted, "LEASE_LOST")
}

/// What an instance says to the first of two calls of one request.
pub(crate) fn taken_over() -> Status {
    refusal(Code::Aborted, "TAKEN_OVER")
}

impl Locks {
    /// Locks that nobody holds, without an instance.
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), faults: Arc::new(Mutex::new(Box::new(|_, _| Fault::None))) }
    }

    /// Starts an instance.
    pub(crate) fn instance(&self, name: &str) -> Instance {
        Instance::start(name, Routes::new(LockServiceServer::new(self.clone())))
    }

    /// Misbehaves from now on as `faults` says for a method and the how manieth call of it this is, from 1 on.
    pub(crate) fn misbehave(&self, faults: impl FnMut(&'static str, usize) -> Fault + Send + 'static) {
        *self.faults.lock().unwrap() = Box::new(faults);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether `token` is that of a hold of `name` that has not run out, not even by a moment.
    pub(crate) fn is_held(&self, name: &str, token: i64) -> bool {
        self.state().hold(name).is_some_and(|hold| hold.token == token)
    }

    /// How long the hold of `token` lasts at the service; nothing if it is over.
    pub(crate) fn remaining(&self, name: &str, token: i64) -> Duration {
        let remaining = |hold: &Hold| hold.ends.saturating_duration_since(Instant::now());
        self.state().hold(name).filter(|hold| hold.token == token).map(remaining).unwrap_or_default()
    }

    /// How often a method was called.
    pub(crate) fn calls(&self, method: &'static str) -> usize {
        self.state().calls.get(method).copied().unwrap_or_default()
    }

    /// Ends the hold of `name`, as when Redis loses it.
    pub(crate) fn forget(&self, name: &str) {
        self.state().holds.remove(name);
    }

    /// Lets a call happen, and what is to happen to it.
    async fn answer<R>(
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
            Fault::Refuse(status) => return Err(status),
            Fault::Delay(time) => sleep(time).await,
            _ => {}
        }
        let answer = done.await?;
        match fault {
            Fault::LoseAnswer => return Err(Status::unavailable("the connection was cut")),
            Fault::DelayAnswer(time) => sleep(time).await,
            _ => {}
        }
        Ok(Response::new(answer))
    }
}

impl State {
    /// The hold of a lock, unless its lease has run out.
    fn hold(&self, name: &str) -> Option<&Hold> {
        self.holds.get(name).filter(|hold| Instant::now() < hold.ends)
    }

    /// Tries to acquire a lock once. Returns nothing if somebody else holds it.
    fn acquire(&mut self, request: &pb::AcquireLockRequest) -> Result<Option<(Hold, bool)>, Status> {
        let now = Instant::now();
        match self.hold(&request.name).cloned() {
            Some(mut hold) if hold.request_id == request.request_id => {
                hold.ends = now + hold.ttl;
                self.holds.insert(request.name.clone(), hold.clone());
                return Ok(Some((hold, true)));
            }
            _ if self.granted.contains(&request.request_id) => {
                return Err(refusal(Code::FailedPrecondition, "LEASE_OVER"));
            }
            Some(_) => return Ok(None),
            None => {}
        }
        self.last_token += 1;
        self.granted.push(request.request_id.clone());
        let ttl = request.ttl.and_then(|ttl| ttl.try_into().ok()).unwrap();
        let hold = Hold {
            owner: request.owner.clone(),
            token: self.last_token,
            lease_id: format!("lease-{}", self.last_token),
            request_id: request.request_id.clone(),
            ttl,
            ends: now + ttl,
        };
        self.holds.insert(request.name.clone(), hold.clone());
        Ok(Some((hold, false)))
    }

    /// What there is to answer to who has `waited` and wants to `wait`; nothing yet if it waits on.
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
        let holder = |hold: &Hold| Holder { owner: hold.owner.clone(), token: hold.token, ..Default::default() };
        self.hold(name).map(holder).into_iter().collect()
    }
}

#[tonic::async_trait]
impl LockService for Locks {
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
                sleep(LOOK).await;
            }
        };
        self.answer("AcquireLock", acquire).await
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
            hold.ends = Instant::now() + hold.ttl;
            let lease = hold.ttl.try_into().ok();
            state.holds.insert(request.name.clone(), hold);
            Ok(pb::RenewLockResponse { lease })
        };
        self.answer("RenewLock", renew).await
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
        self.answer("ReleaseLock", release).await
    }

    async fn check_lock(&self, _: Request<pb::CheckLockRequest>) -> Result<Response<pb::CheckLockResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn get_lock(&self, _: Request<pb::GetLockRequest>) -> Result<Response<pb::GetLockResponse>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}
