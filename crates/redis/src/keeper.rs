//! Keeps one lane connected, for as long as anybody may use it.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::{Manager, Pool};
use redis::aio::ConnectionLike;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::breaker::{Breaker, Term};
use crate::fit::{Needs, Unfit, field};
use crate::lane::{Live, OUT_OF_MEMORY, proof, says};
use crate::numbers::Numbers;
use crate::{Error, Lane, Role};

/// The first pause after an attempt to connect failed; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause: a Redis that is back is used again within so long.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How often a server is asked whether it is still the one it was, and still takes writes.
const PROBE: Duration = Duration::from_millis(500);
/// So many probes in a row without an answer, and the connection is given up: it may be dead though the server lives. The
/// calls that would show it are not sent while the breaker is open.
const UNANSWERED_PROBES_MAX: u32 = 6;

/// The place of one lane: connected or not.
#[derive(Debug)]
pub(crate) struct Slot {
    standing: watch::Receiver<Standing>,
    numbers: Arc<Numbers>,
}

/// Where a lane stands.
#[derive(Clone, Debug)]
enum Standing {
    /// Nobody has tried yet.
    Unknown,
    /// There is no connection.
    Away,
    /// There is a server that must not be used.
    Unfit(Unfit),
    /// It is connected.
    Up(Arc<Live>),
}

impl Standing {
    fn usable(&self) -> Option<&Arc<Live>> {
        match self {
            Self::Up(live) if !live.is_broken() => Some(live),
            _ => None,
        }
    }
}

impl Slot {
    /// The lane, for a call of this term, if it is connected or becomes so within `patience`.
    pub(crate) async fn lane(&self, patience: Duration, term: Term) -> Result<Lane, Error> {
        if let Some(live) = self.standing.borrow().usable() {
            return Ok(Lane::new(live, term));
        }
        let mut standing = self.standing.clone();
        let lane = match timeout(patience, standing.wait_for(|now| now.usable().is_some())).await {
            Ok(Ok(now)) => now.usable().map(|live| Lane::new(live, term)),
            Ok(Err(_)) | Err(_) => None,
        };
        lane.ok_or_else(|| self.numbers.failed(Error::Away))
    }

    /// Waits for the first attempt to connect, and tells if it found a server that must not be used.
    pub(crate) async fn fit(&self) -> Result<(), Unfit> {
        let mut standing = self.standing.clone();
        match standing.wait_for(|now| !matches!(now, Standing::Unknown)).await.as_deref() {
            Ok(Standing::Unfit(unfit)) => Err(unfit.clone()),
            _ => Ok(()),
        }
    }
}

/// The pool that makes the connections of `lanes` lanes.
pub(crate) fn pool(info: ConnectionInfo, config: AsyncConnectionConfig, lanes: usize) -> Result<Pool, RedisError> {
    let manager = Manager::new_with_config(info, config)?;
    let built = Pool::builder(manager).max_size(lanes).build();
    built.map_err(|_| RedisError::from((redis::ErrorKind::InvalidClientConfig, "no runtime for the pool")))
}

/// How the lanes of one service are made and kept.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) pool: Pool,
    /// What every channel begins with: `<prefix>:<service>:`.
    pub(crate) channels: Arc<str>,
    pub(crate) needs: Needs,
    /// How long a new connection may take.
    pub(crate) limit: Duration,
    /// Changes when a connection was closed from the other side, of this lane or of another: the driver does not say which.
    pub(crate) closings: watch::Receiver<()>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) numbers: Arc<Numbers>,
}

/// Why there is no connection.
enum Failure {
    Away(String),
    Unfit(Unfit),
}

impl Keeper {
    /// Starts to keep a lane.
    pub(crate) fn keep(self, number: u16) -> (Slot, JoinHandle<()>) {
        let (slot, standing) = watch::channel(Standing::Unknown);
        let numbers = Arc::clone(&self.numbers);
        (Slot { standing, numbers }, tokio::spawn(self.run(number, slot)))
    }

