//! Server reflection, in the two versions that clients use.

use futures_util::{StreamExt as _, stream};
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::TestServer;

#[tokio::test]
async fn reflection_v1_lists_the_services_and_shows_a_contract() {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;

    let server = TestServer::start().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let requests = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("grpc.health.v1.Health.List".to_owned()),
    ]
    .map(|request| v1::ServerReflectionRequest { host: String::new(), message_request: Some(request) });

    let responses = client.server_reflection_info(stream::iter(requests)).await;

    let mut responses = responses.unwrap().into_inner();
    let services = responses.next().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = services else {
        panic!("no list: {services:?}");
    };
    let names: Vec<_> = list.service.iter().map(|it| it.name.as_str()).collect();
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    assert!(names.contains(&"grpc.reflection.v1.ServerReflection"), "{names:?}");

    let file = responses.next().await.unwrap().unwrap().message_response;
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
}

#[tokio::test]
async fn reflection_v1alpha_lists_the_services() {
    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;

    let server = TestServer::start().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };

    let responses = client.server_reflection_info(stream::iter([request])).await;

    let services = responses.unwrap().into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = services.message_response else {
        panic!("no list: {services:?}");
    };
    assert!(list.service.iter().any(|it| it.name == "grpc.health.v1.Health"));
}

#[tokio::test]
async fn a_malformed_descriptor_set_prevents_the_start() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = tidings_server::Server::new(&tidings_server::Args::default());

    let refused = server.reflect(b"\xff").serve(listener, tokio_util::sync::CancellationToken::new());

    assert_eq!(refused.await.unwrap_err().to_string(), "malformed descriptor set");
}
