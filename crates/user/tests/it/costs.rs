//! What calls cost, as it can be counted: commands that Redis ran, round trips to it, statements in Postgres.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
};
use redis::Value;
use uuid::Uuid;

use super::support::{SOON, World, eventually};

/// Commands that serve callers; others ask only whether Redis is alive, and who it is.
const SERVING: [&str; 8] = ["get", "mget", "set", "del", "eval", "evalsha", "script", "publish"];

/// What was spent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// To Redis. What is sent together is one.
    pub(crate) round_trips: u64,
    /// In Postgres, for callers.
    pub(crate) statements: u64,
    /// In Redis, by name. What scripts call is counted, too.
    pub(crate) commands: BTreeMap<String, u64>,
}

/// Counts what is spent by instances that are started in this thread while it lives.
pub(crate) struct Costs<'a> {
    world: World,
    told: Arc<Mutex<Vec<String>>>,
    numbers: &'a Numbers,
    _recording: LocalRecorderGuard<'a>,
}

impl<'a> Costs<'a> {
    /// Begins to count, on servers that nobody else uses.
    pub(crate) fn count(world: &World, numbers: &'a Numbers) -> Self {
        let mut redis = world.redis();
        redis::cmd("MONITOR").exec(&mut redis).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&told);
        // It ends with its server.
        std::thread::spawn(move || {
            while let Ok(value) = redis.recv_response() {
                let Value::SimpleString(line) = value else { continue };
                all.lock().unwrap().push(line);
            }
        });
        Self { world: world.clone(), told, numbers, _recording: metrics::set_default_local_recorder(numbers) }
    }

    /// What was spent since the last look.
    pub(crate) async fn spent(&self) -> Cost {
        let lines = self.told_until_now().await;
        let mut commands = BTreeMap::new();
        let mut single = 0;
        for line in lines.iter().filter(|line| !line.contains(":proof\"")) {
            let (by, command) = line.split_once("] \"").unwrap();
            let name = command.split('"').next().unwrap().to_lowercase();
            if !SERVING.contains(&name.as_str()) {
                continue;
            }
            let by_script = by.ends_with("lua");
            single += u64::from(!by_script && ["get", "mget", "set"].contains(&name.as_str()));
            *commands.entry(name).or_default() += 1;
        }
        let of_scripts = self.numbers.scripts.0.swap(0, Ordering::SeqCst);
        let statements = self.numbers.statements.0.swap(0, Ordering::SeqCst);
        Cost { round_trips: single + of_scripts, statements, commands }
    }

    /// Every command that Redis told of, up to one that is sent now.
    async fn told_until_now(&self) -> Vec<String> {
        let mark = Uuid::new_v4().to_string();
        redis::cmd("ECHO").arg(&mark).exec(&mut self.world.redis()).unwrap();
        let told = async || self.told.lock().unwrap().iter().any(|line| line.contains(&mark));
        eventually("Redis has told all", SOON, told).await;
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

/// Takes from the numbers of the service how often scripts were sent, one or many at once, and what Postgres did for callers.
#[derive(Default)]
pub(crate) struct Numbers {
    scripts: Arc<Times>,
    statements: Arc<Times>,
}

/// How often something was measured.
#[derive(Default)]
struct Times(AtomicU64);

impl HistogramFn for Times {
    fn record(&self, _seconds: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let label = key.labels().next().map_or("", metrics::Label::value);
        match (key.name(), label) {
            ("tidings_redis_call_seconds", "script" | "scripts") => Histogram::from_arc(Arc::clone(&self.scripts)),
            ("tidings_postgres_run_seconds", "callers") => Histogram::from_arc(Arc::clone(&self.statements)),
            _ => Histogram::noop(),
        }
    }
}
