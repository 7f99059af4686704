//! Detects dead connections, and never mistakes a slow reader for one.
//!
//! The reply to a PING waits behind all data that the peer has not read yet. On a slow link it may
//! arrive much later than the timeout of a PING allows, although the peer reads all the time.
//! Therefore every complete frame of the peer is a sign of life, and so is its reading: a socket
//! that was full takes bytes again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// Length of the preface, which precedes the first frame.
const PREFACE_BYTES: usize = 24;
/// Length of the head of an HTTP/2 frame: 3 bytes of length, type, flags, 4 bytes of stream id.
const HEAD_BYTES: usize = 9;
/// Frame type whose frames continue a header block. They are no sign of life: a peer could stretch
/// one block for hours.
const CONTINUATION: u8 = 9;

/// Lateness of a timer from which on this process counts as stopped meanwhile: signs of life may
/// wait in the socket, not read yet.
const STOPPED: Duration = Duration::from_millis(250);

/// The signs of life of the peer of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Liveness(Arc<Mutex<SignsOfLife>>);

#[derive(Debug)]
struct SignsOfLife {
    /// Time of the last complete frame.
    last_frame: Instant,
    /// Last time at which a full socket took bytes again.
    last_unblocked: Instant,
}

impl Liveness {
    /// Starts with the present as the last sign of life.
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(SignsOfLife { last_frame: now, last_unblocked: now })))
    }

    /// Waits until the peer is dead: it has sent no frame for `interval` and `timeout`, although it
    /// got a PING after `interval`, and has read nothing for `timeout`. Cancel-safe.
    ///
    /// After a stop of this process, the peer gets `timeout` again.
    pub(crate) async fn dead(&self, interval: Duration, timeout: Duration) {
        let mut not_before = Instant::now();
        loop {
            let earliest = {
                let signs = self.0.lock();
                (signs.last_frame + interval + timeout).max(signs.last_unblocked + timeout).max(not_before)
            };
            if earliest <= Instant::now() {
                return;
            }
            sleep_until(earliest).await;
            if earliest.elapsed() >= STOPPED {
                not_before = Instant::now() + timeout;
            }
        }
    }
}

pin_project! {
    /// A connection whose signs of life are recorded.
    pub(crate) struct Watched<S> {
        #[pin]
        stream: S,
        liveness: Liveness,
        frames: FrameScanner,
        // True if the socket was full at the last write.
        blocked: bool,
    }
}

impl<S> Watched<S> {
    /// Records the signs of life of `stream`, which begins with the preface.
    pub(crate) fn new(stream: S, liveness: Liveness) -> Self {
        Self { stream, liveness, frames: FrameScanner::new(), blocked: false }
    }
}

/// Records whether a write was possible.
fn record_write<T>(written: &Poll<io::Result<T>>, blocked: &mut bool, liveness: &Liveness) {
    let was_blocked = std::mem::replace(blocked, written.is_pending());
    if was_blocked && matches!(written, Poll::Ready(Ok(_))) {
        liveness.0.lock().last_unblocked = Instant::now();
    }
}

impl<S: AsyncRead> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let read = this.stream.poll_read(cx, buf);
        if this.frames.completes_frame(&buf.filled()[before..]) {
            this.liveness.0.lock().last_frame = Instant::now();
        }
        read
    }
}

impl<S: AsyncWrite> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.stream.poll_write(cx, bytes);
        record_write(&written, this.blocked, this.liveness);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.stream.poll_write_vectored(cx, bytes);
        record_write(&written, this.blocked, this.liveness);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let flushed = this.stream.poll_flush(cx);
        // A socket has nothing to flush; a TLS session has, and may be the one that is blocked.
        if flushed.is_pending() {
            *this.blocked = true;
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}

/// Finds the ends of frames in the bytes of a connection.
#[derive(Debug)]
struct FrameScanner {
    head: [u8; HEAD_BYTES],
    /// Number of bytes of the head that were read.
    head_bytes: usize,
    /// Number of bytes of the payload that were not read yet.
    payload_left: usize,
}

impl FrameScanner {
    /// Starts at the preface, which counts as the payload of a frame.
    fn new() -> Self {
        Self { head: [0; HEAD_BYTES], head_bytes: HEAD_BYTES, payload_left: PREFACE_BYTES }
    }

