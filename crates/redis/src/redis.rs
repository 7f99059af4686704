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

use crate::breaker::{Breaker, Term};
use crate::fit::Needs;
use crate::keeper::{self, Keeper, Slot};
use crate::numbers::Numbers;
use crate::{Args, BreakerState, Error, Lane, Role, Unfit};

/// Commands that may wait in one lane to be written; more wait in their callers.
const PIPELINE_BUFFER: usize = 1024;
/// Silence after which the kernel asks whether the other side still lives.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The lanes of one service to one Redis. Cheap to clone; the connections end with the last clone.
#[derive(Clone, Debug)]
pub struct Redis {
    lanes: Arc<Lanes>,
}

#[derive(Debug)]
struct Lanes {
    slots: Vec<Slot>,
    next: AtomicUsize,
    patience: Duration,
    breaker: Arc<Breaker>,
    numbers: Arc<Numbers>,
    keepers: Vec<JoinHandle<()>>,
}

impl Redis {
    /// Begins to connect, and goes on for ever: a Redis that is away stops no service, now or later.
    ///
    /// `service` follows the prefix in every key.
    ///
    /// # Errors
    /// The driver's, if the URL can not be used at all.
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
        let numbers = Numbers::new();
        let breaker = Arc::new(Breaker::new(Arc::clone(&numbers)));
        let keeper = Keeper {
            pool,
            channels,
            needs: Needs::new(args, role),
            limit: *args.redis_connect_timeout,
            closings,
            breaker: Arc::clone(&breaker),
            numbers: Arc::clone(&numbers),
        };
        let (slots, keepers) = (0..args.redis_lanes).map(|number| keeper.clone().keep(number)).unzip();
        let patience = timeout(args, role);
        Ok(Self { lanes: Arc::new(Lanes { slots, next: AtomicUsize::new(0), patience, breaker, numbers, keepers }) })
    }

    /// Waits for the first attempt to connect. A server that is away then is no obstacle: it will be used when it is there.
    ///
    /// # Errors
    /// [`Unfit`] if there is one that must not be used: too old, or one that may evict what is nowhere else.
    pub async fn fit(&self) -> Result<(), Unfit> {
        match self.lanes.slots.first() {
            Some(slot) => slot.fit().await,
            None => Ok(()),
        }
    }

    /// A lane for reading: they take turns.
    ///
    /// # Errors
    /// [`Error::Away`] if it has no connection and gets none within the answer time-out; at once while the breaker is open.
    pub async fn reader(&self) -> Result<Lane, Error> {
        let turn = self.lanes.next.fetch_add(1, Ordering::Relaxed);
        self.lane(turn).await
    }

    /// The lane for writing under `name`, always the same: two writes of one instance arrive in order.
    ///
    /// # Errors
    /// Like [`Redis::reader`].
    pub async fn writer(&self, name: &str) -> Result<Lane, Error> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let place = hasher.finish() % self.lanes.slots.len() as u64;
        self.lane(usize::try_from(place).unwrap_or_default()).await
    }

    /// Asks Redis for a sign of life that is of use: whether it takes a write. Goes past the breaker, and tells it.
    pub async fn ping(&self) -> bool {
        let Lanes { next, patience, breaker, .. } = &*self.lanes;
        let slot = self.slot(next.fetch_add(1, Ordering::Relaxed));
        let answer = match slot.lane(*patience, Term::PROBE).await {
            Ok(mut lane) => lane.prove().await,
            Err(error) => Err(error),
        };
        breaker.probed(!matches!(answer, Err(Error::Away | Error::Unanswered(_))));
        answer.is_ok()
    }

    /// What the breaker does with the next call.
    pub fn breaker(&self) -> BreakerState {
        self.lanes.breaker.state()
    }

    async fn lane(&self, turn: usize) -> Result<Lane, Error> {
        let Lanes { patience, breaker, numbers, .. } = &*self.lanes;
        let term = breaker.admit().ok_or_else(|| numbers.shed())?;
        self.slot(turn).lane(*patience, term).await.inspect_err(|_| breaker.failed(term, true))
    }

    fn slot(&self, turn: usize) -> &Slot {
        &self.lanes.slots[turn % self.lanes.slots.len()]
    }
}

/// How every connection of a service is made.
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

/// How long an answer is waited for.
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
