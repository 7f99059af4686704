//! Keeps one lane connected as long as the service holds it.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::{Manager, Pool};
use redis::aio::ConnectionLike;
use redis::{AsyncConnectionConfig, ConnectionInfo, RedisError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::args::Role;
use crate::breaker::{Breaker, BreakerGeneration};
use crate::compatibility::{Incompatible, Needs};
use crate::doubling_pause::DoublingPause;
use crate::error::{Error, OUT_OF_MEMORY, has_code};
use crate::incarnation::Incarnation;
use crate::lane::{Connection, Lane, write_probe};
use crate::metrics::Metrics;

/// Interval of the check that the server has the same incarnation and accepts writes.
const PROBE: Duration = Duration::from_millis(500);
/// Consecutive unanswered probes after which the connection is abandoned. It may be dead although
/// the server lives, and calls that would show this are not sent while the breaker is open.
const UNANSWERED_PROBES_MAX: u32 = 6;

/// One lane, connected or not.
#[derive(Debug)]
pub(crate) struct LaneSlot {
    state: watch::Receiver<LaneState>,
    metrics: Arc<Metrics>,
}

/// Connection state of a lane.
#[derive(Clone, Debug)]
enum LaneState {
    /// The first attempt has not ended.
    Connecting,
    /// Not connected; the keeper retries.
    Down,
    /// The server does not meet the requirements.
    Incompatible(Incompatible),
    /// Connected to a compatible server.
    Up(Arc<Connection>),
}

impl LaneState {
    fn usable(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::Up(live) if !live.is_broken() => Some(live),
            _ => None,
        }
    }
}

impl LaneSlot {
    /// Returns the lane for a call of this generation, if it is or becomes connected within
    /// `patience`.
    pub(crate) async fn lane(&self, patience: Duration, generation: BreakerGeneration) -> Result<Lane, Error> {
        if let Some(live) = self.state.borrow().usable() {
            return Ok(Lane::new(live, generation));
        }
        let mut state = self.state.clone();
        let lane = match timeout(patience, state.wait_for(|now| now.usable().is_some())).await {
            Ok(Ok(now)) => now.usable().map(|live| Lane::new(live, generation)),
            Ok(Err(_)) | Err(_) => None,
        };
        lane.ok_or_else(|| self.metrics.failed(Error::Away))
    }

    /// Waits for the first connection attempt; fails if the server does not meet the requirements.
    pub(crate) async fn check_compatibility(&self) -> Result<(), Incompatible> {
        let mut state = self.state.clone();
        match state.wait_for(|now| !matches!(now, LaneState::Connecting)).await.as_deref() {
            Ok(LaneState::Incompatible(incompatible)) => Err(incompatible.clone()),
            _ => Ok(()),
        }
    }
}

/// Creates the pool that opens the connections of `lanes` lanes.
pub(crate) fn pool(info: ConnectionInfo, config: AsyncConnectionConfig, lanes: usize) -> Result<Pool, RedisError> {
    let manager = Manager::new_with_config(info, config)?;
    let built = Pool::builder(manager).max_size(lanes).build();
    built.map_err(|_| RedisError::from((redis::ErrorKind::InvalidClientConfig, "no runtime for the pool")))
}

/// Opens and reopens the lanes of one service.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) pool: Pool,
    /// Prefix of every channel: `<prefix>:<service>:`.
    pub(crate) channels: Arc<str>,
    pub(crate) needs: Needs,
    /// Longest time to connect.
    pub(crate) limit: Duration,
    /// Changes when the server closed a connection, of this or another lane: the driver does not
    /// say which.
    pub(crate) closings: watch::Receiver<()>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Reason of a failed connection attempt.
enum ConnectFailure {
    Away(String),
    Incompatible(Incompatible),
}

impl Keeper {
    /// Starts the task that keeps a lane connected.
    pub(crate) fn keep(self, number: u16) -> (LaneSlot, JoinHandle<()>) {
        let (slot, state) = watch::channel(LaneState::Connecting);
        let metrics = Arc::clone(&self.metrics);
        (LaneSlot { state, metrics }, tokio::spawn(self.run(number, slot)))
    }

