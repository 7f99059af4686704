//! The caps of methods. The caller's own timeout is tested with raw frames in `tests/suite`,
//! because tonic's client enforces it itself.

use std::time::{Duration, Instant};

use tidings_status::Failure;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::support::{TestServer, call};

/// Calls `Work`, which does not end by itself, with this `grpc-timeout`.
async fn work(channel: &Channel, timeout: &str) -> Result<(), Status> {
    let mut request = Request::new(());
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/test.v1.Probe/Work");
    client.unary(request, path, ProstCodec::<(), ()>::default()).await.map(|_| ())
}

fn code_and_reason(status: &Status) -> (Code, String) {
    let failure = Failure::from(status);
    assert!(failure.request_id.is_some());
    (failure.code, failure.reason)
}

#[tokio::test]
async fn a_call_past_its_cap_is_deadline_exceeded() {
    let server = TestServer::start().await;
    let begin = Instant::now();

    let late = call(&server.channel().await, "/test.v1.Probe/Short").await.unwrap_err();

    assert_eq!(code_and_reason(&late), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned()));
    assert!(begin.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_malformed_timeout_is_invalid_argument() {
    let server = TestServer::start().await;

    let refused = work(&server.channel().await, "soon").await.unwrap_err();

    assert_eq!(code_and_reason(&refused), (Code::InvalidArgument, "INVALID_TIMEOUT".to_owned()));
    server.probe.runs(0).await;
}
