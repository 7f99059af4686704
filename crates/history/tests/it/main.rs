//! The service in process, over real sockets, a real Postgres and a real Redis.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests count to thousands"
)]

mod appends;
mod authored;
mod batches;
mod conversations;
mod cost;
mod hot;
mod limits;
mod migrations;
mod model;
mod numbers;
mod outbox;
mod pages;
mod postgres_away;
mod redis_away;
mod refusals;
mod relay;
mod repeats;
mod storm;
#[path = "../support/mod.rs"]
mod support;
mod tails;
