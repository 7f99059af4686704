//! The connection on which a service receives notifications of other instances.
//!
//! Pub/sub never reports a lost message, neither after a cut connection nor on a dead one that
//! looks alive. A connection is therefore a [`Session`] with an observable end, and an idle session
//! verifies itself by publishing a message to itself. A service subscribes again in each session
//! ([`Subscriber::keep_subscribed`]) and then checks what it missed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::args::{Args, Role};
use crate::credentials::RedisCredentials;
use crate::doubling_pause::DoublingPause;
use crate::error::Error;
use crate::metrics::SessionMetrics;
use crate::redis::{config, names};
use crate::ttl::millis;

/// Idle time after which a session verifies that it still receives messages.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Longest time for this verification.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Channels per command: few enough to be confirmed within the reply timeout.
const CHANNELS_MAX: usize = 500;

/// Receives pub/sub messages; reconnects until it is dropped.
#[derive(Debug)]
pub struct Subscriber {
    sessions: watch::Receiver<Option<Session>>,
    keeper: JoinHandle<()>,
}

/// An event of a subscription that [`Subscriber::keep_subscribed`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionEvent {
    /// The server has confirmed all channels: their messages are received from now on.
    Started,
    /// The session has ended: messages may have been missed before, and are missed until the next
    /// start.
    Ended,
}

/// One connection of a [`Subscriber`]. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    connection: MultiplexedConnection,
    prefix: Arc<str>,
    liveness: Arc<SessionLiveness>,
}

/// Liveness of a session, updated by the task that reads the connection.
struct SessionLiveness {
    ended: watch::Sender<bool>,
    start: Instant,
    /// Time of the latest message, in ms after `start`.
    last_message_ms: AtomicU64,
}

impl SessionLiveness {
    fn record_message(&self) {
        self.last_message_ms.store(millis(self.start.elapsed()), Ordering::Relaxed);
    }

    fn idle_time(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_message_ms.load(Ordering::Relaxed)))
    }
}

impl Subscriber {
    /// Starts to connect in the background, and keeps reconnecting.
    ///
    /// `on_message` receives each message and the name of its channel without
    /// the common prefix, in the order in which Redis sent them. The task that reads the
    /// connection calls it: it must not block.
    ///
    /// # Errors
    /// The driver's error if it does not accept the URL.
    pub fn open(
        args: &Args,
        service: &str,
        role: Role,
        on_message: impl Fn(&str, Vec<u8>) + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let prefix = names(args, service).channels;
        let (slot, sessions) = watch::channel(None);
        let limit = *args.redis_connect_timeout;
        let keeper = tokio::spawn(keep(
            RedisCredentials::new(args)?,
            config(args, role),
            prefix,
            limit,
            slot,
            Arc::new(on_message),
            SessionMetrics::of_pubsub(),
        ));
        Ok(Self { sessions, keeper })
    }

    /// Keeps these channels subscribed in one session after another; runs until it is dropped.
    ///
    /// `on_event` receives the begin and the end of each subscription, alternating, the begin
    /// first. It must not block. A message that is published between the two is received, unless
    /// the connection is dead already: if it looks alive, the end follows within six seconds. A
    /// message that is published at any other time may be missed. A service that must miss nothing
    /// therefore compares with its source after each event.
    ///
    /// Messages come from another task, and the first of them may precede the begin.
    pub async fn keep_subscribed(&self, channels: &[impl AsRef<str>], mut on_event: impl FnMut(SubscriptionEvent)) {
        let mut sessions = self.sessions();
        loop {
            let session = sessions.borrow_and_update().clone();
            let mut started = false;
            if let Some(mut session) = session {
                match session.subscribe(channels).await {
                    Ok(()) => {
                        started = true;
                        on_event(SubscriptionEvent::Started);
                    }
                    Err(error) => tracing::debug!(%error, "subscribing failed; the next session tries again"),
                }
            }
            if sessions.changed().await.is_err() {
                return;
            }
            if started {
                on_event(SubscriptionEvent::Ended);
            }
        }
    }

