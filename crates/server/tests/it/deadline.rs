//! Calls end in time. That the caller's time counts too is shown with raw frames, as the client enforces it itself.

use std::time::{Duration, Instant};

use tidings_status::Failure;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::support::{Running, call};

/// Calls `Work`, which does not end by itself, as somebody who waits for so long.
async fn work(channel: &Channel, timeout: &str) -> Result<(), Status> {
    let mut request = Request::new(());
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/test.v1.Probe/Work");
    client.unary(request, path, ProstCodec::<(), ()>::default()).await.map(|_| ())
}

fn said(status: &Status) -> (Code, String) {
    let failure = Failure::from(status);
    assert!(failure.request_id.is_some());
    (failure.code, failure.reason)
}

#[tokio::test]
async fn a_call_past_the_cap_of_its_method_is_deadline_exceeded() {
    let server = Running::start().await;
    let begin = Instant::now();

    let late = call(&server.channel().await, "/test.v1.Probe/Short").await.unwrap_err();

    assert_eq!(said(&late), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED".to_owned()));
    assert!(begin.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_timeout_that_is_none_is_invalid_argument() {
    let server = Running::start().await;

    let refused = work(&server.channel().await, "soon").await.unwrap_err();

    assert_eq!(said(&refused), (Code::InvalidArgument, "INVALID_TIMEOUT".to_owned()));
    server.probe.runs(0).await;
}
