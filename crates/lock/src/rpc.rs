//! gRPC handlers: check the request, call the domain, convert the outcome.

mod status;

use std::time::Duration;

use tidings_proto::lock as pb;
use tidings_proto::lock::lock_service_server::LockService;
use tidings_server::{Deadline, LongCallSlots};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::domain::LockManager;
use crate::wire;

/// Implementation of `LockService`.
#[derive(Clone, Debug)]
pub struct Rpc {
    locks: LockManager,
    default_ttl: Duration,
}

impl Rpc {
    /// Creates the service over the domain.
    pub fn new(locks: LockManager, default_ttl: Duration) -> Self {
        Self { locks, default_ttl }
    }
}

#[tonic::async_trait]
impl LockService for Rpc {
    async fn acquire_lock(
        &self,
        request: Request<pb::AcquireLockRequest>,
    ) -> Result<Response<pb::AcquireLockResponse>, Status> {
        let deadline = request.extensions().get().and_then(Deadline::callers);
        let slots = request.extensions().get::<LongCallSlots>().cloned();
        let acquire = wire::acquire(request.into_inner(), self.default_ttl, Instant::now(), deadline)?;
        let slots = slots.filter(|_| acquire.wait_until.is_some());
        let _slot = slots.map(|slots| slots.take().map_err(status::connection_full)).transpose()?;
        let acquired = self.locks.acquire(acquire).await?;
        Ok(Response::new(wire::acquired(acquired)))
    }

    async fn renew_lock(
        &self,
        request: Request<pb::RenewLockRequest>,
    ) -> Result<Response<pb::RenewLockResponse>, Status> {
        let hold = wire::renew(request.into_inner())?;
        let lease = self.locks.renew(&hold.name, &hold.lease, hold.token).await?;
        Ok(Response::new(wire::renewed(lease)))
    }

    async fn release_lock(
        &self,
        request: Request<pb::ReleaseLockRequest>,
    ) -> Result<Response<pb::ReleaseLockResponse>, Status> {
        let hold = wire::release(request.into_inner())?;
        let released = self.locks.release(&hold.name, &hold.lease, hold.token).await?;
        Ok(Response::new(wire::released(released)))
    }

    async fn check_lock(
        &self,
        request: Request<pb::CheckLockRequest>,
    ) -> Result<Response<pb::CheckLockResponse>, Status> {
        let (name, token) = wire::check(request.into_inner())?;
        let state = self.locks.check(&name, token).await?;
        Ok(Response::new(wire::token_state(state)))
    }

    async fn get_lock(&self, request: Request<pb::GetLockRequest>) -> Result<Response<pb::GetLockResponse>, Status> {
        let name = wire::get(request.into_inner())?;
        let lock = self.locks.get(name).await?;
        Ok(Response::new(wire::lock(lock)))
    }
}
