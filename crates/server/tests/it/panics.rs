//! A panic in one call affects only that call.

use tidings_status::Failure;
use tonic::Code;

use crate::support::{TestServer, call, follow};

#[tokio::test]
async fn a_panic_in_a_handler_fails_only_its_call() {
    let server = TestServer::start().await;
    let channel = server.channel().await;

    let failed = Failure::from(&call(&channel, "/test.v1.Probe/Panic").await.unwrap_err());

    assert_eq!((failed.code, failed.reason.as_str()), (Code::Internal, "INTERNAL"));
    assert_eq!(failed.message, "internal error");
    assert!(failed.request_id.is_some());
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();
}

#[tokio::test]
async fn a_panic_in_a_stream_fails_only_its_call() {
    let server = TestServer::start().await;
    let channel = server.channel().await;

    let failed = Failure::from(&follow(&channel, "/test.v1.Probe/PanicLate").await.unwrap_err());

    assert_eq!((failed.code, failed.reason.as_str()), (Code::Internal, "INTERNAL"));
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();
}
