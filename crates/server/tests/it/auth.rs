//! Authentication with tokens, against a whole server.

use std::convert::Infallible;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream;
use http::uri::PathAndQuery;
use http::{Request, Response};
use http_body_util::Empty;
use tempfile::TempDir;
use tidings_server::auth::{Secret, TokenEntry};
use tidings_server::health::pb::HealthCheckRequest;
use tidings_server::{Args, security};
use tidings_status::Failure;
use tokio::time::{sleep, timeout};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::NamedService;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tower::Service;

use crate::support::{SOON, TestServer, no_lame_duck};

/// Interval at which the server polls its token list.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const GET: &str = "/tidings.lock.v1.LockService/GetLock";
const ACQUIRE: &str = "/tidings.lock.v1.LockService/AcquireLock";

/// A lock service that returns an empty message for every call.
#[derive(Clone, Debug)]
struct EmptyLocks;

impl Service<Request<Body>> for EmptyLocks {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut response = Response::new(Body::new(Empty::new()));
        for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "0")] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        Box::pin(async { Ok(response) })
    }
}

impl NamedService for EmptyLocks {
    const NAME: &'static str = "tidings.lock.v1.LockService";
}

/// A server that requires tokens.
struct TokenServer {
    server: TestServer,
    dir: TempDir,
}

impl TokenServer {
    async fn start(tokens: &[(&Secret, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        write(&dir, tokens);
        let security = security::Args {
            token_file: Some(dir.path().join("tokens")),
            file_poll_interval: POLL_INTERVAL,
            ..security::Args::default()
        };
        let args = Args { security, ..no_lame_duck() };
        Self {
            server: TestServer::serving(args, |server| server.methods(tidings_proto::METHODS).add(EmptyLocks)).await,
            dir,
        }
    }

    /// Replaces the accepted tokens.
    fn accept(&self, tokens: &[(&Secret, &str)]) {
        write(&self.dir, tokens);
    }

    async fn call(&self, path: &'static str, token: Option<&Secret>) -> Result<(), Failure> {
        call(&self.server.channel().await, path, token).await
    }
}

fn write(dir: &TempDir, tokens: &[(&Secret, &str)]) {
    let line =
        |(secret, scopes): &(&Secret, &str)| TokenEntry::new("test", secret.hash(), scopes.parse().unwrap()).unwrap();
    let lines: Vec<_> = tokens.iter().map(|token| line(token).to_string()).collect();
    fs::write(dir.path().join("new"), lines.join("\n")).unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("tokens")).unwrap();
}

async fn call(channel: &Channel, path: &'static str, token: Option<&Secret>) -> Result<(), Failure> {
    let mut request = tonic::Request::new(());
    if let Some(token) = token {
        let value = format!("Bearer {}", token.reveal()).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(path);
    // A unary response without a message is invalid; only its status matters here.
    let answered: Result<_, Status> = client.server_streaming::<(), (), _>(request, path, ProstCodec::default()).await;
    answered.map(drop).map_err(|status| Failure::from(&status))
}

#[tokio::test]
async fn a_call_without_a_known_token_is_unauthenticated_over_grpc() {
    let server = TokenServer::start(&[(&Secret::generate(), "*:read")]).await;

    for token in [None, Some(&Secret::generate())] {
        let failure = server.call(GET, token).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
        assert_eq!(failure.domain, "lock.tidings");
        assert!(failure.request_id.is_some(), "{failure}");
    }
}

/// The error names the missing scope.
#[tokio::test]
async fn a_token_grants_only_its_scopes() {
    let token = Secret::generate();
    let server = TokenServer::start(&[(&token, "lock:read,user:write")]).await;

    server.call(GET, Some(&token)).await.unwrap();

    let failure = server.call(ACQUIRE, Some(&token)).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"));
    assert_eq!(failure.metadata["scope"], "lock:write");
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented_only_with_a_token() {
    let token = Secret::generate();
    let server = TokenServer::start(&[(&token, "lock:read")]).await;

    let failure = server.call("/tidings.lock.v1.LockService/Nonsense", None).await.unwrap_err();
    assert_eq!(failure.code, Code::Unauthenticated);
    let failure = server.call("/tidings.usher.v1.UsherService/Ush", Some(&token)).await.unwrap_err();
    assert_eq!(failure.code, Code::Unimplemented);
}

#[tokio::test]
async fn health_and_reflection_need_no_token() {
    let server = TokenServer::start(&[]).await;

    let health = server.server.health_client().await.check(HealthCheckRequest::default()).await;
    assert!(health.is_ok(), "{health:?}");

    let mut reflection = ServerReflectionClient::new(server.server.channel().await);
    let responses = reflection.server_reflection_info(stream::iter([ServerReflectionRequest::default()])).await;
    assert!(responses.is_ok(), "{responses:?}");
}

/// The old token is refused once it is removed from the list.
#[tokio::test]
async fn a_token_is_rotated_without_a_failed_call() {
    let (old, new) = (Secret::generate(), Secret::generate());
    let server = TokenServer::start(&[(&old, "lock:read")]).await;
    let new_is_accepted = AtomicBool::new(false);

    let rotating = async {
        server.accept(&[(&old, "lock:read"), (&new, "lock:read")]);
        while server.call(GET, Some(&new)).await.is_err() {
            sleep(POLL_INTERVAL).await;
        }
        new_is_accepted.store(true, Ordering::Relaxed);
    };
    let load = async |_| {
        let channel = server.server.channel().await;
        while !new_is_accepted.load(Ordering::Relaxed) {
            call(&channel, GET, Some(&old)).await.unwrap();
        }
        for _ in 0..100 {
            call(&channel, GET, Some(&new)).await.unwrap();
        }
    };
    timeout(SOON, async { tokio::join!(rotating, join_all((0..4).map(load))) }).await.unwrap();

    server.accept(&[(&new, "lock:read")]);
    let refused = async {
        while server.call(GET, Some(&old)).await.is_ok() {
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(SOON, refused).await.unwrap();
    server.call(GET, Some(&new)).await.unwrap();
}
