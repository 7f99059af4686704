//! Redis for every service: lanes, circuit breaker, scripts, pub/sub, tracking. Redis may lose its
//! data at any moment.
//!
//! A [`Lane`] is one multiplexed connection, shared by all callers: no checkout per command, one
//! round trip per call. Every lane knows the *incarnation* of its server, which is Redis'
//! `master_replid`. It changes with every restart, with or without data, with every promotion, and
//! when the first replica is attached. Every key of a cache begins with the incarnation, so a
//! restarted server is an empty cache even if it loaded an old snapshot. Services that keep state
//! compare the incarnation in their scripts instead.
//!
//! Every 500 ms the keeper of a lane checks that the incarnation is unchanged and that the server
//! accepts writes. If not, the lane is reconnected; also after a connection error, a refused write
//! (OOM, READONLY, MISCONF, NOREPLICAS; not OOM for state), 20 consecutive unanswered calls or 6
//! consecutive unanswered probes. Between failed attempts it pauses for 20 to 200 ms.
//!
//! A server that is no outage but cannot be used (wrong credentials, missing permissions, another
//! version or mode) is [`Unusable`]: calls fail immediately, and the finding is reported with its
//! cure. The keeper tries again until an operator has cured it.
//!
//! The wait for a reply grows with the bytes in flight, and is prolonged if this process did not
//! run in time. A circuit breaker before all lanes makes calls fail immediately while Redis does
//! not reply.
//!
//! The result of a write is a [`WriteOutcome`]: a write without a reply may have been applied.
//!
//! A [`Subscriber`] is the connection on which a service receives notifications of other instances.
//! A [`Tracker`] is the connection on which it receives invalidations of cached keys.
//!
//! `tests/it/example.rs` runs these lines:
//!
//! ```no_run
//! use tidings_redis::{Args, Redis, Role, Script, WriteOutcome, cmd};
//!
//! # async fn example(url: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let args = Args::new(url.parse()?);
//! let redis = Redis::open(&args, "orders", Role::Cache)?; // connects in the background
//!
//! // Never lowers the cached version, also if it runs twice or late.
//! let raise = Script::new("
//!     local version = math.max(ARGV[1], redis.call('GET', KEYS[1]) or 0)
//!     redis.call('SET', KEYS[1], version, 'PX', ARGV[2])
//!     return version
//! ");
//! let mut lane = redis.writer("42").await?;
//! let key = lane.key(format_args!("v:42")); // tidings:orders:INCARNATION:v:42
//! match lane.write::<i64>(raise.key(&key).arg(7).arg(60_000)).await {
//!     WriteOutcome::Done(version) => assert_eq!(version, 7),
//!     WriteOutcome::NotDone(error) => return Err(error.into()),
//!     WriteOutcome::Unknown(error) => return Err(error.into()), // perhaps applied: repeat it
//! }
//!
//! let version: Option<i64> = redis.reader().await?.send(cmd("GET").arg(&key)).await?;
//! assert_eq!(version, Some(7));
//! # Ok(())
//! # }
//! ```

mod args;
mod breaker;
mod compatibility;
mod credentials;
mod doubling_pause;
mod error;
mod incarnation;
mod keeper;
mod lane;
mod lane_pool;
mod metrics;
mod permissions;
mod redis;
mod script;
mod script_outcome;
mod source;
mod subscriber;
mod tracker;
mod transfer;
mod ttl;
mod unusable;
mod write_outcome;

pub use args::{Args, RedisUrl, Role};
pub use breaker::BreakerState;
pub use error::Error;
pub use incarnation::Incarnation;
pub use lane::Lane;
pub use permissions::Permissions;
pub use redis::Redis;
pub use script::{Call, Script};
pub use source::SourceIncarnation;
pub use subscriber::{Session, Subscriber, SubscriptionEvent};
pub use tracker::{Tracker, TrackingEvent};
pub use ttl::{jittered_ttl, millis};
pub use unusable::Unusable;
pub use write_outcome::WriteOutcome;

/// Failure to open a client: the driver does not accept the URL or its options.
pub use ::redis::RedisError as OpenError;
/// Commands and values of the driver, for the caches of the services.
pub use ::redis::{Cmd, FromRedisValue, ParsingError, Value, cmd};
