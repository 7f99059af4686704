//! The measured servers: ours, with log and metrics as in a service, and tonic's own.

use std::net::SocketAddr;
use std::time::Duration;

use tidings_proto::lock as pb;
use tidings_proto::lock::lock_service_server::{LockService, LockServiceServer};
use tidings_server::{Args, Server, telemetry};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// A lock service that returns an empty response to `GetLock` after a delay.
#[derive(Clone, Copy)]
struct DelayedLocks(Duration);

/// Serves until the process is killed; prints its addresses.
pub(crate) async fn serve(kind: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    println!("{address}\n{admin}");
    match kind {
        "ours" => ours(listener, admin, 1024, DelayedLocks(Duration::ZERO)).await,
        "small" => ours(listener, admin, 2, DelayedLocks(Duration::from_millis(100))).await,
        _ => {
            let stock = tonic::transport::Server::builder().tcp_nodelay(true);
            let service = LockServiceServer::new(DelayedLocks(Duration::ZERO));
            stock.clone().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        }
    }
}

async fn ours(listener: TcpListener, admin: SocketAddr, max_in_flight: u32, locks: DelayedLocks) {
    let args = Args { admin_listen: Some(admin), max_in_flight, max_connections: 10_000, ..Args::default() };
    telemetry::init("figures", &args.traces).unwrap();
    let server = Server::new(&args).add(LockServiceServer::new(locks));
    server.serve(listener, CancellationToken::new()).await.unwrap();
}

#[tonic::async_trait]
impl LockService for DelayedLocks {
    async fn get_lock(&self, _: Request<pb::GetLockRequest>) -> Result<Response<pb::GetLockResponse>, Status> {
        if !self.0.is_zero() {
            sleep(self.0).await;
        }
        Ok(Response::new(pb::GetLockResponse::default()))
    }

    async fn acquire_lock(
        &self,
        _: Request<pb::AcquireLockRequest>,
    ) -> Result<Response<pb::AcquireLockResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn renew_lock(&self, _: Request<pb::RenewLockRequest>) -> Result<Response<pb::RenewLockResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn release_lock(
        &self,
        _: Request<pb::ReleaseLockRequest>,
    ) -> Result<Response<pb::ReleaseLockResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn check_lock(&self, _: Request<pb::CheckLockRequest>) -> Result<Response<pb::CheckLockResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
