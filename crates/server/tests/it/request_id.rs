//! The request id: taken over or made, given to the handler, and found in every answer.

use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{StatusExt as _, pb};

use crate::support::{Running, call, call_as};

fn id(answer: &MetadataMap) -> &str {
    answer.get("x-request-id").unwrap().to_str().unwrap()
}

fn id_in_details(status: &Status) -> String {
    status.get_details_request_info().unwrap().request_id
}

#[tokio::test]
async fn the_callers_id_comes_back_in_the_trailers() {
    let server = Running::start().await;
    let channel = server.channel().await;

    let answer = call_as(&channel, "/test.v1.Probe/Answer", Some("order-42")).await;

    assert_eq!(id(answer.unwrap().metadata()), "order-42");
}

#[tokio::test]
async fn a_malformed_or_missing_id_is_replaced_by_a_uuid() {
    let server = Running::start().await;
    let channel = server.channel().await;
    let long = "x".repeat(65);

    for wish in [Some("two words"), Some(long.as_str()), None] {
        let answer = call_as(&channel, "/test.v1.Probe/Answer", wish).await.unwrap();
        let made = uuid::Uuid::parse_str(id(answer.metadata())).unwrap();
        assert_eq!(made.get_version_num(), 7, "{wish:?}");
    }
}

#[tokio::test]
async fn the_handler_finds_the_id_among_the_extensions() {
    let server = Running::start().await;
    let channel = server.channel().await;

    let answer = call_as(&channel, "/test.v1.Probe/SeenId", Some("order-42")).await.unwrap();

    assert_eq!(answer.metadata().get("seen-id").unwrap(), "order-42");
}

#[tokio::test]
async fn an_unknown_method_tells_the_id_in_its_error_details() {
    let server = Running::start().await;
    let channel = server.channel().await;

    let refused = call_as(&channel, "/no.such.Service/Method", Some("order-42")).await.unwrap_err();

    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(id(refused.metadata()), "order-42");
    assert_eq!(id_in_details(&refused), "order-42");
}

#[tokio::test]
async fn details_and_message_of_the_service_are_kept_beside_the_id() {
    let server = Running::start().await;
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
async fn an_error_after_messages_tells_the_id_as_well() {
    let server = Running::start().await;

    let refused = call(&server.channel().await, "/test.v1.Probe/FailLate").await.unwrap_err();

    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(id_in_details(&refused), id(refused.metadata()));
}
