//! A bug in one call is the end of that call only.

use tidings_status::Failure;
use tonic::Code;

use crate::support::{Running, call, follow};

#[tokio::test]
async fn a_handler_that_panics_is_internal_and_the_process_lives() {
    let server = Running::start().await;
    let channel = server.channel().await;

    let failed = Failure::from(&call(&channel, "/test.v1.Probe/Panic").await.unwrap_err());

    assert_eq!((failed.code, failed.reason.as_str()), (Code::Internal, "INTERNAL"));
    assert_eq!(failed.message, "internal error");
    assert!(failed.request_id.is_some());
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();
}

#[tokio::test]
async fn a_stream_that_panics_is_internal_and_the_process_lives() {
    let server = Running::start().await;
    let channel = server.channel().await;

    let failed = Failure::from(&follow(&channel, "/test.v1.Probe/PanicLate").await.unwrap_err());

    assert_eq!((failed.code, failed.reason.as_str()), (Code::Internal, "INTERNAL"));
    call(&channel, "/test.v1.Probe/Answer").await.unwrap();
}
