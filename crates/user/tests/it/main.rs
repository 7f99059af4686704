//! Tests of the service in this process, over real sockets, a real Postgres and a real Redis.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod batches;
mod cancelled;
mod commands;
mod costs;
mod creations;
mod freshness;
mod handles;
mod limits;
mod lists;
mod local_cache;
mod lost_notifications;
mod malformed;
mod postgres_away;
mod profiles;
mod read_bulkhead;
mod redis_away;
mod refresh;
mod restored;
mod scripts;
mod starting;
mod support;
mod updates;
mod watcher;
mod watches;
mod watches_cost;
