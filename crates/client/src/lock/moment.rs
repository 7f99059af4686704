//! The clock of leases.

use std::ops::Add;
use std::time::Duration;

/// A moment by a clock that goes on while the machine is suspended, as the leases at the service do.
///
/// [`Instant`](std::time::Instant) stands still meanwhile on Linux: a holder that believed it would wake up with a lease
/// that ran out long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// This moment.
    #[cfg(not(test))]
    pub fn now() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: ClockId = ClockId::Monotonic;
        Self(clock_gettime(CLOCK).try_into().unwrap_or_default()) // neither clock is ever negative
    }

    /// This moment by the clock of the test, which can be suspended.
    #[cfg(test)]
    pub fn now() -> Self {
        Self(tests::now())
    }

    /// How long it is until then; zero if it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;
    use std::sync::LazyLock;

    use super::*;

    thread_local! {
        static SUSPENDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Tokio's clock, which a test can pause, and the time of all suspensions.
    pub(super) fn now() -> Duration {
        static BEGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        let begin = *BEGIN;
        tokio::time::Instant::now().into_std().saturating_duration_since(begin) + SUSPENDED.get()
    }

    /// Lets time pass that timers do not count, as while the machine is suspended.
    pub(crate) fn suspend(time: Duration) {
        SUSPENDED.set(SUSPENDED.get() + time);
    }
}
