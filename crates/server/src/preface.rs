//! The first bytes of a connection: the HTTP/2 preface, or those of another protocol.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// The first bytes of every HTTP/2 connection (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Beginnings of HTTP/1 requests, which browsers, probes and load balancers send.
const HTTP1_METHODS: [&[u8]; 5] = [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"OPTIONS "];
/// Response to a request of HTTP/1; its body ends with the connection.
const NOT_GRPC: &[u8] = b"HTTP/1.1 415 Unsupported Media Type\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    connection: close\r\n\r\n\
    this port serves gRPC over HTTP/2; metrics and probes have a port of their own\n";

/// Reads the HTTP/2 preface within `limit`, and returns the stream as if it had not been read.
///
/// hyper has no timeout before the preface: a silent socket would hold its slot indefinitely.
///
/// # Errors
/// The client speaks another protocol. One that speaks HTTP/1 got a response that says so.
pub(crate) async fn read<S>(stream: S, limit: Duration) -> io::Result<impl AsyncRead + AsyncWrite + Unpin>
where
    S: AsyncRead + AsyncWrite,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let mut first = [0; PREFACE.len()];
    timeout(limit, read.read_exact(&mut first)).await??;
    if first == *PREFACE {
        return Ok(tokio::io::join(PREFACE.chain(read), write));
    }
    if HTTP1_METHODS.iter().any(|method| first.starts_with(method)) {
        let refuse = async {
            write.write_all(NOT_GRPC).await?;
            write.shutdown().await?;
            // A socket that is closed with unread bytes is reset, and its client may lose the
            // response.
            tokio::io::copy(&mut read, &mut tokio::io::sink()).await
        };
        let _ = timeout(limit, refuse).await;
    }
    Err(io::Error::new(ErrorKind::InvalidData, "no HTTP/2 preface: not an HTTP/2 client"))
}
