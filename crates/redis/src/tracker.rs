//! The connection over which a cache of a cache hears which keys have changed: client tracking in broadcasting mode.
//!
//! Redis says that a key changed, was evicted or expired, and does not repeat it: what was said while nobody listened is
//! lost. So a connection is a term with a beginning and an end that everybody hears of, and whoever keeps what was
//! read from Redis keeps it only within a term. A connection that is dead and looks alive ends its term, too: twice a second
//! the server has to answer, and to be still the one it was.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::keeper::reign;
use crate::numbers::Tracking;
use crate::redis::connection;
use crate::{Args, Error, Role};

/// How often the server has to answer on this connection.
const PROBE: Duration = Duration::from_millis(500);
/// How long the answer may take.
const PROOF: Duration = Duration::from_secs(1);
/// The first pause after an attempt to connect failed; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// What is heard of the keys of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A term begins: from now on every change is told of the keys of this reign, in order, until the end of the term.
    Began(&'a str),
    /// This key has changed or is gone; its name without what all keys begin with.
    Changed(&'a str),
    /// All keys are gone.
    Flushed,
    /// The term is over: changes were missed, or will be.
    Ended,
}

/// The connection over which changes are heard; made anew for as long as this lives.
#[derive(Debug)]
pub struct Tracker {
    keeper: JoinHandle<()>,
}

impl Tracker {
    /// Begins to connect, and goes on for ever. `hear` is given what is heard of keys of the service whose names begin with
    /// `names`; it must not block.
    ///
    /// [`Heard::Began`] and [`Heard::Ended`] come in turn. The rest comes from another task: what it says between an end and
    /// a beginning means nothing.
    ///
    /// # Errors
    /// The driver's, if the URL can not be used at all.
    pub fn open(
        args: &Args,
        service: &str,
        names: &str,
        hear: impl Fn(Heard<'_>) + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let (info, config) = connection(args, Role::Cache)?;
        let tracked = Tracked {
            client: Client::open(info)?,
            config: config.set_response_timeout(Some(PROOF)),
            prefix: format!("{}:{service}:", args.redis_prefix).into(),
            names: names.into(),
            limit: *args.redis_connect_timeout,
            hear: Arc::new(hear),
            numbers: Tracking::new(),
        };
        Ok(Self { keeper: tokio::spawn(tracked.keep()) })
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// What is tracked, and for whom.
struct Tracked {
    client: Client,
    config: AsyncConnectionConfig,
    /// What every key begins with before the reign: `<prefix>:<service>:`.
    prefix: Box<str>,
    names: Box<str>,
    limit: Duration,
    hear: Arc<dyn Fn(Heard<'_>) + Send + Sync>,
    numbers: Tracking,
}

/// One connection.
struct Term {
    connection: MultiplexedConnection,
    reign: Box<str>,
    over: watch::Receiver<bool>,
}

impl Tracked {
    async fn keep(self) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.connect().await {
                Ok(mut term) => {
                    pause = PAUSE_MIN;
                    self.numbers.began();
                    (self.hear)(Heard::Began(&term.reign));
                    let why = term.last().await;
                    (self.hear)(Heard::Ended);
                    self.numbers.ended();
                    tracing::warn!(why, "redis tracking lost");
                }
                Err(error) => {
                    tracing::debug!(%error, "redis tracking is away");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Connects, and has every change told of from the answer on.
    async fn connect(&self) -> Result<Term, Error> {
        let attempt = async {
            // Whose keys they are is known only when there is a connection, and the listener is needed to make one.
            let (known, keys) = watch::channel(None);
            let (closed, over) = watch::channel(false);
            let config = self.config.clone().set_push_sender(listen(keys, closed, Arc::clone(&self.hear)));
            let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await.map_err(Error::from_redis)?;
            let reign = ask(&mut connection).await?;
            let keys: Arc<str> = format!("{}{reign}:", self.prefix).into();
            let mut track = redis::cmd("CLIENT");
            track.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(format!("{keys}{}", self.names));
            known.send_replace(Some(keys));
            track.exec_async(&mut connection).await.map_err(Error::from_redis)?;
            Ok(Term { connection, reign, over })
        };
        timeout(self.limit, attempt).await.unwrap_or(Err(Error::Away))
    }
}

impl Term {
    /// Waits for the end. Returns why it came.
    async fn last(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.over.wait_for(|over| *over) => return "connection lost",
                () = sleep(PROBE) => {}
            }
            match ask(&mut self.connection).await {
                Ok(reign) if reign == self.reign => {}
                Ok(_) => return "another reign",
                Err(_) => return "no answer",
            }
        }
    }
}

/// Asks whose reign it is.
async fn ask(connection: &mut impl ConnectionLike) -> Result<Box<str>, Error> {
    let info: String =
        redis::cmd("INFO").arg("replication").query_async(connection).await.map_err(Error::from_redis)?;
    reign(&info).map(Box::from).map_err(|_| Error::Away)
}

/// What is done with each push of the server.
fn listen(
    keys: watch::Receiver<Option<Arc<str>>>,
    closed: watch::Sender<bool>,
    hear: Arc<dyn Fn(Heard<'_>) + Send + Sync>,
) -> impl Fn(PushInfo) -> Result<(), RedisError> + Send + Sync + 'static {
    move |push: PushInfo| {
        match push.kind {
            PushKind::Disconnection => {
                closed.send_replace(true);
            }
            PushKind::Invalidate => {
                let Some(prefix) = keys.borrow().clone() else { return Ok(()) };
                for said in push.data {
                    match said {
                        Value::Array(changed) => changed
                            .iter()
                            .filter_map(|key| name(key, &prefix))
                            .for_each(|name| hear(Heard::Changed(name))),
                        _ => hear(Heard::Flushed),
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The name of a key, without what all keys begin with.
fn name<'a>(key: &'a Value, prefix: &str) -> Option<&'a str> {
    match key {
        Value::BulkString(key) => str::from_utf8(key).ok()?.strip_prefix(prefix),
        Value::SimpleString(key) => key.strip_prefix(prefix),
        _ => None,
    }
}

impl fmt::Debug for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("prefix", &self.prefix).field("names", &self.names).finish_non_exhaustive()
    }
}
