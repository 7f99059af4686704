//! An HTTP/2 client that sends exactly the frames of a test, unlike any library.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames that the tests look for (RFC 9113, 6).
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

/// Returns a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length, &[kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// Returns the frame of a call without a message.
pub(crate) fn call(stream: u32, path: &str) -> Vec<u8> {
    const END_OF_STREAM: u8 = 1;
    headers(stream, path, END_OF_STREAM)
}

/// Returns the frame that starts a call; its message follows.
pub(crate) fn open(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, path, 0)
}

fn headers(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    const END_OF_HEADERS: u8 = 4;
    let literal = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    // HPACK: the static table has `:method POST` at 3, `:scheme http` at 6, `:path` at 4, and
    // `content-type` at 31.
    let block = [&[0x83, 0x86, 0x04][..], &literal(path), &[0x0f, 0x10], &literal("application/grpc")].concat();
    frame(HEADERS, flags | END_OF_HEADERS, stream, &block)
}

/// Returns the frame that cancels a call.
pub(crate) fn reset(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A connection that has sent the preface and its settings, and then sends nothing.
pub(crate) struct RawHttp2(pub(crate) TcpStream);

impl RawHttp2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let no_settings = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
        stream.write_all(&no_settings).await.unwrap();
        Self(stream)
    }

    /// Reads up to the next frame of this type; false if the server closes the connection first.
    pub(crate) async fn receives(&mut self, wanted: u8) -> bool {
        timeout(SOON, async {
            while let Some(kind) = self.frame().await {
                if kind == wanted {
                    return true;
                }
            }
            false
        })
        .await
        .unwrap()
    }

    /// Sends a PING and waits for the reply; false if the server closes the connection first.
    pub(crate) async fn is_open(&mut self) -> bool {
        let _ = self.0.write_all(&frame(PING, 0, 0, b"12345678")).await;
        self.receives(PING).await
    }

    /// Reads a frame and returns its type; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<u8> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [high, middle, low, kind, ..] = head;
        let size = u32::from_be_bytes([0, high, middle, low]);
        let mut payload = vec![0; size as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(kind)
    }
}
