//! An HTTP/2 client that sends exactly the frames of a test, unlike any library.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames that the tests look for (RFC 9113, 6).
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;

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

    /// Reads a frame and returns its type; `None` at the end of the connection.
    async fn frame(&mut self) -> Option<u8> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [high, middle, low, kind, ..] = head;
        let size = u32::from_be_bytes([0, high, middle, low]);
        let mut payload = vec![0; size as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(kind)
    }
}
