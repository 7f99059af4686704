//! Invalidations of cached keys, for a cache of a cache: Redis client tracking in broadcasting
//! mode.
//!
//! Redis reports once that a key changed, was evicted or expired; invalidations without a
//! connection are lost. A connection is therefore a *tracking session* with a start and an end
//! event, and values read from Redis may be kept only within a session. A dead connection that
//! looks alive also ends its session: the server must answer twice a second and have the same
//! incarnation.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::args::{Args, Role};
use crate::credentials::RedisCredentials;
use crate::doubling_pause::DoublingPause;
use crate::error::Error;
use crate::incarnation::Incarnation;
use crate::metrics::SessionMetrics;
use crate::redis::config;
use crate::source::SourceIncarnation;

/// Interval of probes on this connection.
const PROBE: Duration = Duration::from_millis(500);
/// Longest wait for the reply to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// An event of a tracking session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackingEvent<'a> {
    /// A session starts: every change of a key of this incarnation is reported in order until its
    /// end.
    Started(&'a Incarnation),
    /// This key was changed or removed; its name without the common prefix.
    Changed(&'a str),
    /// All keys were removed.
    Flushed,
    /// Every change before this instant has been reported: the server answered a request that was
    /// sent then. Follows each start, and then twice a second.
    Confirmed(Instant),
    /// The session has ended: changes may have been missed before, and are not reported until the
    /// next start.
    Ended,
}

/// Receives invalidations; reconnects until it is dropped.
#[derive(Debug)]
pub struct Tracker {
    keeper: JoinHandle<()>,
}

impl Tracker {
    /// Starts to connect in the background, and keeps reconnecting. `on_event` receives the events
    /// of keys whose names begin with `names`; it must not block.
    ///
    /// [`TrackingEvent::Started`] and [`TrackingEvent::Ended`] alternate. Other events come from
    /// another task and must be ignored between an end and the next start. Another `source` ends
    /// the session.
    ///
    /// # Errors
    /// The driver's error if it does not accept the URL.
    pub fn open(
        args: &Args,
        service: &str,
        names: &str,
        source: SourceIncarnation,
        on_event: impl Fn(TrackingEvent<'_>) + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let task = TrackerTask {
            credentials: RedisCredentials::new(args)?,
            config: config(args, Role::Cache).set_response_timeout(Some(PROBE_TIMEOUT)),
            prefix: format!("{}:{service}:", args.redis_prefix).into(),
            names: names.into(),
            source,
            limit: *args.redis_connect_timeout,
            on_event: Arc::new(on_event),
            metrics: SessionMetrics::of_tracking(),
        };
        Ok(Self { keeper: tokio::spawn(task.run()) })
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// The task that keeps a tracking session open.
struct TrackerTask {
    credentials: RedisCredentials,
    config: AsyncConnectionConfig,
    /// Prefix of every key before the incarnation: `<prefix>:<service>:`.
    prefix: Box<str>,
    names: Box<str>,
    source: SourceIncarnation,
    limit: Duration,
    on_event: Arc<dyn Fn(TrackingEvent<'_>) + Send + Sync>,
    metrics: SessionMetrics,
}

/// One tracking session: a connection with tracking enabled.
struct TrackingSession {
    connection: MultiplexedConnection,
    incarnation: Incarnation,
    ended: watch::Receiver<bool>,
    /// Changes when the keys get another source.
    source: watch::Receiver<Arc<str>>,
    /// Time before the server was asked to track.
    started_at: Instant,
}

impl TrackerTask {
    async fn run(self) {
        let (mut pause, mut reported) = (DoublingPause::reconnect(), false);
        loop {
            match self.connect().await {
                Ok(mut session) => {
                    pause.reset();
                    reported = false;
                    self.metrics.session_started();
                    (self.on_event)(TrackingEvent::Started(&session.incarnation));
                    (self.on_event)(TrackingEvent::Confirmed(session.started_at));
                    let reason = session.wait_for_end(&*self.on_event).await;
                    (self.on_event)(TrackingEvent::Ended);
                    self.metrics.session_ended();
                    tracing::warn!(reason, "redis tracking session ended");
                }
                Err(error) => {
                    if reported {
                        tracing::debug!(%error, "redis tracking is unavailable");
                    } else {
                        tracing::warn!(%error, cause = error.cause(), "redis tracking is unavailable; trying again");
                        reported = true; // once per outage
                    }
                    pause.wait().await;
                }
            }
        }
    }

    /// Connects and enables tracking: changes are reported from its reply on.
    async fn connect(&self) -> Result<TrackingSession, Error> {
        let attempt = async {
            // The handler is needed to connect, but the incarnation is known only afterwards.
            let (known, keys) = watch::channel(None);
            let (closed, ended) = watch::channel(false);
            let config = self.config.clone().set_push_sender(push_handler(keys, closed, Arc::clone(&self.on_event)));
            let (_, info) = self.credentials.current().await.map_err(Error::from_redis)?;
            let client = Client::open(info).map_err(Error::from_redis)?;
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await.map_err(Error::from_redis)?;
            let incarnation = read_incarnation(&mut connection).await?;
            let mut source = self.source.subscribe();
            let keys: Arc<str> = format!("{}{incarnation}:{}", self.prefix, *source.borrow_and_update()).into();
            let mut track = redis::cmd("CLIENT");
            track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(format!("{keys}{}", self.names));
            known.send_replace(Some(keys));
            let started_at = Instant::now();
            track.exec_async(&mut connection).await.map_err(Error::from_redis)?;
            Ok(TrackingSession { connection, incarnation, ended, source, started_at })
        };
        timeout(self.limit, attempt).await.unwrap_or(Err(Error::Away))
    }
}

impl TrackingSession {
    /// Waits for the end of the session; returns the reason.
    async fn wait_for_end(&mut self, on_event: &(dyn Fn(TrackingEvent<'_>) + Send + Sync)) -> &'static str {
        loop {
            tokio::select! {
                _ = self.ended.wait_for(|ended| *ended) => return "connection lost",
                Ok(()) = self.source.changed() => return "another incarnation of the database",
                () = sleep(PROBE) => {}
            }
            let sent_at = Instant::now();
            match read_incarnation(&mut self.connection).await {
                // Redis sends the reply after all earlier invalidations, on the same connection.
                Ok(incarnation) if incarnation == self.incarnation => on_event(TrackingEvent::Confirmed(sent_at)),
                Ok(_) => return "another incarnation",
                Err(_) => return "no reply to a probe",
            }
        }
    }
}

/// Reads the incarnation of the server.
async fn read_incarnation(connection: &mut impl ConnectionLike) -> Result<Incarnation, Error> {
    let info: String =
        redis::cmd("INFO").arg("replication").query_async(connection).await.map_err(Error::from_redis)?;
    Incarnation::from_info(&info).map_err(|_| Error::Away)
}

/// Returns the handler of the server's pushes.
fn push_handler(
    keys: watch::Receiver<Option<Arc<str>>>,
    closed: watch::Sender<bool>,
    on_event: Arc<dyn Fn(TrackingEvent<'_>) + Send + Sync>,
) -> impl Fn(PushInfo) -> Result<(), RedisError> + Send + Sync + 'static {
    move |push: PushInfo| {
        match push.kind {
            PushKind::Disconnection => {
                closed.send_replace(true);
            }
            PushKind::Invalidate => {
                let Some(prefix) = keys.borrow().clone() else { return Ok(()) };
                for item in push.data {
                    match item {
                        Value::Array(changed) => changed
                            .iter()
                            .filter_map(|key| name(key, &prefix))
                            .for_each(|name| on_event(TrackingEvent::Changed(name))),
                        _ => on_event(TrackingEvent::Flushed),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the name of a key without the common prefix.
fn name<'a>(key: &'a Value, prefix: &str) -> Option<&'a str> {
    match key {
        Value::BulkString(key) => str::from_utf8(key).ok()?.strip_prefix(prefix),
        Value::SimpleString(key) => key.strip_prefix(prefix),
        _ => None,
    }
}

impl fmt::Debug for TrackerTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerTask").field("prefix", &self.prefix).field("names", &self.names).finish_non_exhaustive()
    }
}
