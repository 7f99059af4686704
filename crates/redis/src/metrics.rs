//! Metrics of Redis. Handles are looked up once; counting a call costs one or two atomic
//! operations.

use std::fmt;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};
use parking_lot::Mutex;

use crate::error::Error;
use crate::incarnation::Incarnation;

/// Metrics of the lanes of one service.
pub(crate) struct Metrics {
    /// Duration of single commands.
    pub(crate) command: Histogram,
    /// Duration of single scripts.
    pub(crate) script: Histogram,
    /// Duration of pipelines of scripts.
    pub(crate) scripts: Histogram,
    away: Counter,
    unanswered: Counter,
    unwritable: Counter,
    denied: Counter,
    refused: Counter,
    shed: Counter,
    breaker_open: Gauge,
    breaker_opens: Counter,
    lanes_up: Gauge,
    connects: Counter,
    incarnations: Counter,
    /// The latest incarnation that a lane connected to.
    incarnation: Mutex<Option<Incarnation>>,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        describe();
        let seconds = |call| histogram!("tidings_redis_call_seconds", "call" => call);
        let errors = |kind| counter!("tidings_redis_errors_total", "kind" => kind);
        let metrics = Self {
            command: seconds("command"),
            script: seconds("script"),
            scripts: seconds("scripts"),
            away: errors("away"),
            unanswered: errors("unanswered"),
            unwritable: errors("unwritable"),
            denied: errors("denied"),
            refused: errors("refused"),
            shed: errors("shed"),
            breaker_open: gauge!("tidings_redis_breaker_open"),
            breaker_opens: counter!("tidings_redis_breaker_opens_total"),
            lanes_up: gauge!("tidings_redis_lanes_up"),
            connects: counter!("tidings_redis_connects_total"),
            incarnations: counter!("tidings_redis_incarnations_total"),
            incarnation: Mutex::default(),
        };
        metrics.breaker_open.set(0);
        Arc::new(metrics)
    }

    /// Counts an error and returns it.
    pub(crate) fn failed(&self, error: Error) -> Error {
        let kind = match &error {
            Error::Away => &self.away,
            Error::Unanswered(_) => &self.unanswered,
            Error::Unwritable(_) => &self.unwritable,
            Error::Denied(_) => &self.denied,
            Error::Refused(_) => &self.refused,
        };
        kind.increment(1);
        error
    }

    /// Counts a call that the breaker refused; returns its error.
    pub(crate) fn shed(&self) -> Error {
        self.shed.increment(1);
        Error::Away
    }

    /// Records that the breaker opened.
    pub(crate) fn breaker_opened(&self) {
        self.breaker_open.set(1);
        self.breaker_opens.increment(1);
    }

    /// Records that the breaker closed.
    pub(crate) fn breaker_closed(&self) {
        self.breaker_open.set(0);
    }

    /// Records that a lane connected to a server of this incarnation.
    pub(crate) fn connected(&self, incarnation: &Incarnation) {
        self.lanes_up.increment(1);
        self.connects.increment(1);
        let mut last = self.incarnation.lock();
        if last.as_ref() != Some(incarnation) {
            *last = Some(incarnation.clone());
            self.incarnations.increment(1);
        }
    }

    /// Records that a lane was disconnected.
    pub(crate) fn disconnected(&self) {
        self.lanes_up.decrement(1);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Metrics of a connection on which the server pushes messages.
pub(crate) struct SessionMetrics {
    up: Gauge,
    connects: Counter,
}

impl SessionMetrics {
    fn new(up: Gauge, connects: Counter) -> Self {
        up.set(0);
        Self { up, connects }
    }

    /// Returns the metrics of the pub/sub connection.
    pub(crate) fn of_pubsub() -> Self {
        describe_gauge!("tidings_redis_pubsub_up", "1 while the pub/sub session is connected, else 0.");
        describe_counter!(
            "tidings_redis_pubsub_connects_total",
            "Pub/sub sessions; before each but the first, notifications may have been lost."
        );
        Self::new(gauge!("tidings_redis_pubsub_up"), counter!("tidings_redis_pubsub_connects_total"))
    }

    /// Returns the metrics of the tracking connection.
    pub(crate) fn of_tracking() -> Self {
        describe_gauge!(
            "tidings_redis_tracking_up",
            "1 while invalidations are received, else 0; the local cache is empty while 0."
        );
        describe_counter!(
            "tidings_redis_tracking_connects_total",
            "Tracking sessions; the local cache was emptied before each but the first."
        );
        Self::new(gauge!("tidings_redis_tracking_up"), counter!("tidings_redis_tracking_connects_total"))
    }

    /// Records the start of a session.
    pub(crate) fn session_started(&self) {
        self.up.set(1);
        self.connects.increment(1);
    }

    /// Records the end of the session.
    pub(crate) fn session_ended(&self) {
        self.up.set(0);
    }
}

fn describe() {
    describe_histogram!(
        "tidings_redis_call_seconds",
        Unit::Seconds,
        "Duration of calls to Redis, including timeouts: single commands, single scripts, pipelines of scripts."
    );
    describe_counter!(
        "tidings_redis_errors_total",
        "Failed calls to Redis by kind: away (no connection, not sent), unanswered (may have been applied), unwritable \
         (server refuses writes), denied (missing permission), refused (any other error, or an unexpected reply), shed (breaker open, not sent)."
    );
    describe_gauge!(
        "tidings_redis_breaker_open",
        "1 while the circuit breaker is open and calls fail immediately, else 0."
    );
    describe_counter!("tidings_redis_breaker_opens_total", "Number of times that the circuit breaker opened.");
    describe_gauge!("tidings_redis_lanes_up", "Connected lanes, of those configured by `--redis-lanes`.");
    describe_counter!("tidings_redis_connects_total", "Established lane connections.");
    describe_counter!(
        "tidings_redis_incarnations_total",
        "Incarnations of the server: 1 after the first connect, plus 1 for each restart or replacement."
    );
}
