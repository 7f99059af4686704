//! Keeps one lane connected as long as the service holds it.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::args::Role;
use crate::breaker::{Breaker, BreakerGeneration};
use crate::compatibility::Needs;
use crate::doubling_pause::DoublingPause;
use crate::error::{Error, OUT_OF_MEMORY, has_code};
use crate::incarnation::Incarnation;
use crate::lane::{Connection, Lane, Names, Waits, write_probe};
use crate::lane_pool::LanePool;
use crate::metrics::Metrics;
use crate::permissions::{MissingPermissions, PermissionCheck};
use crate::unusable::{Unusable, is_denied};

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
    /// Not connected, for this reason; the keeper retries.
    Down(Arc<str>),
    /// The server cannot be used; the keeper retries, because an operator may cure it.
    Unusable(Unusable),
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

    /// Waits for the end of the first connection attempt.
    pub(crate) async fn first_attempt(&self) {
        let mut state = self.state.clone();
        let _ = state.wait_for(|now| !matches!(now, LaneState::Connecting)).await;
    }

    /// Returns the reason, other than an outage, for which the server is not used.
    pub(crate) fn unusable(&self) -> Option<Unusable> {
        match &*self.state.borrow() {
            LaneState::Unusable(unusable) => Some(unusable.clone()),
            _ => None,
        }
    }

    /// Returns a remark on the connection for people: the reason of an outage, or a feature that is
    /// off. Empty if there is none.
    pub(crate) fn remark(&self) -> Arc<str> {
        match &*self.state.borrow() {
            LaneState::Down(reason) => Arc::clone(reason),
            LaneState::Up(connection) => connection.restriction(),
            LaneState::Connecting | LaneState::Unusable(_) => Arc::default(),
        }
    }
}

/// Opens and reopens the lanes of one service.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) pool: Arc<LanePool>,
    pub(crate) names: Names,
    pub(crate) needs: Needs,
    pub(crate) permissions: PermissionCheck,
    pub(crate) waits: Waits,
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
    Unusable(Unusable),
}

