//! The clock of leases, which also counts time in suspend.

use std::ops::Add;
use std::time::Duration;

/// A point in time by a clock that also advances while the machine is suspended (`CLOCK_BOOTTIME`).
///
/// Leases at the service expire during a suspension too. [`Instant`](std::time::Instant) stops in
/// suspension on Linux, so a holder would resume with a lease that expired long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// Returns the current time.
    #[cfg(not(test))]
    pub fn now() -> Self {
        use rustix::time::{ClockId, clock_gettime};
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: ClockId = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: ClockId = ClockId::Monotonic;
        Self(clock_gettime(CLOCK).try_into().unwrap_or_default()) // neither clock is negative
    }

    /// Returns the current time of the test's clock, which can be suspended.
    #[cfg(test)]
    pub fn now() -> Self {
        Self(tests::now())
    }

    /// Returns the time until this instant; zero if it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_sub(Self::now().0)
    }
}

impl Add<Duration> for BootInstant {
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

    /// Returns tokio's clock, which a test can pause, plus the time of all suspensions.
    pub(super) fn now() -> Duration {
        static BEGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        let begin = *BEGIN;
        tokio::time::Instant::now().into_std().saturating_duration_since(begin) + SUSPENDED.get()
    }

    /// Advances the clock but not the timers, as a suspended machine does.
    pub(crate) fn suspend(time: Duration) {
        SUSPENDED.set(SUSPENDED.get() + time);
    }
}