    /// Returns the current session, `None` while disconnected; the receiver changes with each. For
    /// a service whose channels change during a session.
    pub fn sessions(&self) -> watch::Receiver<Option<Session>> {
        self.sessions.clone()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Session {
    /// Subscribes to channels. Returns once the server has confirmed all of them: from then on the
    /// session receives every message until its end.
    ///
    /// # Errors
    /// [`Error`]; the session has ended then.
    pub async fn subscribe(&mut self, names: &[impl AsRef<str>]) -> Result<(), Error> {
        for names in names.chunks(CHANNELS_MAX) {
            let channels = self.channels(names);
            let answer = self.connection.subscribe(&channels[..]).await;
            self.end_on_error(answer)?;
        }
        Ok(())
    }

    /// Unsubscribes from channels. Returns once the server has confirmed it: no message follows.
    ///
    /// # Errors
    /// [`Error`]; the session has ended then.
    pub async fn unsubscribe(&mut self, names: &[impl AsRef<str>]) -> Result<(), Error> {
        for names in names.chunks(CHANNELS_MAX) {
            let channels = self.channels(names);
            let answer = self.connection.unsubscribe(&channels[..]).await;
            self.end_on_error(answer)?;
        }
        Ok(())
    }

    /// Ends the session. The subscriber starts another one.
    pub fn end(&self) {
        self.liveness.ended.send_replace(true);
    }

    fn channels(&self, names: &[impl AsRef<str>]) -> Vec<String> {
        names.iter().map(|name| format!("{}{}", self.prefix, name.as_ref())).collect()
    }

    fn end_on_error(&self, answer: Result<(), RedisError>) -> Result<(), Error> {
        answer.map_err(|error| {
            self.end();
            Error::from_redis(error)
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

type OnMessage = Arc<dyn Fn(&str, Vec<u8>) + Send + Sync>;

async fn keep(
    credentials: RedisCredentials,
    config: AsyncConnectionConfig,
    prefix: Arc<str>,
    limit: Duration,
    slot: watch::Sender<Option<Session>>,
    on_message: OnMessage,
    metrics: SessionMetrics,
) {
    let (mut pause, mut reported) = (DoublingPause::reconnect(), false);
    loop {
        let probe = format!("probe-{:016x}", rand::random::<u64>());
        match connect(&credentials, &config, &prefix, &probe, limit, &on_message).await {
            Ok(session) => {
                pause.reset();
                reported = false;
                metrics.session_started();
                slot.send_replace(Some(session.clone()));
                let reason = wait_for_end(&session, &probe).await;
                session.end();
                slot.send_replace(None);
                metrics.session_ended();
                tracing::warn!(reason, "redis pub/sub session ended");
            }
            Err(error) => {
                if reported {
                    tracing::debug!(%error, "redis pub/sub is unavailable");
                } else {
                    tracing::warn!(%error, cause = error.cause(), "redis pub/sub is unavailable; trying again");
                    reported = true; // once per outage
                }
                pause.wait().await;
            }
        }
    }
}

/// Starts a session that is subscribed to its own probe channel.
async fn connect(
    credentials: &RedisCredentials,
    config: &AsyncConnectionConfig,
    prefix: &Arc<str>,
    probe: &str,
    limit: Duration,
    on_message: &OnMessage,
) -> Result<Session, Error> {
    let liveness = Arc::new(SessionLiveness {
        ended: watch::Sender::new(false),
        start: Instant::now(),
        last_message_ms: AtomicU64::new(0),
    });
    let config = config.clone().set_push_sender(push_handler(
        Arc::clone(prefix),
        probe.to_owned(),
        Arc::clone(&liveness),
        on_message,
    ));
    let connecting = timeout(limit, async {
        let (_, info) = credentials.current().await?;
        Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
    });
    let connection = connecting.await.map_err(|_| Error::Away)?.map_err(Error::from_redis)?;
    let mut session = Session { connection, prefix: Arc::clone(prefix), liveness };
    session.subscribe(&[probe]).await?;
    Ok(session)
}

/// Returns the handler of the server's pushes.
fn push_handler(
    prefix: Arc<str>,
    probe: String,
    liveness: Arc<SessionLiveness>,
    on_message: &OnMessage,
) -> impl Fn(PushInfo) -> Result<(), RedisError> + Send + Sync + 'static {
    let on_message = Arc::clone(on_message);
    move |push: PushInfo| {
        match push.kind {
            PushKind::Disconnection => {
                liveness.ended.send_replace(true);
            }
            PushKind::Message => {
                liveness.record_message();
                let mut data = push.data.into_iter();
                if let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) = (data.next(), data.next())
                    && let Some(name) = str::from_utf8(&channel).ok().and_then(|channel| channel.strip_prefix(&*prefix))
                    && name != probe
                {
                    on_message(name, message);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Waits for the end of a session; returns the reason.
async fn wait_for_end(session: &Session, probe: &str) -> &'static str {
    let mut ended = session.liveness.ended.subscribe();
    loop {
        let idle = session.liveness.idle_time();
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => return "connection lost or session ended",
            () = sleep(IDLE_MAX.saturating_sub(idle)) => {}
        }
        if session.liveness.idle_time() >= IDLE_MAX && !receives_its_own_message(session, probe).await {
            return "no messages: its own probe message did not arrive";
        }
    }
}

/// Returns true if the session receives a message that it publishes.
async fn receives_its_own_message(session: &Session, probe: &str) -> bool {
    let before = session.liveness.last_message_ms.load(Ordering::Relaxed);
    let mut connection = session.connection.clone();
    let round_trip = async {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(format!("{}{probe}", session.prefix)).arg("").exec_async(&mut connection).await?;
        while session.liveness.last_message_ms.load(Ordering::Relaxed) == before {
            sleep(Duration::from_millis(5)).await; // it follows the reply at once, or never arrives
        }
        Ok::<(), RedisError>(())
    };
    matches!(timeout(PROBE_TIMEOUT, round_trip).await, Ok(Ok(())))
}
