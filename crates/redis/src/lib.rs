//! Redis, which makes it fast and may forget anything at any moment: lanes, scripts and reigns, the same for every service.
//!
//! A [`Lane`] is one multiplexed connection, shared by all callers: no checkout per command, one round trip per call.
//! Every lane knows the *reign* of the server it talks to, and every key begins with it. A server that restarted, with
//! nothing, or with an old snapshot, is another reign: an empty cache, whatever it holds.

mod args;
mod error;
mod keeper;
mod lane;
mod redis;

pub use args::{Args, RedisUrl};
pub use error::Error;
pub use lane::Lane;
pub use redis::Redis;

/// Why Redis can not be used at all: the URL or what it asks for makes no sense to the driver.
pub use ::redis::RedisError as OpenError;
/// A Lua script, sent by its hash and loaded when the server does not know it.
pub use ::redis::Script;
/// A call of a [`Script`] with its keys and arguments.
pub use ::redis::ScriptInvocation as Call;
/// The driver's commands and values, for the caches of the services.
pub use ::redis::{Cmd, FromRedisValue, Value, cmd};