    /// Reads more bytes. Returns true if a frame ends in them.
    fn completes_frame(&mut self, mut bytes: &[u8]) -> bool {
        let mut completes = false;
        while !bytes.is_empty() {
            if self.head_bytes < HEAD_BYTES {
                let count = bytes.len().min(HEAD_BYTES - self.head_bytes);
                self.head[self.head_bytes..self.head_bytes + count].copy_from_slice(&bytes[..count]);
                self.head_bytes += count;
                bytes = &bytes[count..];
                if self.head_bytes < HEAD_BYTES {
                    break;
                }
                let [high, middle, low, ..] = self.head;
                self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
            }
            let count = bytes.len().min(self.payload_left);
            self.payload_left -= count;
            bytes = &bytes[count..];
            if self.payload_left == 0 {
                completes |= self.head[3] != CONTINUATION;
                self.head_bytes = 0;
            }
        }
        completes
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(20);
    const TIMEOUT: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_hours(1);
    /// A reply to a PING.
    const PONG: [u8; 17] = [0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    /// A watched connection with a socket buffer of 1 KiB, and its peer.
    fn connection() -> (Liveness, Watched<DuplexStream>, DuplexStream) {
        let (stream, peer) = duplex(1024);
        let liveness = Liveness::start();
        (liveness.clone(), Watched::new(stream, liveness), peer)
    }

    /// Sends the preface, after which frames follow.
    async fn send_preface(peer: &mut DuplexStream) {
        peer.write_all(&[b'x'; PREFACE_BYTES]).await.unwrap();
    }

    /// Reads from the connection as HTTP/2 does.
    async fn read_all(mut watched: impl AsyncRead + Unpin) {
        let mut bytes = [0; 100];
        while let Ok(1..) = watched.read(&mut bytes).await {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_dead_after_interval_and_timeout() {
        let (liveness, _watched, _peer) = connection();
        let start = Instant::now();

        liveness.dead(INTERVAL, TIMEOUT).await;

        assert_eq!(start.elapsed(), INTERVAL + TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_pings_is_alive() {
        let (liveness, watched, mut peer) = connection();
        let pongs = async {
            send_preface(&mut peer).await;
            loop {
                sleep(INTERVAL).await;
                peer.write_all(&PONG).await.unwrap();
            }
        };

        tokio::select! {
            () = pongs => {}
            () = read_all(watched) => {}
            dead = timeout(LONG, liveness.dead(INTERVAL, TIMEOUT)) => assert!(dead.is_err()),
        }
    }

    /// Its reply to a PING is in the socket, and is read a moment later.
    #[tokio::test(start_paused = true)]
    async fn a_stop_of_this_process_is_not_held_against_the_peer() {
        let (liveness, watched, mut peer) = connection();
        let dead = tokio::spawn(async move { liveness.dead(INTERVAL, TIMEOUT).await });
        send_preface(&mut peer).await;
        tokio::task::yield_now().await;

        advance(LONG).await; // all timers fire late
        peer.write_all(&PONG).await.unwrap();
        let reading = tokio::spawn(read_all(watched));

        sleep(INTERVAL).await;
        assert!(!dead.is_finished());
        reading.abort();
    }

    /// It takes 40 s for 1 KiB, longer than interval and timeout, and answers no PING meanwhile.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_alive_until_it_stops() {
        let (liveness, mut watched, mut peer) = connection();
        let writing = tokio::spawn(async move { watched.write_all(&vec![0; 64 << 10]).await });
        let reading = tokio::spawn(async move {
            for _ in 0..128 {
                sleep(Duration::from_secs(5)).await;
                peer.read_exact(&mut [0; 128]).await.unwrap();
            }
            (Instant::now(), peer)
        });

        liveness.dead(INTERVAL, TIMEOUT).await;

        let (stopped, _peer) = reading.await.unwrap();
        assert_eq!(stopped.elapsed(), TIMEOUT);
        writing.abort();
    }

    /// The kernel takes bytes for a peer that has vanished, until its buffer is full.
    #[tokio::test(start_paused = true)]
    async fn writes_alone_are_no_sign_of_life() {
        let (liveness, mut watched, _peer) = connection();
        let start = Instant::now();
        tokio::spawn(async move {
            for _ in 0..1024 {
                watched.write_all(&[0]).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
        });

        liveness.dead(INTERVAL, TIMEOUT).await;

        assert_eq!(start.elapsed(), INTERVAL + TIMEOUT);
    }

    /// Neither a header block sent byte by byte nor its continuations keep a connection alive.
    #[tokio::test(start_paused = true)]
    async fn an_unfinished_header_block_is_no_sign_of_life() {
        let empty_continuation = [0, 0, 0, CONTINUATION, 0, 0, 0, 0, 1];
        let unfinished_headers = [0, 0, 255, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        for bytes in [&empty_continuation[..], &unfinished_headers] {
            let (liveness, watched, mut peer) = connection();
            let start = Instant::now();
            let sending = async {
                send_preface(&mut peer).await;
                for byte in bytes.iter().cycle() {
                    sleep(Duration::from_secs(1)).await;
                    peer.write_all(&[*byte]).await.unwrap();
                }
            };

            tokio::select! {
                () = sending => {}
                () = read_all(watched) => {}
                () = liveness.dead(INTERVAL, TIMEOUT) => {}
            }

            assert_eq!(start.elapsed(), INTERVAL + TIMEOUT, "{bytes:?}");
        }
    }

    #[test]
    fn frames_end_wherever_the_bytes_are_split() {
        let bytes = [PONG, PONG].concat();
        for split in 1..bytes.len() {
            let mut scanner = FrameScanner::new();
            scanner.completes_frame(&[b'x'; PREFACE_BYTES]);
            let ends = [&bytes[..split], &bytes[split..]].map(|part| scanner.completes_frame(part));
            assert_eq!(ends, [split >= PONG.len(), true], "{split}");
        }
    }
}
