//! The clock of a long stream: the time of its next heartbeat, and its orderly end.

use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Fuse};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::drain_signal::DrainCause;

/// Reconnect delay in the last frame: long enough for a restart, random so that the clients do not
/// all return at once.
const RECONNECT_DELAY: Range<Duration> = Duration::from_secs(1)..Duration::from_secs(5);

/// Resolves when a stream has to end, because its connection or the process ends.
pub struct StreamEnd(Fuse<BoxFuture<'static, DrainCause>>);

/// The last words of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamGoodbye {
    /// Delay after which the client may reconnect to this instance: none if only the connection
    /// ends.
    pub retry_after: Duration,
    /// Cause of the end.
    pub cause: DrainCause,
}

impl StreamEnd {
    /// The stream ends when this future resolves.
    pub fn at(end: impl Future<Output = DrainCause> + Send + 'static) -> Self {
        Self(end.boxed().fuse())
    }
}

impl fmt::Debug for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamEnd")
    }
}

/// The heartbeat and the end of one stream.
///
/// A stream sends a heartbeat after a time without another frame, and a goodbye before it ends. It
/// is polled for each of its frames, so nothing here allocates or starts a task per poll.
#[derive(Debug)]
pub struct StreamClock {
    heartbeat: Duration,
    /// Time of the last frame.
    last_frame: Instant,
    timer: Pin<Box<Sleep>>,
    end: StreamEnd,
    state: StreamState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamState {
    Open,
    /// The stream has to end; its goodbye is to be sent.
    Ending(DrainCause),
    Ended,
}

impl StreamClock {
    /// Starts the clock of a stream that sends a heartbeat after this time without another frame.
    pub fn start(heartbeat: Duration, end: StreamEnd) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + heartbeat));
        Self { heartbeat, last_frame: now, timer, end, state: StreamState::Open }
    }

    /// Records that a frame is sent now.
    pub fn frame_sent(&mut self) {
        self.last_frame = Instant::now();
    }

    /// Returns true if no frame was sent for the time of a heartbeat.
    pub fn is_heartbeat_due(&self) -> bool {
        Instant::now() >= self.last_frame + self.heartbeat
    }

    /// Returns the goodbye, once, if the stream has to end; it has ended then. Never waits. To be
    /// called before each frame, because a busy stream never waits.
    pub async fn goodbye(&mut self) -> Option<StreamGoodbye> {
        let cause = match self.state {
            StreamState::Open => {
                poll_fn(|cx| match self.end.0.poll_unpin(cx) {
                    Poll::Ready(cause) => Poll::Ready(Some(cause)),
                    Poll::Pending => Poll::Ready(None),
                })
                .await
            }
            StreamState::Ending(cause) => Some(cause),
            StreamState::Ended => None,
        }?;
        self.finish();
        let retry_after = match cause {
            DrainCause::Shutdown => rand::random_range(RECONNECT_DELAY),
            DrainCause::ConnectionAge => Duration::ZERO,
        };
        Some(StreamGoodbye { retry_after, cause })
    }

    /// Ends the stream without a goodbye.
    pub fn finish(&mut self) {
        self.state = StreamState::Ended;
    }

    /// Returns true after the goodbye.
    pub fn has_ended(&self) -> bool {
        self.state == StreamState::Ended
    }

    /// Waits for the end, the time of a heartbeat, or `earlier`; may return too early. Cancel-safe.
    pub async fn tick(&mut self, earlier: Option<Instant>) {
        let heartbeat = self.last_frame + self.heartbeat;
        let due = earlier.map_or(heartbeat, |earlier| earlier.min(heartbeat));
        // Reset only if it would fire late: an early timer costs one wake-up, and that is rarer
        // than frames are.
        if self.timer.is_elapsed() || self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        tokio::select! {
            biased; // both are checked by the caller in any case
            cause = &mut self.end.0 => self.state = StreamState::Ending(cause),
            () = self.timer.as_mut() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;
    use tokio::time::sleep;

    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_due_after_its_time_without_a_frame() {
        let mut clock = StreamClock::start(HEARTBEAT, StreamEnd::at(pending()));
        let start = Instant::now();

        sleep(Duration::from_secs(4)).await;
        clock.frame_sent();
        while !clock.is_heartbeat_due() {
            clock.tick(None).await;
        }

        assert_eq!(start.elapsed().as_secs(), 14);
        assert_eq!(clock.goodbye().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_time_is_waited_for() {
        let mut clock = StreamClock::start(HEARTBEAT, StreamEnd::at(pending()));
        let start = Instant::now();

        clock.tick(Some(start + Duration::from_secs(3))).await;
        assert_eq!(start.elapsed().as_secs(), 3);
        clock.tick(Some(start + Duration::from_secs(30))).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    /// Both while it waits and while it is busy.
    #[tokio::test(start_paused = true)]
    async fn a_stream_says_goodbye_once_when_it_has_to_end() {
        let cause = DrainCause::Shutdown;
        for waits in [true, false] {
            let (end, ended) = oneshot::channel();
            let end_of_stream = StreamEnd::at(async move { ended.await.unwrap() });
            let mut clock = StreamClock::start(HEARTBEAT, end_of_stream);
            assert_eq!(clock.goodbye().await, None);

            end.send(cause).unwrap();
            if waits {
                clock.tick(None).await;
            }

            assert!(!clock.has_ended());
            let goodbye = clock.goodbye().await.unwrap();
            assert!(RECONNECT_DELAY.contains(&goodbye.retry_after) && goodbye.cause == cause, "{goodbye:?}");
            assert!(clock.has_ended());
            assert_eq!(clock.goodbye().await, None);
        }
    }
    /// The instance goes on, so that there is no reason to wait.
    #[tokio::test(start_paused = true)]
    async fn a_stream_on_an_aged_connection_may_return_at_once() {
        let end = StreamEnd::at(async { DrainCause::ConnectionAge });

        let goodbye = StreamClock::start(HEARTBEAT, end).goodbye().await.unwrap();

        assert_eq!(goodbye, StreamGoodbye { retry_after: Duration::ZERO, cause: DrainCause::ConnectionAge });
    }
}