    async fn run(mut self, number: u16, slot: watch::Sender<LaneState>) {
        let mut pause = DoublingPause::reconnect();
        let mut reported = false;
        loop {
            self.closings.mark_unchanged();
            let connected = self.connect().await;
            self.breaker.probed(connected.is_ok());
            match connected {
                Ok(lane) => {
                    tracing::info!(lane = number, incarnation = %lane.incarnation(), "redis connected");
                    pause.reset();
                    reported = false;
                    self.metrics.connected(lane.incarnation());
                    let lane = Arc::new(lane);
                    slot.send_replace(LaneState::Up(Arc::clone(&lane)));
                    let reason = tokio::select! {
                        () = lane.broken() => "connection lost or unusable".to_owned(),
                        reason = self.watch_health(&lane) => reason,
                    };
                    lane.abandon();
                    slot.send_replace(LaneState::Down);
                    self.metrics.disconnected();
                    tracing::warn!(lane = number, reason, "redis connection abandoned");
                }
                Err(failure) => {
                    if !reported {
                        reported = true; // once per outage, not per attempt
                        match &failure {
                            ConnectFailure::Away(reason) => {
                                tracing::warn!(lane = number, reason, "redis is unavailable");
                            }
                            ConnectFailure::Incompatible(incompatible) => {
                                tracing::error!(lane = number, %incompatible, "incompatible redis server, not used");
                            }
                        }
                    }
                    slot.send_replace(match failure {
                        ConnectFailure::Away(_) => LaneState::Down,
                        ConnectFailure::Incompatible(incompatible) => LaneState::Incompatible(incompatible),
                    });
                    pause.wait().await;
                }
            }
        }
    }

    /// Connects, and reads the incarnation of the server before the first command.
    async fn connect(&self) -> Result<Connection, ConnectFailure> {
        let attempt = async {
            let mut pooled = self.pool.get().await.map_err(|error| ConnectFailure::Away(error.to_string()))?;
            let info = health_check(&mut *pooled, &self.channels, self.needs.role).await;
            let info = info.map_err(|error| ConnectFailure::Away(error.to_string()))?;
            self.needs.check(&info).map_err(ConnectFailure::Incompatible)?;
            let incarnation = Incarnation::from_info(&info).map_err(ConnectFailure::Away)?;
            let watched = (Arc::clone(&self.breaker), Arc::clone(&self.metrics));
            Ok(Connection::new(pooled, Arc::clone(&self.channels), incarnation, self.needs.role, watched))
        };
        let timed_out = || Err(ConnectFailure::Away("no reply while connecting".to_owned()));
        timeout(self.limit, attempt).await.unwrap_or_else(|_| timed_out())
    }

    /// Probes a lane until it must not be used any more; returns the reason.
    ///
    /// Reasons: another incarnation on the same connection, as after attaching or promoting a
    /// replica; writes are refused; the server may evict keys that it must keep; no reply for some
    /// seconds.
    ///
    /// A closed connection triggers a probe at once, so that a lane is reconnected before a call
    /// fails on it.
    async fn watch_health(&self, lane: &Connection) -> String {
        let mut closings = self.closings.clone();
        let mut unanswered = 0;
        loop {
            let _ = timeout(PROBE, closings.changed()).await;
            let health = health_check(&mut lane.handle(), &self.channels, self.needs.role).await;
            self.breaker.probed(health.is_ok());
            match health {
                Ok(info) if Incarnation::from_info(&info).is_ok_and(|now| now == *lane.incarnation()) => {
                    match self.needs.check(&info) {
                        Ok(()) => unanswered = 0,
                        Err(incompatible) => return incompatible.to_string(),
                    }
                }
                Ok(_) => return "another incarnation".to_owned(),
                Err(error) if error.is_timeout() => {
                    unanswered += 1;
                    if unanswered == UNANSWERED_PROBES_MAX {
                        return "no reply to probes".to_owned();
                    }
                }
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// Reads INFO, and verifies with a write that the server accepts writes.
///
/// A server that answers reads but refuses writes (out of memory, failed snapshot, replica) would
/// serve data that cannot be corrected, so it counts as unavailable. For state, a server out of
/// memory is accepted: scripts that free memory must go on.
async fn health_check(connection: &mut impl ConnectionLike, channels: &str, role: Role) -> Result<String, RedisError> {
    let mut info = redis::cmd("INFO");
    info.arg("server").arg("replication").arg("memory");
    let answer = redis::pipe()
        .add_command(info.clone())
        .add_command(write_probe(channels))
        .ignore()
        .query_async(connection)
        .await;
    match answer {
        Ok((text,)) => Ok(text),
        Err(error) if role == Role::State && has_code(&error, OUT_OF_MEMORY) => info.query_async(connection).await,
        Err(error) => Err(error),
    }
}
