//! The accept loop: bounds the open connections, and backs off when the process runs out of files.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// Data that the kernel takes for a connection before it is sent. By default it takes megabytes,
/// and everything that follows waits behind them: on a slow link a PING, or the frame of another
/// stream, for minutes.
const UNSENT_BYTES: u32 = 64 << 10;
/// First pause after a failed accept; short, because a descriptor may be freed at any moment.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between two attempts; bounds how late a recovered process accepts again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections indefinitely and hands over each with the slot that it occupies.
/// Cancel-safe.
pub(crate) async fn run(listener: TcpListener, slots: Arc<Semaphore>, serve: impl Fn(TcpStream, OwnedSemaphorePermit)) {
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let stream = next(|| listener.accept()).await;
        // Small responses must not wait for earlier ones to be acknowledged; a dead socket fails
        // its first read.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        serve(stream, slot);
    }
}

/// Returns the next connection, and retries until there is one.
///
/// Skips errors that concern one connection. Logs any other, such as EMFILE, once, and retries with
/// doubling pauses.
async fn next<S, A>(accept: impl Fn() -> A) -> S
where
    A: Future<Output = io::Result<(S, std::net::SocketAddr)>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                if pause == FIRST_PAUSE {
                    tracing::warn!(%error, "accept failed, backing off");
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Linux reports through `accept` an error that a connection had in the backlog.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::time::Instant;

    use super::*;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;

    /// Virtual time that accepting takes when it fails `failures` times with `errno`.
    async fn time_to_accept(failures: u32, errno: i32) -> Duration {
        let start = Instant::now();
        let left = Cell::new(failures);
        next(async || match left.get() {
            0 => Ok(((), PEER)),
            n => {
                left.set(n - 1);
                Err(io::Error::from_raw_os_error(errno))
            }
        })
        .await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn running_out_of_files_backs_off_from_5_ms_to_1_s() {
        assert_eq!(time_to_accept(1, EMFILE).await, Duration::from_millis(5));
        assert_eq!(time_to_accept(3, EMFILE).await, Duration::from_millis(5 + 10 + 20));
        // 5, 10 .. 640 sum to 1275; every later attempt waits a second.
        assert_eq!(time_to_accept(10, EMFILE).await, Duration::from_millis(1275 + 2000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_died_in_the_backlog_costs_no_pause() {
        assert_eq!(time_to_accept(5, ECONNABORTED).await, Duration::ZERO);
    }
}
