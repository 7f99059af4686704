//! The service in process, over real sockets, a real Postgres and a real Redis.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod away;
mod cost;
mod holds;
mod loss;
mod model;
mod news;
mod queue;
mod refusals;
mod repeats;
mod storm;
#[path = "../support/mod.rs"]
mod support;
mod time;
