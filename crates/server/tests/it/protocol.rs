//! Requests that are not gRPC, and headers above the limit.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidings_status::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{TestServer, call, call_as, follow};

/// Sends a request over HTTP/2, and returns the code and the headers of the response.
async fn http2(server: &TestServer, request: Request<Empty<Bytes>>) -> (StatusCode, BTreeMap<String, String>) {
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let response = client.send_request(request).await.unwrap();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (response.status(), headers.collect())
}

#[tokio::test]
async fn a_request_that_is_not_grpc_gets_415() {
    let server = TestServer::start().await;
    let uri = format!("http://{}/test.v1.Probe/Answer", server.address);
    for (method, kind) in [(Method::GET, None), (Method::POST, None), (Method::POST, Some("application/json"))] {
        let mut request = Request::builder().method(&method).uri(&uri);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }

        let (code, headers) = http2(&server, request.body(Empty::new()).unwrap()).await;

        assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{method} {kind:?}");
        assert_eq!(headers["grpc-status"], "3");
        assert!(headers["grpc-message"].contains("port%20serves%20gRPC"), "{headers:?}");
    }
}

#[tokio::test]
async fn a_request_of_http_1_gets_415() {
    let server = TestServer::start().await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: tidings\r\n\r\n").await.unwrap();

    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();

    assert!(response.starts_with("HTTP/1.1 415 ") && response.contains("this port serves gRPC"), "{response}");
}

/// A stream of the same connection goes on.
#[tokio::test]
async fn too_large_headers_end_only_their_own_call() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let stream = channel.clone();
    let stream = tokio::spawn(async move { follow(&stream, "/test.v1.Probe/Stream").await });
    server.probe.runs(1).await;

    for kib in [20, 65, 200] {
        let refused = call_as(&channel, "/test.v1.Probe/Answer", Some(&"x".repeat(kib << 10))).await.unwrap_err();

        let refused = Failure::from(&refused);
        assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"), "{kib}");
        assert!(refused.message.starts_with("headers too large"), "{}", refused.message);
    }

    call(&channel, "/test.v1.Probe/Answer").await.unwrap();
    assert_eq!(server.probe.running(), 1);
    stream.abort();
    server.probe.runs(0).await;
}
