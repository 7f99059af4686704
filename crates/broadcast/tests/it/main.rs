//! The service in process, over real sockets and a real Redis.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod publishing;
mod subscribing;
#[path = "../support/mod.rs"]
mod support;
