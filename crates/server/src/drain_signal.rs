//! The drain of a connection, as its streams see it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::poll_when_woken::PollWhenWoken;

/// Fraction of the grace in which streams end by themselves. The rest is for streams whose service
/// does not handle the signal, and for frames in transit.
const OWN_END_FRACTION: f64 = 0.6;

/// The drain state of one connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionDrain {
    started: CancellationToken,
    /// The start of the drain, and the time that streams have to end.
    grace: OnceLock<(Instant, Duration)>,
}

impl ConnectionDrain {
    /// Starts the drain: every stream has to end within `grace`. Only the first call counts.
    pub(crate) fn start(&self, grace: Duration) {
        let _ = self.grace.set((Instant::now(), grace));
        self.started.cancel();
    }

    /// Waits for the start of the drain, then returns the instant at this fraction of the grace.
    async fn instant_at(&self, fraction: f64) -> Instant {
        self.started.cancelled().await;
        let (start, grace) = self.grace.get().copied().unwrap_or_else(|| (Instant::now(), Duration::ZERO));
        start + grace.mul_f64(fraction)
    }
}

/// Signals a stream that it has to end, because its connection drains. In the extensions of every
/// request.
///
/// Each stream gets its own instant, random within the grace of the connection, so that clients do
/// not all reconnect together. A service whose streams say more at their end, such as where to
/// resume, awaits this signal and ends the stream itself. Any other stream is ended a little later
/// with UNAVAILABLE and `DRAINING`.
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

    /// Waits until the stream has to end. Cheap to poll often.
    pub fn reached(&self) -> impl Future<Output = ()> + Send + use<> {
        let Self { drain, fraction } = self.clone();
        PollWhenWoken::new(async move { sleep_until(drain.instant_at(fraction).await).await })
    }

    /// Waits until the server ends a stream that has not ended by itself.
    pub(crate) async fn overdue(self) {
        let grace = (1.0 - OWN_END_FRACTION) / 2.0;
        sleep_until(self.drain.instant_at(self.fraction + grace).await).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn streams_end_at_instants_spread_over_the_grace() {
        let drain = Arc::new(ConnectionDrain::default());
        let drain_signals: Vec<_> = (0..200).map(|_| DrainSignal::of(&drain)).collect();
        let start = Instant::now();
        drain.start(Duration::from_secs(100));

        let mut ends = Vec::new();
        for drain_signal in &drain_signals {
            ends.push(drain_signal.drain.instant_at(drain_signal.fraction).await - start);
        }

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
        drain.start(Duration::from_secs(10));
        drain.start(Duration::from_secs(1000));

        drain_signal.reached().await;
        let reached = start.elapsed();
        drain_signal.overdue().await;

        assert!(start.elapsed() > reached);
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    }
}
