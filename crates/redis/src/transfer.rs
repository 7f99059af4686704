//! Waits for replies: longer for more bytes, and not by the clock of a runtime that was late.
//!
//! A timeout counts against Redis, so it must not be due to the length of a command, to the
//! commands before it on the same link, or to this process. The limit of a wait therefore grows
//! with the bytes that are in flight to and from the server. A timer that fires late proves that
//! the runtime did not run; the reply may have arrived meanwhile, so the wait is prolonged by the
//! delay.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Arg, Cmd, Pipeline, RedisError};
use tokio::time::{Instant, sleep_until};

/// Bytes per second of the slowest supported link: a quarter of what was measured on a slow one.
const BYTES_PER_SECOND: usize = 4 * 1024 * 1024;
/// Bytes that the protocol adds to an argument, at most.
const ARG_BYTES: usize = 16;
/// Delay of a timer up to which the runtime counts as on time: timers have steps of 1 ms.
const LATE_MIN: Duration = Duration::from_millis(5);
/// Most prolongations of one wait. Each follows a stall of this process.
const PROLONGATIONS_MAX: u32 = 4;

/// Bytes in flight between this process and one Redis, on all lanes: they share the link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transfer(Arc<AtomicUsize>);

/// Bytes of one call, in flight until it is dropped.
struct InFlight<'a> {
    transfer: &'a Transfer,
    bytes: usize,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.transfer.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Transfer {
    /// Waits for the reply to a call of `bytes`, which include those of the expected reply.
    ///
    /// # Errors
    /// The driver's, or a timeout after `limit` and the time that the bytes in flight take.
    pub(crate) async fn reply<T>(
        &self,
        limit: Duration,
        bytes: usize,
        reply: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let _in_flight = InFlight { transfer: self, bytes };
        within(limit + transfer_time(before + bytes), reply).await
    }
}

/// Returns the time in which the slowest supported link transfers `bytes`.
fn transfer_time(bytes: usize) -> Duration {
    let micros = bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Waits for a reply until `limit` has passed in a runtime that was on time.
async fn within<T>(limit: Duration, reply: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let mut reply = pin!(reply);
    let mut deadline = Instant::now() + limit;
    for _ in 0..=PROLONGATIONS_MAX {
        tokio::select! {
            biased;
            reply = &mut reply => return reply,
            () = sleep_until(deadline) => {}
        }
        let late = deadline.elapsed();
        if late < LATE_MIN {
            break;
        }
        deadline = Instant::now() + late.min(limit);
    }
    Err(io::Error::from(io::ErrorKind::TimedOut).into())
}

/// Returns the bytes of a command, or a few more.
pub(crate) fn command_bytes(command: &Cmd) -> usize {
    let bytes = |arg: Arg<&[u8]>| if let Arg::Simple(bytes) = arg { bytes.len() } else { 0 };
    command.args_iter().map(|arg| bytes(arg) + ARG_BYTES).sum()
}

/// Returns the bytes of a pipeline, or a few more.
pub(crate) fn pipeline_bytes(pipeline: &Pipeline) -> usize {
    pipeline.cmd_iter().map(command_bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::thread;

    use tokio::sync::oneshot;
    use tokio::time::{advance, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    fn is_timeout<T>(reply: &Result<T, RedisError>) -> bool {
        reply.as_ref().is_err_and(RedisError::is_timeout)
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_on_time_waits_for_the_limit_only() {
        let start = Instant::now();

        assert!(is_timeout(&within(LIMIT, pending::<Result<(), RedisError>>()).await));

        assert!(start.elapsed() < LIMIT + LATE_MIN, "{:?}", start.elapsed());
    }

    /// The task that delivers the reply runs after the timer has fired, as after a stall.
    #[tokio::test]
    async fn a_reply_that_waits_in_a_blocked_runtime_is_no_timeout() {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            sleep(LIMIT / 10).await;
            thread::sleep(2 * LIMIT); // nothing of this runtime runs: the timer fires late
            tokio::task::yield_now().await;
            sender.send(7).unwrap();
        });

        let reply = within(LIMIT, async { Ok(receiver.await.unwrap()) }).await;

        assert_eq!(reply.unwrap(), 7);
    }

    /// A runtime that is late each time does not wait without end.
    #[tokio::test(start_paused = true)]
    async fn prolongations_are_bounded() {
        let waiting = tokio::spawn(within(LIMIT, pending::<Result<(), RedisError>>()));
        for _ in 0..=PROLONGATIONS_MAX {
            tokio::task::yield_now().await;
            advance(3 * LIMIT).await;
        }

        assert!(is_timeout(&waiting.await.unwrap()));
    }

    /// Also if the bytes belong to another call.
    #[tokio::test(start_paused = true)]
    async fn a_wait_grows_with_the_bytes_in_flight() {
        let transfer = Transfer::default();
        let start = Instant::now();
        let large = transfer.reply(LIMIT, BYTES_PER_SECOND, pending::<Result<(), RedisError>>());
        let small = transfer.reply(LIMIT, 10, pending::<Result<(), RedisError>>());

        let (large, small) = tokio::join!(large, small);

        assert!(is_timeout(&large) && is_timeout(&small));
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        let start = Instant::now();
        assert!(is_timeout(&transfer.reply(LIMIT, 10, pending::<Result<(), RedisError>>()).await));
        assert!(start.elapsed() < LIMIT + LATE_MIN, "the bytes are not in flight any more");
    }
}
