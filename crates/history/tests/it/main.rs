//! Integration tests: the service in this process, with real sockets, Postgres and Redis.

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
mod idempotency;
mod limits;
mod migrations;
mod model;
mod outbox;
mod pages;
mod postgres_away;
mod redis_away;
mod redis_losses;
mod refusals;
mod relay;
mod restored;
mod sequence_numbers;
#[path = "../support/mod.rs"]
mod support;
mod tails;
