//! The server over real sockets: health, reflection, request ids, limits, shutdown, TLS, tokens.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod admin;
mod age;
mod auth;
mod deadline;
mod health;
mod limits;
mod log;
mod panics;
mod reflection;
mod request_id;
mod shutdown;
mod sizes;
mod support;
mod tls;
