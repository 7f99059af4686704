//! Probes the dependencies of a service and reports them as health entries.
//!
//! Each dependency has its own entry; the entry of the service says whether its main function
//! works. Neither affects readiness: an instance whose Postgres is unavailable is as good as any
//! other, and its callers must get UNAVAILABLE with a retry delay.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tidings_postgres::Postgres;
use tidings_redis::{Redis, Role};
use tidings_server::Health;
use tidings_server::health::HealthState;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Interval between probes of a dependency.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait for a probe: a stopped server still accepts connections.
const PROBE_TIMEOUT: Duration = Duration::from_millis(400);
/// Longest wait for a ping of Postgres: shorter, so that the pool itself sees the timeout and acts
/// on it.
const POSTGRES_TIMEOUT: Duration = Duration::from_millis(350);
/// Failed probes in a row until a dependency counts as unavailable: a reconnect may lose one.
/// NOT_SERVING follows within 3 s.
const FAILURES_TO_DOWN: u32 = 3;
/// Successful probes in a row until it counts as available again: a flapping dependency does not.
/// SERVING follows within 2 s.
const SUCCESSES_TO_UP: u32 = 2;

/// A probe of one dependency of a service.
pub struct Probe {
    entry: &'static str,
    required: bool,
    check: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
    /// Explanation for `/readyz`, such as the state of the circuit breaker.
    detail: Box<dyn Fn() -> String + Send + Sync>,
}

impl Probe {
    /// Creates a probe of a dependency that the service needs for its main function. `check` must
    /// make a real round trip.
    pub fn required<F: Future<Output = bool> + Send + 'static>(
        entry: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self { entry, required: true, check: Box::new(move || Box::pin(check())), detail: Box::new(String::new) }
    }

    /// Creates a probe of the database, which explains why it cannot be used.
    pub fn postgres(postgres: &Postgres) -> Self {
        let (probed, explained) = (postgres.clone(), postgres.clone());
        let check = move || {
            let postgres = probed.clone();
            async move { postgres.ping(POSTGRES_TIMEOUT).await }
        };
        let detail = Box::new(move || explained.problem().unwrap_or_default());
        Self { detail, ..Self::required("postgres", check) }
    }

    /// Makes the dependency optional: without it the service still counts as working.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    /// Creates a probe of Redis, which explains the state of its circuit breaker, and why the
    /// server cannot be used. A cache is optional, a state store is required.
    pub fn redis(redis: &Redis, role: Role) -> Self {
        let (probed, explained) = (redis.clone(), redis.clone());
        let check = move || {
            let redis = probed.clone();
            async move { redis.ping().await }
        };
        let detail = Box::new(move || explained.describe());
        Self { required: role == Role::State, detail, ..Self::required("redis", check) }
    }
}

/// The reported state of a dependency, which changes only after several probes in a row.
#[derive(Debug)]
struct DebouncedState {
    is_up: bool,
    /// Probes in a row that contradict the reported state.
    contradictions: u32,
}

impl DebouncedState {
    fn observe(&mut self, succeeded: bool) -> bool {
        self.contradictions = if succeeded == self.is_up { 0 } else { self.contradictions + 1 };
        if self.contradictions >= if self.is_up { FAILURES_TO_DOWN } else { SUCCESSES_TO_UP } {
            (self.is_up, self.contradictions) = (succeeded, 0);
        }
        self.is_up
    }
}

/// Runs all probes periodically until `stop`. Reports each dependency, and the `services` that need
/// the required ones.
pub async fn watch(health: Health, services: &[&str], probes: Vec<Probe>, stop: CancellationToken) {
    let mut states: Vec<_> = probes.iter().map(|_| DebouncedState { is_up: true, contradictions: 0 }).collect();
    let mut ticks = interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let probing =
            join_all(probes.iter().map(async |probe| timeout(PROBE_TIMEOUT, (probe.check)()).await.unwrap_or(false)));
        let Some(results) = stop.run_until_cancelled(probing).await else { return };
        let mut all_required_up = true;
        for ((probe, debounced), succeeded) in probes.iter().zip(&mut states).zip(results) {
            let is_up = debounced.observe(succeeded);
            all_required_up &= is_up || !probe.required;
            health.set(probe.entry, state(is_up));
            health.set_detail(probe.entry, (probe.detail)());
        }
        for service in services {
            health.set(service, state(all_required_up));
        }
    }
}

fn state(is_up: bool) -> HealthState {
    if is_up { HealthState::Serving } else { HealthState::NotServing }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::{Instant, sleep};

    use super::*;

    /// A required and an optional dependency, and the health of the service.
    struct WatchedDependencies {
        health: Health,
        required: Arc<AtomicBool>,
        optional_down: Arc<AtomicBool>,
    }

    impl WatchedDependencies {
        fn start() -> Self {
            let (health, required, optional_down) = (Health::default(), Arc::default(), Arc::default());
            let probes = vec![
                Probe::required("postgres", hanging_probe(&required)),
                Probe::required("redis", hanging_probe(&optional_down)).optional(),
            ];
            tokio::spawn({
                let health = health.clone();
                async move { watch(health, &["test.v1.Probe"], probes, CancellationToken::new()).await }
            });
            Self { health, required, optional_down }
        }

        fn shows(&self, line: &str) -> bool {
            self.health.readiness().1.lines().any(|entry| entry == line)
        }

        /// Waits for a line of `/readyz` and returns how long that took.
        async fn time_until(&self, line: &str) -> Duration {
            let begin = Instant::now();
            while !self.shows(line) {
                sleep(Duration::from_millis(10)).await;
            }
            begin.elapsed()
        }
    }

    /// A probe that hangs while the dependency is down.
    fn hanging_probe(down: &Arc<AtomicBool>) -> impl Fn() -> BoxFuture<'static, bool> + use<> {
        let down = Arc::clone(down);
        move || {
            let down = down.load(Ordering::Relaxed);
            Box::pin(async move { if down { std::future::pending().await } else { true } })
        }
    }

    /// A hang is reported within 3 s, a recovery within 2 s.
    #[tokio::test(start_paused = true)]
    async fn a_required_dependency_decides_the_health_of_the_service() {
        let watched = WatchedDependencies::start();
        watched.time_until("test.v1.Probe SERVING").await;
        for _ in 0..20 {
            watched.required.store(true, Ordering::Relaxed);
            assert!(watched.time_until("test.v1.Probe NOT_SERVING").await < Duration::from_secs(3));
            assert!(watched.shows("postgres NOT_SERVING") && watched.shows("redis SERVING"));
            sleep(Duration::from_millis(rand::random_range(0..1000))).await;

            watched.required.store(false, Ordering::Relaxed);
            assert!(watched.time_until("test.v1.Probe SERVING").await < Duration::from_secs(2));
            sleep(Duration::from_millis(rand::random_range(0..1000))).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_works_without_an_optional_dependency() {
        let watched = WatchedDependencies::start();
        watched.optional_down.store(true, Ordering::Relaxed);

        watched.time_until("redis NOT_SERVING").await;

        assert!(watched.shows("test.v1.Probe SERVING"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_failed_probe_changes_nothing() {
        let watched = WatchedDependencies::start();
        watched.time_until("test.v1.Probe SERVING").await;

        watched.required.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(600)).await;
        watched.required.store(false, Ordering::Relaxed);

        for _ in 0..300 {
            assert!(watched.shows("postgres SERVING"));
            sleep(Duration::from_millis(10)).await;
        }
    }
}
