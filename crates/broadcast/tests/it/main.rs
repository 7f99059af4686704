//! Tests of the service in process, over real sockets and a real Redis.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod channels;
mod checker;
mod connections;
mod cost;
mod faults;
mod lost_notifications;
mod malformed;
mod publishing;
mod redis_unavailable;
mod retention;
mod schedules;
mod start_positions;
mod streams;
#[path = "../support/mod.rs"]
mod support;
