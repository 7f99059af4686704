//! Pools and migrations on a real Postgres: killed, stopped, busy, slow.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod away;
mod connecting;
mod credentials;
mod example;
mod limits;
mod metrics;
mod migrations;
mod ownership;
mod pgbouncer;
mod pooler;
mod session;
mod sharing;
mod support;
mod tls;
