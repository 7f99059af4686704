//! The lanes of one service to one Redis.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::args::{Args, Role};
use crate::breaker::{Breaker, BreakerGeneration, BreakerState};
use crate::compatibility::Needs;
use crate::credentials::RedisCredentials;
use crate::error::Error;
use crate::keeper::{Keeper, LaneSlot};
use crate::lane::{Lane, Names, Waits};
use crate::lane_pool::LanePool;
use crate::metrics::Metrics;
use crate::permissions::{PermissionCheck, Permissions};
use crate::source::SourceIncarnation;
use crate::transfer::Transfer;
use crate::unusable::Unusable;

/// Commands queued in one lane; further callers wait for room.
const PIPELINE_BUFFER: usize = 1024;

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
    source: SourceIncarnation,
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
        Self::open_with(args, service, role, Permissions::default())
    }

    /// Like [`Redis::open`], and uses the server only if its user has these permissions.
    ///
    /// # Errors
    /// Like [`Redis::open`].
    pub fn open_with(args: &Args, service: &str, role: Role, permissions: Permissions) -> Result<Self, RedisError> {
        let (closed, closings) = watch::channel(());
        // A reply is awaited with a limit of our own, by its size.
        let config = config(args, role).set_response_timeout(None).set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                closed.send_replace(());
            }
            Ok::<(), RedisError>(())
        });
        let pool = LanePool::new(RedisCredentials::new(args)?, config, usize::from(args.redis_lanes));
        let names = names(args, service);
        let (patience, source) = (timeout(args, role), names.source.clone());
        let metrics = Metrics::new();
        let breaker = Arc::new(Breaker::new(Arc::clone(&metrics)));
        let keeper = Keeper {
            pool: Arc::new(pool),
            permissions: PermissionCheck::new(permissions, &names.keys, &names.channels),
            names,
            needs: Needs::new(args, role),
            waits: Waits { limit: patience, transfer: Transfer::default() },
            limit: *args.redis_connect_timeout,
            closings,
            breaker: Arc::clone(&breaker),
            metrics: Arc::clone(&metrics),
        };
        let (slots, keepers) = (0..args.redis_lanes).map(|number| keeper.clone().keep(number)).unzip();
        Ok(Self {
            lanes: Arc::new(Lanes { slots, next: AtomicUsize::new(0), patience, breaker, metrics, source, keepers }),
        })
    }

    /// Waits for the first connection attempt. An unavailable server is no error: it is used once
    /// it is back. Nor are missing permissions and wrong credentials, which an operator can correct
    /// at the server.
    ///
    /// # Errors
    /// [`Unusable`] if waiting cannot help: the server is too old, another product, a node of a
    /// cluster, or may evict keys that it must keep, or it has no such database.
    pub async fn check_compatibility(&self) -> Result<(), Unusable> {
        if let Some(slot) = self.lanes.slots.first() {
            slot.first_attempt().await;
        }
        self.unusable().filter(Unusable::is_permanent).map_or(Ok(()), Err)
    }

    /// Returns the reason, other than an outage, for which the server is not used; `None` if there
    /// is none.
    pub fn unusable(&self) -> Option<Unusable> {
        self.lanes.slots.iter().find_map(LaneSlot::unusable)
    }

    /// Describes the state of the connections for people: the reason for which the server is not
    /// used, or the state of the breaker, followed by the reason of an outage or a feature that is
    /// off.
    pub fn describe(&self) -> String {
        if let Some(unusable) = self.unusable() {
            return unusable.to_string();
        }
        let breaker = format!("breaker {}", self.breaker());
        let remark = self.lanes.slots.iter().map(LaneSlot::remark).find(|remark| !remark.is_empty());
        remark.map_or_else(|| breaker.clone(), |remark| format!("{breaker}; {remark}"))
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

    /// Returns the incarnation of the database that this cache copies, to be set by its service.
    pub fn source(&self) -> SourceIncarnation {
        self.lanes.source.clone()
    }

    /// Returns the state of the circuit breaker.
    pub fn breaker(&self) -> BreakerState {
        self.lanes.breaker.state()
    }

    async fn lane(&self, turn: usize) -> Result<Lane, Error> {
        let Lanes { patience, breaker, metrics, .. } = &*self.lanes;
        if self.slot(turn).unusable().is_some() {
            return Err(metrics.failed(Error::Away)); // no outage: there is nothing to wait for
        }
        let generation = breaker.admit().ok_or_else(|| metrics.shed())?;
        self.slot(turn).lane(*patience, generation).await.inspect_err(|_| breaker.failed(generation, true))
    }

    fn slot(&self, turn: usize) -> &LaneSlot {
        &self.lanes.slots[turn % self.lanes.slots.len()]
    }
}

/// Returns the prefixes of a service.
///
/// Pub/sub ignores database numbers, so the names of channels contain another number than 0. Two
/// installations with one prefix in two databases of one server then share nothing.
pub(crate) fn names(args: &Args, service: &str) -> Names {
    let keys = format!("{}:{service}:", args.redis_prefix);
    let channels = match args.redis_url.info().redis_settings().db() {
        0 => keys.clone(),
        db => format!("{keys}db{db}:"),
    };
    Names { keys: keys.into(), channels: channels.into(), source: SourceIncarnation::default() }
}

/// Returns the settings of every connection of a service.
pub(crate) fn config(args: &Args, role: Role) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(*args.redis_connect_timeout))
        .set_response_timeout(Some(timeout(args, role)))
        .set_pipeline_buffer_size(PIPELINE_BUFFER)
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
