//! The end of a connection, as the streams on it learn of it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::rare::Rare;

/// The part of the grace within which streams end by themselves; the rest is for those whose service does not know how, and
/// for the frames on their way.
const SPREAD: f64 = 0.6;

/// A connection that is to end, or not yet.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    begun: CancellationToken,
    /// When it began, and how long the streams have.
    grace: OnceLock<(Instant, Duration)>,
}

impl Closing {
    /// Tells every stream to end within `grace`. The first call counts.
    pub(crate) fn begin(&self, grace: Duration) {
        let _ = self.grace.set((Instant::now(), grace));
        self.begun.cancel();
    }

    /// The moment at this part of the grace; waits until the end has begun.
    async fn moment(&self, part: f64) -> Instant {
        self.begun.cancelled().await;
        let (begun, grace) = self.grace.get().copied().unwrap_or_else(|| (Instant::now(), Duration::ZERO));
        begun + grace.mul_f64(part)
    }
}

/// When a stream has to end: at a moment of its own, chosen at random within the grace of its connection, so that not all
/// come back together. In the extensions of every request.
///
/// A service that can say more than that its stream is over, such as where to resume, waits for this and ends the stream by
/// itself. Any other stream is ended a little later with UNAVAILABLE and `DRAINING`.
#[derive(Clone, Debug)]
pub struct Ending {
    closing: Arc<Closing>,
    part: f64,
}

impl Ending {
    pub(crate) fn of(closing: &Arc<Closing>) -> Self {
        Self { closing: Arc::clone(closing), part: rand::random_range(0.0..SPREAD) }
    }

    /// One that never comes, for calls that are made without a connection.
    pub fn never() -> Self {
        Self::of(&Arc::default())
    }

    /// Waits until the stream has to end. To be polled as often as one likes.
    pub fn reached(&self) -> impl Future<Output = ()> + Send + use<> {
        let Self { closing, part } = self.clone();
        Rare::new(async move { sleep_until(closing.moment(part).await).await })
    }

    /// Waits until a stream that has not ended is ended for it.
    pub(crate) async fn overdue(self) {
        let grace = (1.0 - SPREAD) / 2.0;
        sleep_until(self.closing.moment(self.part + grace).await).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn streams_end_at_moments_spread_over_the_grace() {
        let closing = Arc::new(Closing::default());
        let endings: Vec<_> = (0..200).map(|_| Ending::of(&closing)).collect();
        let start = Instant::now();
        closing.begin(Duration::from_secs(100));

        let mut moments = Vec::new();
        for ending in &endings {
            moments.push(ending.closing.moment(ending.part).await - start);
        }

        moments.sort_unstable();
        assert!(moments[0] < Duration::from_secs(10), "{moments:?}");
        assert!((50..61).contains(&moments[199].as_secs()), "{moments:?}");
        let twenty: Vec<_> = moments.chunks(10).map(|chunk| chunk[0].as_secs()).collect();
        assert!(twenty.windows(2).all(|two| two[1] - two[0] < 15), "{twenty:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_end_by_itself_is_ended_within_the_grace() {
        let closing = Arc::new(Closing::default());
        let ending = Ending::of(&closing);
        let start = Instant::now();
        closing.begin(Duration::from_secs(10));
        closing.begin(Duration::from_secs(1000));

        ending.reached().await;
        let reached = start.elapsed();
        ending.overdue().await;

        assert!(start.elapsed() > reached);
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    }
}
