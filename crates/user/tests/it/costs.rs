//! Counts the cost of calls: commands run by Redis, round trips to it, statements in Postgres.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
};
use redis::Value;
use uuid::Uuid;

use super::support::{SOON, TestEnv, eventually};

/// Commands that serve callers; all others are health checks.
const SERVING: [&str; 8] = ["get", "mget", "set", "del", "eval", "evalsha", "script", "publish"];

/// The cost of some calls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Round trips to Redis; a pipeline is one.
    pub(crate) round_trips: u64,
    /// Statements in Postgres for callers.
    pub(crate) statements: u64,
    /// Commands in Redis, by name, including those called by scripts.
    pub(crate) commands: BTreeMap<String, u64>,
}

/// Counts the costs of the instances that are started in this thread while it lives.
pub(crate) struct Costs<'a> {
    env: TestEnv,
    monitored: Arc<Mutex<Vec<String>>>,
    metrics: &'a CostRecorder,
    _recording: LocalRecorderGuard<'a>,
}

impl<'a> Costs<'a> {
    /// Starts to count on dedicated servers.
    pub(crate) fn count(env: &TestEnv, metrics: &'a CostRecorder) -> Self {
        let mut redis = env.redis();
        redis::cmd("MONITOR").exec(&mut redis).unwrap();
        let monitored = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&monitored);
        // The thread ends with the server.
        std::thread::spawn(move || {
            while let Ok(value) = redis.recv_response() {
                let Value::SimpleString(line) = value else { continue };
                all.lock().unwrap().push(line);
            }
        });
        Self { env: env.clone(), monitored, metrics, _recording: metrics::set_default_local_recorder(metrics) }
    }

    /// Returns the costs since the last call.
    pub(crate) async fn spent(&self) -> Cost {
        let lines = self.commands_until_now().await;
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
        let of_scripts = self.metrics.scripts.0.swap(0, Ordering::SeqCst);
        let statements = self.metrics.statements.0.swap(0, Ordering::SeqCst);
        Cost { round_trips: single + of_scripts, statements, commands }
    }

    /// Returns the monitored commands up to a marker that is sent now.
    async fn commands_until_now(&self) -> Vec<String> {
        let mark = Uuid::new_v4().to_string();
        redis::cmd("ECHO").arg(&mark).exec(&mut self.env.redis()).unwrap();
        let complete = async || self.monitored.lock().unwrap().iter().any(|line| line.contains(&mark));
        eventually("Redis has reported the marker", SOON, complete).await;
        std::mem::take(&mut *self.monitored.lock().unwrap())
    }
}

/// Counts, from the metrics of the service, round trips with scripts and statements for callers.
#[derive(Default)]
pub(crate) struct CostRecorder {
    scripts: Arc<CallCount>,
    statements: Arc<CallCount>,
}

/// Number of samples of a histogram.
#[derive(Default)]
struct CallCount(AtomicU64);

impl HistogramFn for CallCount {
    fn record(&self, _seconds: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder for CostRecorder {
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