    async fn run(mut self, number: u16, slot: watch::Sender<Standing>) {
        let mut pause = PAUSE_MIN;
        let mut said = false;
        loop {
            self.closings.mark_unchanged();
            let connected = self.connect().await;
            self.breaker.probed(connected.is_ok());
            match connected {
                Ok(lane) => {
                    tracing::info!(lane = number, reign = %lane.reign(), "redis connected");
                    (pause, said) = (PAUSE_MIN, false);
                    self.numbers.connected(lane.reign());
                    let lane = Arc::new(lane);
                    slot.send_replace(Standing::Up(Arc::clone(&lane)));
                    let why = tokio::select! {
                        () = lane.broken() => "connection lost or of no use".to_owned(),
                        why = self.disproved(&lane) => why,
                    };
                    lane.give_up();
                    slot.send_replace(Standing::Away);
                    self.numbers.given_up();
                    tracing::warn!(lane = number, why, "redis given up");
                }
                Err(failure) => {
                    if !said {
                        said = true; // once, not as often as we try
                        match &failure {
                            Failure::Away(reason) => tracing::warn!(lane = number, reason, "redis is away"),
                            Failure::Unfit(unfit) => tracing::error!(lane = number, %unfit, "redis is not used"),
                        }
                    }
                    slot.send_replace(match failure {
                        Failure::Away(_) => Standing::Away,
                        Failure::Unfit(unfit) => Standing::Unfit(unfit),
                    });
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Connects, and learns before the first command whose reign it is.
    async fn connect(&self) -> Result<Live, Failure> {
        let attempt = async {
            let mut pooled = self.pool.get().await.map_err(|error| Failure::Away(error.to_string()))?;
            let info = prove(&mut *pooled, &self.channels, self.needs.role).await;
            let info = info.map_err(|error| Failure::Away(error.to_string()))?;
            self.needs.are_met(&info).map_err(Failure::Unfit)?;
            let reign = reign(&info).map_err(Failure::Away)?;
            let watched = (Arc::clone(&self.breaker), Arc::clone(&self.numbers));
            Ok(Live::new(pooled, Arc::clone(&self.channels), reign.into(), self.needs.role, watched))
        };
        let silent = || Err(Failure::Away("no answer while connecting".to_owned()));
        timeout(self.limit, attempt).await.unwrap_or_else(|_| silent())
    }

    /// Returns why a lane is not to be used any more, as soon as a probe shows it: another reign began while the connection
    /// stayed, as when a replica is attached or promoted; writes are refused; the server may evict now what it must not; or
    /// there were no answers for some seconds.
    ///
    /// It probes at once when a connection was closed, so that a lane that has lost its own is made anew before a call would
    /// be sent over it, and fail.
    async fn disproved(&self, lane: &Live) -> String {
        let mut closings = self.closings.clone();
        let mut unanswered = 0;
        loop {
            let _ = timeout(PROBE, closings.changed()).await;
            let proof = prove(&mut lane.connection(), &self.channels, self.needs.role).await;
            self.breaker.probed(proof.is_ok());
            match proof {
                Ok(info) if reign(&info).is_ok_and(|now| now == &**lane.reign()) => match self.needs.are_met(&info) {
                    Ok(()) => unanswered = 0,
                    Err(unfit) => return unfit.to_string(),
                },
                Ok(_) => return "another reign".to_owned(),
                Err(error) if error.is_timeout() => {
                    unanswered += 1;
                    if unanswered == UNANSWERED_PROBES_MAX {
                        return "no answers".to_owned();
                    }
                }
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// Asks a server what it is, and lets it prove that it takes writes.
///
/// One that answers reads and refuses writes (out of memory, a snapshot that failed, a replica) would serve what nobody
/// can correct: it counts as away. But what frees a state goes on where memory is short.
async fn prove(connection: &mut impl ConnectionLike, channels: &str, role: Role) -> Result<String, RedisError> {
    let mut ask = redis::cmd("INFO");
    ask.arg("server").arg("replication").arg("memory");
    let answer =
        redis::pipe().add_command(ask.clone()).add_command(proof(channels)).ignore().query_async(connection).await;
    match answer {
        Ok((info,)) => Ok(info),
        Err(error) if role == Role::State && says(&error, OUT_OF_MEMORY) => ask.query_async(connection).await,
        Err(error) => Err(error),
    }
}

/// What names a reign: it changes when a server restarts, with or without its data, and when it is promoted.
pub(crate) fn reign(info: &str) -> Result<&str, String> {
    let id = field(info, "master_replid").and_then(|id| id.get(..10));
    id.ok_or_else(|| "INFO names no master_replid".to_owned())
}
