//! Whether what a service depends on answers, as its health tells it.
//!
//! Each dependency has an entry of its own; the entry of the service says whether its main job works. Neither says anything
//! about readiness: an instance whose Postgres is away is as good as any other, and its callers must hear UNAVAILABLE with
//! when to try again.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tidings_postgres::Postgres;
use tidings_redis::{Redis, Role};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::Health;
use crate::health::State;

/// How often everything is asked.
const TICK: Duration = Duration::from_millis(500);
/// How long an answer may take: a server that was stopped still accepts connections.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long one of Postgres may take: less, because who gave up waiting would draw no conclusion.
const POSTGRES: Duration = Duration::from_millis(350);
/// So many answers must be missing in a row before it is said: one may be lost by a reconnect. NOT_SERVING within 3 s.
const MISSING: u32 = 3;
/// So many must be there in a row before it is taken back: what flaps is not there. SERVING within 2 s.
const THERE: u32 = 2;

/// One dependency of a service.
pub struct Probe {
    entry: &'static str,
    vital: bool,
    ask: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
    /// What there is to say about it, besides whether it answers.
    detail: Box<dyn Fn() -> String + Send + Sync>,
}

impl Probe {
    /// One without which the service does not do its main job. `ask` makes a real round trip.
    pub fn vital<F: Future<Output = bool> + Send + 'static>(
        entry: &'static str,
        ask: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self { entry, vital: true, ask: Box::new(move || Box::pin(ask())), detail: Box::new(String::new) }
    }

    /// The truth of a service.
    pub fn postgres(postgres: &Postgres) -> Self {
        let postgres = postgres.clone();
        Self::vital("postgres", move || {
            let postgres = postgres.clone();
            async move { postgres.ping(POSTGRES).await }
        })
    }

    /// The same, of a service that goes on without it.
    #[must_use]
    pub fn only_helpful(self) -> Self {
        Self { vital: false, ..self }
    }

    /// A cache, which a service works without, or a state, which it does not; says what its breaker does.
    pub fn redis(redis: &Redis, role: Role) -> Self {
        let (asked, told) = (redis.clone(), redis.clone());
        let ask = move || {
            let redis = asked.clone();
            async move { redis.ping().await }
        };
        let detail = Box::new(move || format!("breaker {}", told.breaker()));
        Self { vital: role == Role::State, detail, ..Self::vital("redis", ask) }
    }
}

/// What is believed of a dependency, which takes more than one answer to change.
#[derive(Debug)]
struct Belief {
    there: bool,
    /// Answers in a row that say otherwise.
    against: u32,
}

impl Belief {
    fn hear(&mut self, answered: bool) -> bool {
        self.against = if answered == self.there { 0 } else { self.against + 1 };
        if self.against >= if self.there { MISSING } else { THERE } {
            (self.there, self.against) = (answered, 0);
        }
        self.there
    }
}

/// Asks all of them again and again, and reports them and the `services` that need the vital ones, until `stop`.
pub async fn watch(health: Health, services: &[&str], probes: Vec<Probe>, stop: CancellationToken) {
    let mut beliefs: Vec<_> = probes.iter().map(|_| Belief { there: true, against: 0 }).collect();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let asked = join_all(probes.iter().map(async |probe| timeout(PATIENCE, (probe.ask)()).await.unwrap_or(false)));
        let Some(answers) = stop.run_until_cancelled(asked).await else { return };
        let mut works = true;
        for ((probe, belief), answered) in probes.iter().zip(&mut beliefs).zip(answers) {
            let there = belief.hear(answered);
            works &= there || !probe.vital;
            health.set(probe.entry, state(there));
            health.explain(probe.entry, (probe.detail)());
        }
        for service in services {
            health.set(service, state(works));
        }
    }
}

fn state(good: bool) -> State {
    if good { State::Serving } else { State::NotServing }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::{Instant, sleep};

    use super::*;

    /// What is said of two dependencies, of which one is vital, and of the service.
    struct Watched {
        health: Health,
        vital: Arc<AtomicBool>,
        helpful: Arc<AtomicBool>,
    }

    impl Watched {
        fn start() -> Self {
            let (health, vital, helpful) = (Health::default(), Arc::default(), Arc::default());
            let probes =
                vec![Probe::vital("postgres", asking(&vital)), Probe::vital("redis", asking(&helpful)).only_helpful()];
            tokio::spawn({
                let health = health.clone();
                async move { watch(health, &["test.v1.Probe"], probes, CancellationToken::new()).await }
            });
            Self { health, vital, helpful }
        }

        fn says(&self, line: &str) -> bool {
            self.health.readiness().1.lines().any(|entry| entry == line)
        }

        /// How long it takes until it says so.
        async fn until(&self, line: &str) -> Duration {
            let begin = Instant::now();
            while !self.says(line) {
                sleep(Duration::from_millis(10)).await;
            }
            begin.elapsed()
        }
    }

    /// Asks something that hangs while it is away.
    fn asking(away: &Arc<AtomicBool>) -> impl Fn() -> BoxFuture<'static, bool> + use<> {
        let away = Arc::clone(away);
        move || {
            let away = away.load(Ordering::Relaxed);
            Box::pin(async move { if away { std::future::pending().await } else { true } })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_vital_dependency_that_hangs_is_told_within_3_s_and_its_return_within_2_s() {
        let watched = Watched::start();
        watched.until("test.v1.Probe SERVING").await;
        for _ in 0..20 {
            watched.vital.store(true, Ordering::Relaxed);
            assert!(watched.until("test.v1.Probe NOT_SERVING").await < Duration::from_secs(3));
            assert!(watched.says("postgres NOT_SERVING") && watched.says("redis SERVING"));
            sleep(Duration::from_millis(rand::random_range(0..1000))).await;

            watched.vital.store(false, Ordering::Relaxed);
            assert!(watched.until("test.v1.Probe SERVING").await < Duration::from_secs(2));
            sleep(Duration::from_millis(rand::random_range(0..1000))).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_helpful_dependency_is_told_and_the_service_works_without_it() {
        let watched = Watched::start();
        watched.helpful.store(true, Ordering::Relaxed);

        watched.until("redis NOT_SERVING").await;

        assert!(watched.says("test.v1.Probe SERVING"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_that_is_lost_is_nothing() {
        let watched = Watched::start();
        watched.until("test.v1.Probe SERVING").await;

        watched.vital.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(600)).await;
        watched.vital.store(false, Ordering::Relaxed);

        for _ in 0..300 {
            assert!(watched.says("postgres SERVING"));
            sleep(Duration::from_millis(10)).await;
        }
    }
}
