//! What is counted of Redis. The handles are looked up once: what is counted for every call costs an atomic or two.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};

use crate::Error;

/// The numbers of the lanes of one service.
pub(crate) struct Numbers {
    /// One command.
    pub(crate) command: Histogram,
    /// One script.
    pub(crate) script: Histogram,
    /// Many scripts in one round trip.
    pub(crate) scripts: Histogram,
    away: Counter,
    unanswered: Counter,
    unwritable: Counter,
    refused: Counter,
    shed: Counter,
    breaker_open: Gauge,
    breaker_opens: Counter,
    lanes_up: Gauge,
    connects: Counter,
    reigns: Counter,
    /// The reign that was met last, by any lane.
    reign: Mutex<Box<str>>,
}

impl Numbers {
    pub(crate) fn new() -> Arc<Self> {
        describe();
        let seconds = |call| histogram!("tidings_redis_call_seconds", "call" => call);
        let errors = |kind| counter!("tidings_redis_errors_total", "kind" => kind);
        let numbers = Self {
            command: seconds("command"),
            script: seconds("script"),
            scripts: seconds("scripts"),
            away: errors("away"),
            unanswered: errors("unanswered"),
            unwritable: errors("unwritable"),
            refused: errors("refused"),
            shed: errors("shed"),
            breaker_open: gauge!("tidings_redis_breaker_open"),
            breaker_opens: counter!("tidings_redis_breaker_opens_total"),
            lanes_up: gauge!("tidings_redis_lanes_up"),
            connects: counter!("tidings_redis_connects_total"),
            reigns: counter!("tidings_redis_reigns_total"),
            reign: Mutex::default(),
        };
        numbers.breaker_open.set(0);
        Arc::new(numbers)
    }

    /// Counts an error on its way to its caller.
    pub(crate) fn failed(&self, error: Error) -> Error {
        let kind = match &error {
            Error::Away => &self.away,
            Error::Unanswered(_) => &self.unanswered,
            Error::Unwritable(_) => &self.unwritable,
            Error::Refused(_) => &self.refused,
        };
        kind.increment(1);
        error
    }

    /// Counts a call that the breaker did not let through.
    pub(crate) fn shed(&self) -> Error {
        self.shed.increment(1);
        Error::Away
    }

    /// The breaker opened.
    pub(crate) fn breaker_opened(&self) {
        self.breaker_open.set(1);
        self.breaker_opens.increment(1);
    }

    /// The breaker closed.
    pub(crate) fn breaker_closed(&self) {
        self.breaker_open.set(0);
    }

    /// A lane is connected, to a server of this reign.
    pub(crate) fn connected(&self, reign: &str) {
        self.lanes_up.increment(1);
        self.connects.increment(1);
        let mut last = self.reign.lock().unwrap_or_else(PoisonError::into_inner);
        if **last != *reign {
            *last = reign.into();
            self.reigns.increment(1);
        }
    }

    /// A lane was given up.
    pub(crate) fn given_up(&self) {
        self.lanes_up.decrement(1);
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers")
    }
}

/// The numbers of the connection over which a service hears.
pub(crate) struct Ears {
    up: Gauge,
    connects: Counter,
}

impl Ears {
    pub(crate) fn new() -> Self {
        describe_gauge!("tidings_redis_pubsub_up", "1 while there is a connection on which pub/sub is heard, else 0.");
        describe_counter!(
            "tidings_redis_pubsub_connects_total",
            "Connections on which pub/sub was heard; with each but the first, something may have been missed."
        );
        let ears =
            Self { up: gauge!("tidings_redis_pubsub_up"), connects: counter!("tidings_redis_pubsub_connects_total") };
        ears.up.set(0);
        ears
    }

    /// A session began.
    pub(crate) fn hear(&self) {
        self.up.set(1);
        self.connects.increment(1);
    }

    /// The session is over.
    pub(crate) fn deaf(&self) {
        self.up.set(0);
    }
}

/// The numbers of the connection over which a service hears which keys have changed.
pub(crate) struct Tracking {
    up: Gauge,
    connects: Counter,
}

impl Tracking {
    pub(crate) fn new() -> Self {
        describe_gauge!(
            "tidings_redis_tracking_up",
            "1 while there is a connection on which changed keys are told, else 0: then nothing is kept in memory."
        );
        describe_counter!(
            "tidings_redis_tracking_connects_total",
            "Connections on which changed keys were told; with each but the first, what was kept in memory was dropped."
        );
        let tracking = Self {
            up: gauge!("tidings_redis_tracking_up"),
            connects: counter!("tidings_redis_tracking_connects_total"),
        };
        tracking.up.set(0);
        tracking
    }

    /// A term began.
    pub(crate) fn began(&self) {
        self.up.set(1);
        self.connects.increment(1);
    }

    /// The term is over.
    pub(crate) fn ended(&self) {
        self.up.set(0);
    }
}

fn describe() {
    describe_histogram!(
        "tidings_redis_call_seconds",
        Unit::Seconds,
        "Time from the sending of a call to Redis to its answer, or to the end of the wait for it: of a command, a script, \
         or many scripts in one round trip."
    );
    describe_counter!(
        "tidings_redis_errors_total",
        "Calls to Redis that failed: away (no connection, nothing was sent), unanswered (it may have been done), unwritable \
         (it takes no writes), refused (an error nobody expects), shed (the breaker is open, nothing was sent)."
    );
    describe_gauge!(
        "tidings_redis_breaker_open",
        "1 while the breaker spares calls the wait for a Redis that does not answer, else 0."
    );
    describe_counter!("tidings_redis_breaker_opens_total", "Times that the breaker opened.");
    describe_gauge!("tidings_redis_lanes_up", "Lanes that are connected, of those that are configured.");
    describe_counter!("tidings_redis_connects_total", "Times that a lane was connected.");
    describe_counter!(
        "tidings_redis_reigns_total",
        "Reigns of the server that were met: 1 after the first connect, one more whenever it restarted or was replaced."
    );
}
