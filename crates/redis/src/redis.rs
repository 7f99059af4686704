//! The lanes of one service to one Redis.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, RedisError,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::{Args, Role};
use crate::breaker::{Breaker, BreakerGeneration, BreakerState};
use crate::compatibility::{Incompatible, Needs};
use crate::error::Error;
use crate::keeper::{self, Keeper, LaneSlot};
use crate::lane::Lane;
use crate::metrics::Metrics;

/// Commands queued in one lane; further callers wait for room.
const PIPELINE_BUFFER: usize = 1024;
/// Idle time after which the kernel sends keepalive probes.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Time for which sent bytes may stay unacknowledged before the kernel closes the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The lanes of one service to one Redis. Cheap to clone; the connections end with the last clone.
#[derive(Clone, Debug)]
pub struct Redis {
    lanes: Arc<Lanes>,
}

#[derive(Debug)]
struct Lanes {
    slots: Vec<LaneSlot>,
    next: AtomicUsize,
    patience: Duration,
    breaker: Arc<Breaker>,
    metrics: Arc<Metrics>,
    keepers: Vec<JoinHandle<()>>,
}

impl Redis {
    /// Starts to connect in the background, and keeps reconnecting. An unavailable Redis never
    /// fails the service.
    ///
    /// `service` follows the prefix in every key.
    ///
    /// # Errors
    /// The driver's error if it does not accept the URL.
    pub fn open(args: &Args, service: &str, role: Role) -> Result<Self, RedisError> {
        let (info, config) = connection(args, role)?;
        let (closed, closings) = watch::channel(());
        let config = config.set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                closed.send_replace(());
            }
            Ok::<(), RedisError>(())
        });
        let pool = keeper::pool(info, config, usize::from(args.redis_lanes))?;
        let channels: Arc<str> = format!("{}:{service}:", args.redis_prefix).into();
        let metrics = Metrics::new();
        let breaker = Arc::new(Breaker::new(Arc::clone(&metrics)));
        let keeper = Keeper {
            pool,
            channels,
            needs: Needs::new(args, role),
            limit: *args.redis_connect_timeout,
            closings,
            breaker: Arc::clone(&breaker),
            metrics: Arc::clone(&metrics),
        };
        let (slots, keepers) = (0..args.redis_lanes).map(|number| keeper.clone().keep(number)).unzip();
        let patience = timeout(args, role);
        Ok(Self { lanes: Arc::new(Lanes { slots, next: AtomicUsize::new(0), patience, breaker, metrics, keepers }) })
    }

    /// Waits for the first connection attempt. An unavailable server is no error: it is used once
    /// it is back.
    ///
    /// # Errors
    /// [`Incompatible`] if the server is too old, or may evict keys that it must keep.
    pub async fn check_compatibility(&self) -> Result<(), Incompatible> {
        match self.lanes.slots.first() {
            Some(slot) => slot.check_compatibility().await,
            None => Ok(()),
        }
    }

    /// Returns a lane for reading, round-robin.
    ///
    /// # Errors
    /// [`Error::Away`] if the lane does not connect within the reply timeout; immediately while
    /// the breaker is open.
    pub async fn reader(&self) -> Result<Lane, Error> {
        let turn = self.lanes.next.fetch_add(1, Ordering::Relaxed);
        self.lane(turn).await
    }

    /// Returns the lane for writes to `name`, always the same, so writes of one instance arrive in
    /// order.
    ///
    /// # Errors
    /// Like [`Redis::reader`].
    pub async fn writer(&self, name: &str) -> Result<Lane, Error> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let index = hasher.finish() % self.lanes.slots.len() as u64;
        self.lane(usize::try_from(index).unwrap_or_default()).await
    }

    /// Probes whether Redis accepts writes. Bypasses the breaker, and reports the result to it.
    pub async fn ping(&self) -> bool {
        let Lanes { next, patience, breaker, .. } = &*self.lanes;
        let slot = self.slot(next.fetch_add(1, Ordering::Relaxed));
        let answer = match slot.lane(*patience, BreakerGeneration::PROBE).await {
            Ok(mut lane) => lane.health_check().await,
            Err(error) => Err(error),
        };
        breaker.probed(!matches!(answer, Err(Error::Away | Error::Unanswered(_))));
        answer.is_ok()
    }

    /// Returns the state of the circuit breaker.
    pub fn breaker(&self) -> BreakerState {
        self.lanes.breaker.state()
    }

    async fn lane(&self, turn: usize) -> Result<Lane, Error> {
        let Lanes { patience, breaker, metrics, .. } = &*self.lanes;
        let generation = breaker.admit().ok_or_else(|| metrics.shed())?;
        self.slot(turn).lane(*patience, generation).await.inspect_err(|_| breaker.failed(generation, true))
    }

    fn slot(&self, turn: usize) -> &LaneSlot {
        &self.lanes.slots[turn % self.lanes.slots.len()]
    }
}

/// Returns the settings of every connection of a service.
pub(crate) fn connection(args: &Args, role: Role) -> Result<(ConnectionInfo, AsyncConnectionConfig), RedisError> {
    let info = args.redis_url.info().clone().into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
        .set_user_timeout(USER_TIMEOUT);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(*args.redis_connect_timeout))
        .set_response_timeout(Some(timeout(args, role)))
        .set_pipeline_buffer_size(PIPELINE_BUFFER);
    Ok((info.set_redis_settings(settings).set_tcp_settings(tcp), config))
}

/// Returns the longest wait for a reply.
pub(crate) fn timeout(args: &Args, role: Role) -> Duration {
    args.redis_timeout.map_or(role.timeout(), Into::into)
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            keeper.abort();
        }
    }
}
