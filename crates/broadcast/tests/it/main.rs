//! The service in process, over real sockets and a real Redis.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod away;
mod channels;
mod checker;
mod cost;
mod faults;
mod history;
mod lost;
mod malformed;
mod publishing;
mod schedules;
mod starts;
mod streams;
#[path = "../support/mod.rs"]
mod support;
