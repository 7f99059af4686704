//! A client without opinions: it sends a call as it is told to, has no time-out of its own, and reads the status.

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
use crate::service::SOON;

/// A connection that behaves.
#[derive(Clone)]
pub(crate) struct Plain(SendRequest<Bytes>);

/// A call under way, whose request is not complete.
pub(crate) struct Open {
    request: SendStream<Bytes>,
    response: ResponseFuture,
}

impl Plain {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        // Ends with the connection, which ends when nobody holds the client any more.
        tokio::spawn(connection);
        Self(client)
    }

    /// Begins a call, with headers besides the usual ones.
    pub(crate) async fn open(&self, method: &str, headers: &[(&str, &str)]) -> Open {
        let mut client = self.0.clone().ready().await.unwrap();
        let request = Request::post(format!("http://tidings{method}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let (response, request) = client.send_request(request.body(()).unwrap(), false).unwrap();
        Open { request, response }
    }

    /// A whole call.
    pub(crate) async fn call(&self, method: &str, headers: &[(&str, &str)], request: &[u8]) -> Result<(), Failure> {
        self.open(method, headers).await.finish(request).await
    }
}

impl Open {
    /// Sends the only message, and reads the answer.
    pub(crate) async fn finish(mut self, request: &[u8]) -> Result<(), Failure> {
        // The answer may come first: then the rest of the request is not wanted.
        let _ = self.request.send_data(message(request).into(), true);
        self.answer().await
    }

    /// Reads the answer, whatever has been sent.
    ///
    /// # Panics
    /// If there is none, or one without a status.
    pub(crate) async fn answer(self) -> Result<(), Failure> {
        let Self { request: _request, response } = self;
        let reading = async {
            let (head, body) = response.await.expect("an answer").into_parts();
            match Status::from_header_map(&head.headers) {
                Some(status) => status,
                None => Status::from_header_map(&trailers(body).await).expect("a status"),
            }
        };
        let status = timeout(2 * SOON, reading).await.expect("an answer in time");
        if status.code() == Code::Ok { Ok(()) } else { Err(Failure::from(&status)) }
    }
}

async fn trailers(mut body: RecvStream) -> HeaderMap {
    while let Some(data) = body.data().await {
        let length = data.expect("the body of an answer").len();
        let _ = body.flow_control().release_capacity(length);
    }
    body.trailers().await.expect("trailers").expect("trailers")
}