/// Result of a health check.
struct HealthReport {
    /// The output of INFO.
    info: String,
    missing: MissingPermissions,
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
        let mut reported = None; // each reason once per outage, not per attempt
        loop {
            self.closings.mark_unchanged();
            let connected = self.connect().await;
            self.breaker.probed(connected.is_ok());
            match connected {
                Ok(lane) => {
                    tracing::info!(lane = number, incarnation = %lane.incarnation(), "redis connected");
                    pause.reset();
                    reported = None;
                    self.metrics.connected(lane.incarnation());
                    let lane = Arc::new(lane);
                    slot.send_replace(LaneState::Up(Arc::clone(&lane)));
                    let reason = tokio::select! {
                        () = lane.broken() => "connection lost or unusable".to_owned(),
                        reason = self.watch_health(&lane) => reason,
                    };
                    lane.abandon();
                    self.metrics.disconnected();
                    tracing::warn!(lane = number, reason, "redis connection abandoned");
                    slot.send_replace(LaneState::Down(reason.into()));
                }
                Err(failure) => {
                    let state = match failure {
                        ConnectFailure::Away(reason) => LaneState::Down(reason.into()),
                        ConnectFailure::Unusable(unusable) => LaneState::Unusable(unusable),
                    };
                    report(number, &state, &mut reported);
                    slot.send_replace(state);
                    pause.wait().await;
                }
            }
        }
    }

    /// Connects, and checks the server and the permissions before the first command.
    async fn connect(&self) -> Result<Connection, ConnectFailure> {
        let attempt = async {
            let mut connection = self.pool.open().await.map_err(|error| self.classify(&error))?;
            let report = self.health_check(&mut connection).await.map_err(|error| self.classify(&error))?;
            if !report.info.is_empty() {
                self.needs.check(&report.info).map_err(ConnectFailure::Unusable)?;
            }
            if !report.missing.required.is_empty() {
                let unusable = Unusable::missing_permissions(&self.pool.user(), &report.missing.required);
                return Err(ConnectFailure::Unusable(unusable));
            }
            let incarnation = Incarnation::from_info(&report.info).map_err(ConnectFailure::Away)?;
            let watched = (Arc::clone(&self.breaker), Arc::clone(&self.metrics));
            let (names, waits) = (self.names.clone(), self.waits.clone());
            let lane = Connection::new(connection, names, incarnation, self.needs.role, waits, watched);
            lane.restrict(&self.permissions.describe(&self.pool.user(), &report.missing));
            Ok(lane)
        };
        let timed_out = || Err(ConnectFailure::Away("no reply while connecting".to_owned()));
        timeout(self.limit, attempt).await.unwrap_or_else(|_| timed_out())
    }

    fn classify(&self, error: &RedisError) -> ConnectFailure {
        let unusable = Unusable::from_connecting(error, &self.pool.user());
        unusable.map_or_else(|| ConnectFailure::Away(error.to_string()), ConnectFailure::Unusable)
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
            let health = self.health_check(&mut lane.handle()).await;
            self.breaker.probed(health.is_ok());
            match health {
                Ok(report) if !report.missing.required.is_empty() => {
                    return Unusable::missing_permissions(&self.pool.user(), &report.missing.required).to_string();
                }
                Ok(report) if Incarnation::from_info(&report.info).is_ok_and(|now| now == *lane.incarnation()) => {
                    if let Err(unusable) = self.needs.check(&report.info) {
                        return unusable.to_string();
                    }
                    lane.restrict(&self.permissions.describe(&self.pool.user(), &report.missing));
                    unanswered = 0;
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

    /// Reads INFO, verifies with a write that the server accepts writes, and checks the
    /// permissions. One round trip.
    ///
    /// A server that answers reads but refuses writes (out of memory, failed snapshot, replica)
    /// would serve data that cannot be corrected, so it counts as unavailable. For state, a server
    /// out of memory is accepted: scripts that free memory must go on.
    async fn health_check(&self, connection: &mut MultiplexedConnection) -> Result<HealthReport, RedisError> {
        let (mut reading, mut writing) = (connection.clone(), connection.clone());
        let (mut info, write) = (redis::cmd("INFO"), write_probe(&self.names.keys));
        info.arg("server").arg("replication").arg("memory");
        let probes = async {
            Ok::<_, RedisError>(tokio::join!(
                info.query_async::<String>(&mut reading),
                write.query_async::<()>(&mut writing),
                self.permissions.missing(connection),
            ))
        };
        let (info, written, missing) = self.waits.transfer.reply(self.waits.limit, 0, probes).await?;
        if let Ok(info) = &info
            && self.needs.check(info).is_err()
        {
            // The write may have failed for the same reason, which the caller finds in INFO.
            return Ok(HealthReport { info: info.clone(), missing: MissingPermissions::default() });
        }
        let mut missing = missing?;
        match written {
            Err(error) if self.needs.role == Role::State && has_code(&error, OUT_OF_MEMORY) => {}
            Err(error) if is_denied(&error) && !missing.required.is_empty() => {}
            written => written?,
        }
        match info {
            Ok(info) => Ok(HealthReport { info, missing }),
            Err(error) if is_denied(&error) => {
                if missing.required.is_empty() {
                    missing.required.push("+info".to_owned());
                }
                Ok(HealthReport { info: String::new(), missing })
            }
            Err(error) => Err(error),
        }
    }
}

/// Logs the state of a lane without connection, unless the same was reported before.
fn report(lane: u16, state: &LaneState, reported: &mut Option<String>) {
    let reason = match state {
        LaneState::Unusable(unusable) => unusable.to_string(),
        LaneState::Down(_) => String::new(), // one line per outage, whatever each attempt meets
        LaneState::Connecting | LaneState::Up(_) => return,
    };
    if reported.as_ref() == Some(&reason) {
        return;
    }
    match state {
        LaneState::Down(reason) => tracing::warn!(lane, reason = &**reason, "redis is unavailable"),
        LaneState::Unusable(unusable) => {
            let (finding, cure) = (unusable.finding(), unusable.cure());
            tracing::warn!(lane, finding, cure, "redis cannot be used");
        }
        LaneState::Connecting | LaneState::Up(_) => {}
    }
    *reported = Some(reason);
}
