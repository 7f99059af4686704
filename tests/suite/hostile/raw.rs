//! A connection that sends what a test says, and reads frames without understanding them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::service::SOON;

use super::frames::{PREFACE, code, flag, frame, kind, settings};

/// What a flood sends at once: more than a frame, less than what the kernel takes without waiting for the reader.
const BATCH: usize = 32 * 1024;

/// A frame as it came.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
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

/// A connection.
pub(crate) struct Raw(TcpStream);

impl Raw {
    /// Opens a connection and says nothing.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Opens a connection with preface and settings.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &[]).await
    }

    pub(crate) async fn with(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut raw = Self::silent(address).await;
        raw.send(&[PREFACE, &settings(values)].concat()).await.unwrap();
        raw
    }

    /// Sends bytes; an error if the server has closed the connection.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub(crate) async fn finish(&mut self) {
        let _ = self.0.shutdown().await;
    }

    /// Closes the connection with a reset instead of an end.
    pub(crate) fn abort(self) {
        self.0.set_zero_linger().unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        read(&mut self.0).await
    }

    /// The next frame of this type, whose flags include `flag`; `None` if the connection ends first.
    ///
    /// # Panics
    /// If neither comes soon.
    pub(crate) async fn find(&mut self, kind: u8, flags: u8) -> Option<Frame> {
        let found = async {
            loop {
                let frame = self.next().await?;
                if frame.kind == kind && frame.flags & flags == flags {
                    return Some(frame);
                }
            }
        };
        timeout(SOON, found).await.expect("a frame or the end")
    }

    /// Everything up to the end of the connection.
    ///
    /// # Panics
    /// If it does not come within `patience`.
    pub(crate) async fn rest(&mut self, patience: Duration) -> Vec<Frame> {
        let mut frames = Vec::new();
        let reading = async {
            while let Some(frame) = self.next().await {
                frames.push(frame);
            }
        };
        timeout(patience, reading).await.expect("the end of the connection");
        frames
    }

    /// Answers pings and settings, as every client must, and keeps quiet otherwise, until the connection ends.
    pub(crate) async fn behave(&mut self) {
        while self.behave_until(u8::MAX).await.is_some() {}
    }

    /// The same until a frame of this type comes; `None` if the connection ends first.
    pub(crate) async fn behave_until(&mut self, wanted: u8) -> Option<Frame> {
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

    /// Sends what `next` gives until it ends, the time is over, or the server closes the connection; reads all the while.
    pub(crate) async fn flood(self, until: Instant, mut next: impl Iterator<Item = Vec<u8>>) -> Flooded {
        let (mut incoming, mut outgoing) = self.0.into_split();
        let reading = tokio::spawn(async move {
            let mut closed = None;
            while let Some(frame) = read(&mut incoming).await {
                closed = frame.code().filter(|_| frame.kind == kind::GOAWAY).or(closed);
            }
            closed
        });
        let mut units = 0;
        let mut refused = false;
        while Instant::now() < until {
            let mut batch = Vec::with_capacity(2 * BATCH);
            let mut taken = 0;
            while batch.len() < BATCH
                && let Some(unit) = next.next()
            {
                batch.extend(unit);
                taken += 1;
            }
            // A server that has closed is noticed when sending; one that does not read is no error, and no progress.
            match timeout(until - Instant::now(), outgoing.write_all(&batch)).await {
                Ok(Ok(())) => units += taken,
                Ok(Err(_)) => refused = true,
                Err(_) => {}
            }
            if refused || taken == 0 {
                break;
            }
        }
        let _ = outgoing.shutdown().await;
        let goaway = timeout(SOON, reading).await.expect("the end of the connection").unwrap();
        Flooded { units, goaway, refused }
    }
}

/// How a flood went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flooded {
    /// How much was sent before the server closed the connection.
    pub(crate) units: u64,
    /// Why it did, if it said so.
    pub(crate) goaway: Option<u32>,
    /// Whether the server closed the connection.
    pub(crate) refused: bool,
}

impl Flooded {
    /// Whether the server had enough, and said so unless its words were lost with the connection.
    pub(crate) fn was_ended(self) -> bool {
        self.refused && matches!(self.goaway, None | Some(code::ENHANCE_YOUR_CALM | code::PROTOCOL_ERROR))
    }
}

async fn read(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [high, middle, low, kind, flags, stream_id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes(stream_id), payload })
}
