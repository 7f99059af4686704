//! The connection over which a service hears what others publish.
//!
//! Pub/sub tells nobody that a message was lost: not when the connection was cut, nor when it is dead and looks alive. So a
//! connection is a [`Session`] with an end that everybody hears of, and a session that has heard nothing for a while proves
//! itself by a message of its own. Whoever subscribed does so again in the next session, and then looks for what it missed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::numbers::Ears;
use crate::redis::connection;
use crate::{Args, Error, Role};

/// Silence after which a session has to prove itself.
const SILENCE: Duration = Duration::from_secs(5);
/// How long the proof may take.
const PROOF: Duration = Duration::from_secs(1);
/// The first pause after an attempt to connect failed; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Channels named in one command: few enough to be confirmed within one answer time-out.
const CHANNELS_MAX: usize = 500;

/// The connection over which a service hears what others publish; made anew for as long as this lives.
#[derive(Debug)]
pub struct Subscriber {
    sessions: watch::Receiver<Option<Session>>,
    keeper: JoinHandle<()>,
}

/// One connection of a [`Subscriber`], from its making to its end. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    connection: MultiplexedConnection,
    prefix: Arc<str>,
    ear: Arc<Ear>,
}

/// What the connection's own task knows.
struct Ear {
    over: watch::Sender<bool>,
    begun: Instant,
    /// When something was heard last, in ms after `begun`.
    heard: AtomicU64,
}

impl Ear {
    fn heard_now(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }
}

impl Subscriber {
    /// Begins to connect, and goes on for ever. What is heard is given to `hear`, the name of its channel without
    /// `<prefix>:<service>:` and the message, in the order in which Redis sent it, by the task that reads the connection:
    /// it must not block.
    ///
    /// # Errors
    /// The driver's, if the URL can not be used at all.
    pub fn open(
        args: &Args,
        service: &str,
        role: Role,
        hear: impl Fn(&str, Vec<u8>) + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let (info, config) = connection(args, role)?;
        let client = Client::open(info)?;
        let prefix: Arc<str> = format!("{}:{service}:", args.redis_prefix).into();
        let (slot, sessions) = watch::channel(None);
        let limit = *args.redis_connect_timeout;
        let keeper = tokio::spawn(keep(client, config, prefix, limit, slot, Arc::new(hear), Ears::new()));
        Ok(Self { sessions, keeper })
    }

    /// The present session, `None` while there is none; changes with each.
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
    /// Subscribes; returns when the server has confirmed all of it, so that from now on every message is heard for as long as
    /// the session lasts.
    ///
    /// # Errors
    /// [`Error`]; the session is over then.
    pub async fn subscribe(&mut self, names: &[impl AsRef<str>]) -> Result<(), Error> {
        for names in names.chunks(CHANNELS_MAX) {
            let channels = self.channels(names);
            let answer = self.connection.subscribe(&channels[..]).await;
            self.judge(answer)?;
        }
        Ok(())
    }

    /// Ends subscriptions; returns when the server has confirmed it, so that from now on nothing is heard.
    ///
    /// # Errors
    /// [`Error`]; the session is over then.
    pub async fn unsubscribe(&mut self, names: &[impl AsRef<str>]) -> Result<(), Error> {
        for names in names.chunks(CHANNELS_MAX) {
            let channels = self.channels(names);
            let answer = self.connection.unsubscribe(&channels[..]).await;
            self.judge(answer)?;
        }
        Ok(())
    }

    /// Ends the session: another one begins.
    pub fn give_up(&self) {
        self.ear.over.send_replace(true);
    }

    /// Whether both are the same session.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ear, &other.ear)
    }

    fn channels(&self, names: &[impl AsRef<str>]) -> Vec<String> {
        names.iter().map(|name| format!("{}{}", self.prefix, name.as_ref())).collect()
    }

    fn judge(&self, answer: Result<(), RedisError>) -> Result<(), Error> {
        answer.map_err(|error| {
            self.give_up();
            Error::from_redis(error)
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

type Hear = Arc<dyn Fn(&str, Vec<u8>) + Send + Sync>;

async fn keep(
    client: Client,
    config: AsyncConnectionConfig,
    prefix: Arc<str>,
    limit: Duration,
    slot: watch::Sender<Option<Session>>,
    hear: Hear,
    numbers: Ears,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let probe = format!("probe-{:016x}", rand::random::<u64>());
        match connect(&client, &config, &prefix, &probe, limit, &hear).await {
            Ok(session) => {
                pause = PAUSE_MIN;
                numbers.hear();
                slot.send_replace(Some(session.clone()));
                let why = last(&session, &probe).await;
                session.give_up();
                slot.send_replace(None);
                numbers.deaf();
                tracing::warn!(why, "redis pub/sub lost");
            }
            Err(error) => {
                tracing::debug!(%error, "redis pub/sub is away");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Begins a session, which hears its own probe from now on.
async fn connect(
    client: &Client,
    config: &AsyncConnectionConfig,
    prefix: &Arc<str>,
    probe: &str,
    limit: Duration,
    hear: &Hear,
) -> Result<Session, Error> {
    let ear = Arc::new(Ear { over: watch::Sender::new(false), begun: Instant::now(), heard: AtomicU64::new(0) });
    let config = config.clone().set_push_sender(listen(Arc::clone(prefix), probe.to_owned(), Arc::clone(&ear), hear));
    let connecting = timeout(limit, client.get_multiplexed_async_connection_with_config(&config));
    let connection = connecting.await.map_err(|_| Error::Away)?.map_err(Error::from_redis)?;
    let mut session = Session { connection, prefix: Arc::clone(prefix), ear };
    session.subscribe(&[probe]).await?;
    Ok(session)
}

/// What is done with each push of the server.
fn listen(
    prefix: Arc<str>,
    probe: String,
    ear: Arc<Ear>,
    hear: &Hear,
) -> impl Fn(PushInfo) -> Result<(), RedisError> + Send + Sync + 'static {
    let hear = Arc::clone(hear);
    move |push: PushInfo| {
        match push.kind {
            PushKind::Disconnection => {
                ear.over.send_replace(true);
            }
            PushKind::Message => {
                ear.heard_now();
                let mut data = push.data.into_iter();
                if let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) = (data.next(), data.next())
                    && let Some(name) = str::from_utf8(&channel).ok().and_then(|channel| channel.strip_prefix(&*prefix))
                    && name != probe
                {
                    hear(name, message);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Waits for the end of a session. Returns why it ended.
async fn last(session: &Session, probe: &str) -> &'static str {
    let mut over = session.ear.over.subscribe();
    loop {
        let silence = session.ear.silence();
        tokio::select! {
            _ = over.wait_for(|over| *over) => return "connection lost or given up",
            () = sleep(SILENCE.saturating_sub(silence)) => {}
        }
        if session.ear.silence() >= SILENCE && !proved(session, probe).await {
            return "deaf: its own message did not come back";
        }
    }
}

/// Whether a message that the session publishes comes back to it.
async fn proved(session: &Session, probe: &str) -> bool {
    let before = session.ear.heard.load(Ordering::Relaxed);
    let mut connection = session.connection.clone();
    let proof = async {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(format!("{}{probe}", session.prefix)).arg("").exec_async(&mut connection).await?;
        while session.ear.heard.load(Ordering::Relaxed) == before {
            sleep(Duration::from_millis(5)).await; // it comes right behind the answer, or never
        }
        Ok::<(), RedisError>(())
    };
    matches!(timeout(PROOF, proof).await, Ok(Ok(())))
}
