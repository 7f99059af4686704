//! The service in process, over real sockets, a real Postgres and a real Redis.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod batches;
mod cancelled;
mod commands;
mod costs;
mod creations;
mod crowds;
mod freshness;
mod handles;
mod limits;
mod lists;
mod malformed;
mod near;
mod postgres_away;
mod profiles;
mod redis_away;
mod refresh;
mod scripts;
mod starting;
mod support;
mod updates;
mod watched_news;
mod watcher;
mod watches;
mod watches_cost;
