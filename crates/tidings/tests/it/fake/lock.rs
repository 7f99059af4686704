//! The in-memory lock service.

use std::time::{Duration, Instant};

use tidings_proto::lock::acquire_lock_response::{Granted, Held, Outcome, TimedOut};
use tidings_proto::lock::lock_service_server::LockService;
use tidings_proto::lock::release_lock_response::Outcome as Released;
use tidings_proto::lock::{self as pb, Holder, Lock};
use tonic::{Code, Request, Response, Status};

use super::{FakeHandler, Store, refusal};

/// The interval at which a waiter polls the lock.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A hold of a lock.
#[derive(Clone, Debug)]
pub(crate) struct FakeHold {
    owner: String,
    pub(crate) token: i64,
    lease_id: String,
    request_id: String,
    ttl: Duration,
    begin: Instant,
    end: Instant,
}

fn to_proto(time: Duration) -> Option<prost_types::Duration> {
    time.try_into().ok()
}

fn from_proto(time: Option<prost_types::Duration>) -> Duration {
    time.and_then(|time| time.try_into().ok()).unwrap_or_default()
}

impl Store {
    /// Returns the hold of a lock, unless its lease has expired.
    pub(crate) fn hold(&self, name: &str) -> Option<&FakeHold> {
        self.holds.get(name).filter(|hold| Instant::now() < hold.end)
    }

    fn holder(&self, name: &str) -> Vec<Holder> {
        let holder = |hold: &FakeHold| Holder {
            owner: hold.owner.clone(),
            token: hold.token,
            held_for: to_proto(hold.begin.elapsed()),
            remaining: to_proto(hold.end.saturating_duration_since(Instant::now())),
        };
        self.hold(name).map(holder).into_iter().collect()
    }

    fn acquire(&mut self, request: &pb::AcquireLockRequest, waited: Duration) -> Option<Granted> {
        let (now, ttl) = (Instant::now(), from_proto(request.ttl));
        let known = self.hold(&request.name).cloned();
        let deduplicated = known.is_some();
        let mut hold = match known {
            Some(hold) if hold.request_id == request.request_id => hold,
            Some(_) => return None,
            None => {
                self.last_token += 1;
                let (owner, request_id) = (request.owner.clone(), request.request_id.clone());
                let (token, lease_id) = (self.last_token, format!("lease-{}", self.last_token));
                FakeHold { owner, token, lease_id, request_id, ttl, begin: now, end: now }
            }
        };
        hold.end = now + ttl;
        let (token, lease_id) = (hold.token, hold.lease_id.clone());
        self.holds.insert(request.name.clone(), hold);
        Some(Granted { token, lease_id, lease: to_proto(ttl), waited: to_proto(waited), deduplicated })
    }
}

#[tonic::async_trait]
impl LockService for FakeHandler {
    async fn acquire_lock(
        &self,
        request: Request<pb::AcquireLockRequest>,
    ) -> Result<Response<pb::AcquireLockResponse>, Status> {
        self.enter().await?;
        let (begin, request) = (Instant::now(), request.into_inner());
        let wait = from_proto(request.wait);
        let outcome = loop {
            let waited = begin.elapsed();
            if let Some(granted) = self.store().acquire(&request, waited) {
                break Outcome::Granted(granted);
            }
            let blockers = self.store().holder(&request.name);
            if wait.is_zero() {
                break Outcome::Held(Held { blockers, waiting: 0 });
            }
            if waited >= wait {
                break Outcome::TimedOut(TimedOut { blockers, position: 1 });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        Ok(Response::new(pb::AcquireLockResponse { outcome: Some(outcome) }))
    }

    async fn renew_lock(
        &self,
        request: Request<pb::RenewLockRequest>,
    ) -> Result<Response<pb::RenewLockResponse>, Status> {
        self.enter().await?;
        let request = request.into_inner();
        let mut store = self.store();
        let hold = store.hold(&request.name).filter(|hold| hold.lease_id == request.lease_id).cloned();
        let mut hold = hold.ok_or_else(|| refusal(Code::Aborted, "LEASE_LOST", "the lease is over"))?;
        hold.end = Instant::now() + hold.ttl;
        let lease = to_proto(hold.ttl);
        store.holds.insert(request.name, hold);
        store.renewals += 1;
        Ok(Response::new(pb::RenewLockResponse { lease }))
    }

    async fn release_lock(
        &self,
        request: Request<pb::ReleaseLockRequest>,
    ) -> Result<Response<pb::ReleaseLockResponse>, Status> {
        self.enter().await?;
        let request = request.into_inner();
        let mut store = self.store();
        let is_current = |hold: &FakeHold| hold.lease_id == request.lease_id && hold.token == request.token;
        let outcome = if store.hold(&request.name).is_some_and(is_current) {
            store.holds.remove(&request.name);
            Released::Released
        } else {
            Released::NotHeld
        };
        Ok(Response::new(pb::ReleaseLockResponse { outcome: outcome.into() }))
    }

    async fn check_lock(&self, _: Request<pb::CheckLockRequest>) -> Result<Response<pb::CheckLockResponse>, Status> {
        Err(Status::unimplemented("not implemented by the fake"))
    }

    async fn get_lock(&self, request: Request<pb::GetLockRequest>) -> Result<Response<pb::GetLockResponse>, Status> {
        self.enter().await?;
        let name = request.into_inner().name;
        let holders = self.store().holder(&name);
        Ok(Response::new(pb::GetLockResponse { lock: Some(Lock { name, holders, ..Default::default() }) }))
    }
}
