//! The request id: kept or generated, passed to the handler, and part of every response.

use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{StatusExt as _, pb};

use crate::support::{TestServer, call, call_as};

fn id(response: &MetadataMap) -> &str {
    response.get("x-request-id").unwrap().to_str().unwrap()
}

fn id_in_details(status: &Status) -> String {
    status.get_details_request_info().unwrap().request_id
}

#[tokio::test]
async fn the_callers_id_is_returned_in_the_trailers() {
    let server = TestServer::start().await;
    let channel = server.channel().await;

    let response = call_as(&channel, "/test.v1.Probe/Answer", Some("order-42")).await;

    assert_eq!(id(response.unwrap().metadata()), "order-42");
}

#[tokio::test]
async fn a_malformed_or_missing_id_is_replaced_by_a_uuid() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let long = "x".repeat(65);

    for sent_id in [Some("two words"), Some(long.as_str()), None] {
        let response = call_as(&channel, "/test.v1.Probe/Answer", sent_id).await.unwrap();
        let generated = uuid::Uuid::parse_str(id(response.metadata())).unwrap();
        assert_eq!(generated.get_version_num(), 7, "{sent_id:?}");
    }
}

#[tokio::test]
async fn the_handler_finds_the_id_among_the_extensions() {
    let server = TestServer::start().await;
    let channel = server.channel().await;

    let response = call_as(&channel, "/test.v1.Probe/SeenId", Some("order-42")).await.unwrap();

    assert_eq!(response.metadata().get("seen-id").unwrap(), "order-42");
}

#[tokio::test]
async fn an_unknown_method_returns_the_id_in_its_error_details() {
    let server = TestServer::start().await;
    let channel = server.channel().await;

    let refused = call_as(&channel, "/no.such.Service/Method", Some("order-42")).await.unwrap_err();

    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(id(refused.metadata()), "order-42");
    assert_eq!(id_in_details(&refused), "order-42");
}

#[tokio::test]
async fn details_and_message_of_the_service_are_kept() {
    let server = TestServer::start().await;
    let channel = server.channel().await;

    let refused = call_as(&channel, "/test.v1.Probe/Fail", Some("order-42")).await.unwrap_err();

    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.message(), "no such thing: 100 %");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "ABSENT");
    assert_eq!(id_in_details(&refused), "order-42");
    let details = pb::Status::decode(refused.details()).unwrap();
    assert_eq!(details.code, i32::from(Code::NotFound));
    assert_eq!(details.message, "no such thing: 100 %");
    assert_eq!(details.details.len(), 2);
}

#[tokio::test]
async fn an_error_after_messages_has_the_id_as_well() {
    let server = TestServer::start().await;

    let refused = call(&server.channel().await, "/test.v1.Probe/FailLate").await.unwrap_err();

    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(id_in_details(&refused), id(refused.metadata()));
}
