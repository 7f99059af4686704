//! A TCP connection that sends arbitrary bytes and reads HTTP/2 frames without decoding headers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::service::MAX_WAIT;

use super::frames::{PREFACE, code, flag, frame, kind, settings};

/// Bytes that a flood writes at once: more than a frame, less than the kernel's send buffer.
const BATCH: usize = 32 * 1024;

/// A received frame.
#[derive(Clone, Debug)]
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl RawFrame {
    /// Returns the error code of a RST_STREAM or GOAWAY, `None` for other frames.
    pub(crate) fn code(&self) -> Option<u32> {
        let code = match self.kind {
            kind::RST_STREAM => self.payload.first_chunk()?,
            kind::GOAWAY => self.payload.get(4..)?.first_chunk()?,
            _ => return None,
        };
        Some(u32::from_be_bytes(*code))
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A TCP connection to a service.
pub(crate) struct RawConnection(TcpStream);

impl RawConnection {
    /// Opens a connection and sends nothing.
    pub(crate) async fn connect_tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Opens a connection and sends the preface and empty settings.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[]).await
    }

    pub(crate) async fn connect_with(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut connection = Self::connect_tcp(address).await;
        connection.send(&[PREFACE, &settings(values)].concat()).await.unwrap();
        connection
    }

    /// Sends bytes; fails if the server has closed the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Closes the sending direction; reading still works.
    pub(crate) async fn shutdown_write(&mut self) {
        let _ = self.0.shutdown().await;
    }

    /// Closes the connection with a TCP reset.
    pub(crate) fn abort(self) {
        self.0.set_zero_linger().unwrap();
    }

    /// Reads the next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<RawFrame> {
        read(&mut self.0).await
    }

    /// Reads until a frame of this type with at least these flags; `None` if the connection ends
    /// first.
    ///
    /// # Panics
    /// If neither happens within [`MAX_WAIT`].
    pub(crate) async fn wait_for_frame(&mut self, kind: u8, flags: u8) -> Option<RawFrame> {
        let found = async {
            loop {
                let frame = self.next().await?;
                if frame.kind == kind && frame.flags & flags == flags {
                    return Some(frame);
                }
            }
        };
        timeout(MAX_WAIT, found).await.expect("a frame or the end")
    }

    /// Reads all frames up to the end of the connection.
    ///
    /// # Panics
    /// If the connection does not end within `max_wait`.
    pub(crate) async fn read_to_end(&mut self, max_wait: Duration) -> Vec<RawFrame> {
        let mut frames = Vec::new();
        let reading = async {
            while let Some(frame) = self.next().await {
                frames.push(frame);
            }
        };
        timeout(max_wait, reading).await.expect("the end of the connection");
        frames
    }

    /// Acknowledges PING and SETTINGS, as every client must, until the connection ends.
    pub(crate) async fn respond_until_end(&mut self) {
        while self.respond_until(u8::MAX).await.is_some() {}
    }

    /// Acknowledges PING and SETTINGS until a frame of this type; `None` if the connection ends
    /// first.
    pub(crate) async fn respond_until(&mut self, wanted: u8) -> Option<RawFrame> {
        loop {
            let frame = self.next().await?;
            if matches!(frame.kind, kind::PING | kind::SETTINGS) && !frame.has(flag::ACK) {
                let payload = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
                self.send(&self::frame(frame.kind, flag::ACK, 0, payload)).await.ok()?;
            }
            if frame.kind == wanted {
                return Some(frame);
            }
        }
    }

    /// Sends the items of `next` until they end, `until` is reached, or the server closes the
    /// connection. Reads concurrently.
    pub(crate) async fn flood(self, until: Instant, mut next: impl Iterator<Item = Vec<u8>>) -> FloodResult {
        let (mut incoming, mut outgoing) = self.0.into_split();
        let reading = tokio::spawn(async move {
            let mut last_goaway = None;
            while let Some(frame) = read(&mut incoming).await {
                last_goaway = frame.code().filter(|_| frame.kind == kind::GOAWAY).or(last_goaway);
            }
            last_goaway
        });
        let mut sent = 0;
        let mut closed = false;
        while Instant::now() < until {
            let mut batch = Vec::with_capacity(2 * BATCH);
            let mut taken = 0;
            while batch.len() < BATCH
                && let Some(unit) = next.next()
            {
                batch.extend(unit);
                taken += 1;
            }
            // A failed write means that the server closed the connection. A timeout means only that
            // the server does not read.
            match timeout(until - Instant::now(), outgoing.write_all(&batch)).await {
                Ok(Ok(())) => sent += taken,
                Ok(Err(_)) => closed = true,
                Err(_) => {}
            }
            if closed || taken == 0 {
                break;
            }
        }
        let _ = outgoing.shutdown().await;
        let goaway = timeout(MAX_WAIT, reading).await.expect("the end of the connection").unwrap();
        FloodResult { sent, goaway, closed }
    }
}

/// Result of a flood on one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloodResult {
    /// Number of items sent before the server closed the connection.
    pub(crate) sent: u64,
    /// Error code of the GOAWAY, if one arrived.
    pub(crate) goaway: Option<u32>,
    /// True if the server closed the connection.
    pub(crate) closed: bool,
}

impl FloodResult {
    /// Returns true if the server closed the connection because of abuse. Its GOAWAY may be lost
    /// with the connection.
    pub(crate) fn closed_as_abuse(self) -> bool {
        self.closed && matches!(self.goaway, None | Some(code::ENHANCE_YOUR_CALM | code::PROTOCOL_ERROR))
    }
}

async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<RawFrame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [high, middle, low, kind, flags, stream_id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(RawFrame { kind, flags, stream: u32::from_be_bytes(stream_id), payload })
}
