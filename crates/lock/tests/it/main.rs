//! Integration tests: the service in process, over real sockets, a real Postgres and a real Redis.

#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod clock;
mod connections;
mod cost;
mod data_loss;
mod holds;
mod model;
mod notifications;
mod outages;
mod queue;
mod retries;
mod storm;
#[path = "../support/mod.rs"]
mod support;
mod validation;
