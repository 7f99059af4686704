//! A gRPC server that behaves: what every Tidings service stands on.
//!
//! A service gives its generated tonic services and its descriptor set, and gets an HTTP/2 server with bounded
//! connections and streams, health, reflection, request ids, and a shutdown that always ends:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tidings_server::{Args, Server, signal};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:7401").await?;
//! let drained = Server::new(&Args::default())
//!     // .add(UserServiceServer::new(users)).reflect(FILE_DESCRIPTOR_SET)
//!     .serve(listener, signal::shutdown()?)
//!     .await?;
//! println!("{} connections had to be cut", drained.cut);
//! # Ok(())
//! # }
//! ```
//!
//! The way of a call: `accept` (bounded, backs off) -> `connection` (TLS and first bytes in time, HTTP/2 limits) ->
//! `stack` (all that every call passes, on one page) -> the routes of the added services.
//!
//! Invariants: no socket, stream or handler can keep [`Server::serve`] from returning later than its drain time plus a
//! second; every task it starts has ended by then or has been told to; every call has a request id, which its log
//! lines, its trailers and its error details carry.

mod accept;
mod admin;
mod args;
pub mod auth;
mod codes;
mod connection;
mod database;
mod ending;
pub mod health;
mod live;
mod metrics;
pub mod page_token;
pub mod probe;
mod process;
mod rare;
mod reason;
mod refusal;
mod repeat;
mod routes;
mod run;
pub mod security;
mod sending;
mod server;
mod service;
pub mod signal;
mod stack;
pub mod telemetry;
pub mod tls;
mod usage;

pub use args::{Args, bytes, duration, duration_or_zero};
pub use database::Database;
pub use ending::Ending;
pub use health::Health;
pub use reason::{Reason, domain};
pub use refusal::{state_failed, store_failed};
pub use repeat::{repeat, repeat_on};
pub use run::run;
pub use server::{Drained, Error, Server};
pub use service::{ServeError, Tasks, listen, open_redis};
pub use stack::{Deadline, RequestId};
pub use usage::parse;

/// The largest message that a service sends: what clients accept unless they are told otherwise. Services end their answers
/// below it; one that does not is told RESOURCE_EXHAUSTED instead of a client that can not say whose fault it is.
pub const ANSWER_MAX: usize = 4 << 20;
