//! Redis, which makes it fast and may forget anything at any moment: lanes, scripts and reigns, the same for every service.
//!
//! A [`Lane`] is one multiplexed connection, shared by all callers: no checkout per command, one round trip per call.
//! Every lane knows the *reign* of the server it talks to, and every key of a cache begins with it. A server that
//! restarted, with nothing, or with an old snapshot, is another reign: an empty cache, whatever it holds. Services that
//! keep state compare the reign in their scripts instead.
//!
//! A breaker before all lanes spares callers the wait for a Redis that does not answer. What is known of a write is
//! [`Written`], which is more than a result: one without an answer may have been done.
//!
//! A [`Subscriber`] is the one connection over which a service hears what others publish, a [`Tracker`] the one over which
//! it hears which keys of its cache have changed.

mod args;
mod breaker;
mod error;
mod fit;
mod keeper;
mod lane;
mod numbers;
mod redis;
mod script;
mod subscriber;
mod tracker;
mod written;

pub use args::{Args, RedisUrl, Role};
pub use breaker::BreakerState;
pub use error::Error;
pub use fit::Unfit;
pub use lane::Lane;
pub use redis::Redis;
pub use script::{Call, Script};
pub use subscriber::{Session, Subscriber};
pub use tracker::{Heard, Tracker};
pub use written::Written;

/// Why Redis can not be used at all: the URL or what it asks for makes no sense to the driver.
pub use ::redis::RedisError as OpenError;
/// The driver's commands and values, for the caches of the services.
pub use ::redis::{Cmd, FromRedisValue, Value, cmd};
