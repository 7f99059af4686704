//! A lock service on loopback that grants everything.
//!
//! Each instance has its own runtime, so that it can be killed like a process.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tidings_proto::lock::acquire_lock_response::{Granted, Outcome};
use tidings_proto::lock::lock_service_server::{LockService, LockServiceServer};
use tidings_proto::lock::{self as pb, Lock};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// One instance of the lock service.
#[derive(Debug)]
pub(crate) struct LockInstance {
    service: GrantAll,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl LockInstance {
    /// Starts an instance on a free port; it returns `name` in GetLock.
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, service) = (listener.local_addr().unwrap(), GrantAll { name });
        let runtime = Some(serve(listener, service.clone()));
        Self { service, address, runtime }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Stops the instance abruptly, with all its connections.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Starts the instance again on the same port, as soon as the port is free.
    pub(crate) async fn restart(&mut self) {
        let begin = Instant::now();
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(begin.elapsed() < Duration::from_mins(1), "{}: {error}", self.address),
            }
            sleep(Duration::from_millis(10)).await;
        };
        self.runtime = Some(serve(listener, self.service.clone()));
    }
}

impl Drop for LockInstance {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn serve(listener: TcpListener, service: GrantAll) -> Runtime {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder().add_service(LockServiceServer::new(service)).serve_with_incoming(incoming).await.unwrap();
    });
    runtime
}

#[derive(Clone, Debug)]
struct GrantAll {
    name: &'static str,
}

#[tonic::async_trait]
impl LockService for GrantAll {
    async fn acquire_lock(
        &self,
        request: Request<pb::AcquireLockRequest>,
    ) -> Result<Response<pb::AcquireLockResponse>, Status> {
        let granted =
            Granted { token: 1, lease_id: "one".into(), lease: request.into_inner().ttl, ..Default::default() };
        Ok(Response::new(pb::AcquireLockResponse { outcome: Some(Outcome::Granted(granted)) }))
    }

    async fn renew_lock(&self, _: Request<pb::RenewLockRequest>) -> Result<Response<pb::RenewLockResponse>, Status> {
        Ok(Response::new(pb::RenewLockResponse { lease: Some(prost_types::Duration { seconds: 3, nanos: 0 }) }))
    }

    async fn release_lock(
        &self,
        _: Request<pb::ReleaseLockRequest>,
    ) -> Result<Response<pb::ReleaseLockResponse>, Status> {
        Ok(Response::new(pb::ReleaseLockResponse::default()))
    }

    async fn check_lock(&self, _: Request<pb::CheckLockRequest>) -> Result<Response<pb::CheckLockResponse>, Status> {
        Err(Status::unimplemented("not part of this fake"))
    }

    async fn get_lock(&self, _: Request<pb::GetLockRequest>) -> Result<Response<pb::GetLockResponse>, Status> {
        let lock = Lock { name: self.name.to_owned(), ..Default::default() };
        Ok(Response::new(pb::GetLockResponse { lock: Some(lock) }))
    }
}
