//! The drain of a connection, as its streams see it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::poll_when_woken::PollWhenWoken;
use crate::reason::Reason;

/// Retry delay sent with DRAINING: reconnect at once.
const RECONNECT_AT_ONCE: Duration = Duration::ZERO;

/// Fraction of the grace in which streams end by themselves. The rest is for streams whose service
/// does not handle the signal, and for frames in transit.
const OWN_END_FRACTION: f64 = 0.6;

/// Cause of the end of a connection, and of the streams and waiting calls on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainCause {
    /// The instance shuts down; clients continue at another one.
    Shutdown,
    /// The connection has reached its age; clients may continue at the same instance, on a new
    /// connection.
    ConnectionAge,
}

impl DrainCause {
    /// Returns the DRAINING status of a call to this path. Its metadata `cause` is the cause.
    pub(crate) fn status(self, path: &str) -> Status {
        let (cause, message) = match self {
            Self::Shutdown => ("shutdown", "the instance is shutting down"),
            Self::ConnectionAge => ("connection_age", "the connection has reached its age"),
        };
        Reason::Draining.reply(path, message).with("cause", &cause).retry_after(RECONNECT_AT_ONCE).into_status()
    }
}

/// The drain state of one connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionDrain {
    started: CancellationToken,
    drain: OnceLock<StartedDrain>,
}

#[derive(Clone, Copy, Debug)]
struct StartedDrain {
    start: Instant,
    /// Time that streams have to end.
    grace: Duration,
    cause: DrainCause,
}

impl ConnectionDrain {
    /// Starts the drain: every stream has to end within `grace`. Only the first call counts.
    pub(crate) fn start(&self, grace: Duration, cause: DrainCause) {
        let _ = self.drain.set(StartedDrain { start: Instant::now(), grace, cause });
        self.started.cancel();
    }

    /// Waits for the start of the drain, then until this fraction of the grace has passed.
    async fn reaches(&self, fraction: f64) -> DrainCause {
        self.started.cancelled().await;
        let Some(StartedDrain { start, grace, cause }) = self.drain.get().copied() else {
            return DrainCause::Shutdown; // unreachable: set before `started`
        };
        sleep_until(start + grace.mul_f64(fraction)).await;
        cause
    }
}

/// Signals a stream that it has to end, because its connection drains. In the extensions of every
/// request.
///
/// Each stream gets its own instant, random within the grace of the connection, so that clients do
/// not all reconnect together. A service whose streams say more at their end, such as where to
/// resume, awaits this signal and ends the stream itself. Any other stream is ended a little later
/// with UNAVAILABLE and `DRAINING`, and so is a call that waits.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    drain: Arc<ConnectionDrain>,
    fraction: f64,
}

impl DrainSignal {
    pub(crate) fn of(drain: &Arc<ConnectionDrain>) -> Self {
        Self { drain: Arc::clone(drain), fraction: rand::random_range(0.0..OWN_END_FRACTION) }
    }

    /// Creates a signal that never fires, for calls without a connection.
    pub fn never() -> Self {
        Self::of(&Arc::default())
    }

    /// Waits until the stream has to end, and returns the cause. Cheap to poll often.
    pub fn reached(&self) -> impl Future<Output = DrainCause> + Send + use<> {
        let Self { drain, fraction } = self.clone();
        PollWhenWoken::new(async move { drain.reaches(fraction).await })
    }

    /// Waits until the server ends a stream or a waiting call that has not ended by itself.
    pub(crate) async fn overdue(self) -> DrainCause {
        let grace = (1.0 - OWN_END_FRACTION) / 2.0;
        self.drain.reaches(self.fraction + grace).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn streams_end_at_instants_spread_over_the_grace() {
        let drain = Arc::new(ConnectionDrain::default());
        let drain_signals: Vec<_> = (0..200).map(|_| DrainSignal::of(&drain)).collect();
        let start = Instant::now();
        drain.start(Duration::from_secs(100), DrainCause::ConnectionAge);

        let end = async |drain_signal: &DrainSignal| {
            assert_eq!(drain_signal.reached().await, DrainCause::ConnectionAge);
            start.elapsed()
        };
        let mut ends = join_all(drain_signals.iter().map(end)).await;

        ends.sort_unstable();
        assert!(ends[0] < Duration::from_secs(10), "{ends:?}");
        assert!((50..61).contains(&ends[199].as_secs()), "{ends:?}");
        let every_tenth: Vec<_> = ends.chunks(10).map(|chunk| chunk[0].as_secs()).collect();
        assert!(every_tenth.windows(2).all(|pair| pair[1] - pair[0] < 15), "{every_tenth:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_ends_an_overdue_stream_within_the_grace() {
        let drain = Arc::new(ConnectionDrain::default());
        let drain_signal = DrainSignal::of(&drain);
        let start = Instant::now();
        drain.start(Duration::from_secs(10), DrainCause::ConnectionAge);
        drain.start(Duration::from_secs(1000), DrainCause::Shutdown);

        drain_signal.reached().await;
        let reached = start.elapsed();
        assert_eq!(drain_signal.overdue().await, DrainCause::ConnectionAge);

        assert!(start.elapsed() > reached);
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    }
}
