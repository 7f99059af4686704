//! A minimal gRPC client for unary calls: it sends exactly the given headers and message, sets no
//! deadline, and never retries.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tidings_status::Failure;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::frames::message;
use crate::service::MAX_WAIT;

/// A connection for unary calls; clones share it.
#[derive(Clone)]
pub(crate) struct GrpcClient(SendRequest<Bytes>);

/// A call whose request message is not sent yet.
pub(crate) struct OpenCall {
    request: SendStream<Bytes>,
    response: ResponseFuture,
}

impl GrpcClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        // The task ends with the connection, which closes when the last clone is dropped.
        tokio::spawn(connection);
        Self(client)
    }

    /// Sends the headers of a call, with additional ones.
    pub(crate) async fn open(&self, method: &str, headers: &[(&str, &str)]) -> OpenCall {
        let mut client = self.0.clone().ready().await.unwrap();
        let request = Request::post(format!("http://tidings{method}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (response, request) = client.send_request(request.body(()).unwrap(), false).unwrap();
        OpenCall { request, response }
    }

    /// Makes a complete call.
    pub(crate) async fn call(&self, method: &str, headers: &[(&str, &str)], request: &[u8]) -> Result<(), Failure> {
        self.open(method, headers).await.finish(request).await
    }
}

impl OpenCall {
    /// Sends the request message and reads the response.
    pub(crate) async fn finish(mut self, request: &[u8]) -> Result<(), Failure> {
        // The server may respond first and refuse the message: ignore that error.
        let _ = self.request.send_data(message(request).into(), true);
        self.response().await
    }

    /// Reads the response without sending the message.
    ///
    /// # Panics
    /// If the response does not come in time or has no status.
    pub(crate) async fn response(self) -> Result<(), Failure> {
        let Self { request: _request, response } = self;
        let reading = async {
            let (head, body) = response.await.expect("a response").into_parts();
            match Status::from_header_map(&head.headers) {
                Some(status) => status,
                None => Status::from_header_map(&trailers(body).await).expect("a status"),
            }
        };
        let status = timeout(2 * MAX_WAIT, reading).await.expect("a response in time");
        if status.code() == Code::Ok { Ok(()) } else { Err(Failure::from(&status)) }
    }
}

async fn trailers(mut body: RecvStream) -> HeaderMap {
    while let Some(data) = body.data().await {
        let length = data.expect("a response body").len();
        let _ = body.flow_control().release_capacity(length);
    }
    body.trailers().await.expect("trailers").expect("trailers")
}
