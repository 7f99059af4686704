//! Tests of the server over real sockets: health, reflection, request ids, limits, shutdown, TLS,
//! tokens.

#![expect(clippy::unwrap_used, reason = "an error in a helper fails the test")]

mod admin;
mod auth;
mod connection_age;
mod deadline;
mod health;
mod limits;
mod log;
mod message_sizes;
mod panics;
mod protocol;
mod reflection;
mod request_id;
mod resets;
mod shutdown;
mod slow_readers;
mod support;
mod tls;
