//! The gRPC server that every Tidings service runs on. It knows no database: `tidings-service` adds
//! the life of a service around it.
//!
//! A service adds its generated tonic services and its descriptor set. The result is an HTTP/2
//! server with bounded connections and streams, health, reflection, request ids, and a bounded
//! shutdown:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tidings_server::{Args, Server};
//! use tokio_util::sync::CancellationToken;
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:7401").await?;
//! let drained = Server::new(&Args::default())
//!     // .add(UserServiceServer::new(users)).reflect(FILE_DESCRIPTOR_SET)
//!     .serve(listener, CancellationToken::new())
//!     .await?;
//! println!("{} connections were cut", drained.cut);
//! # Ok(())
//! # }
//! ```
//!
//! A call passes `accept` (bounded, backs off), then `connection` (TLS and preface timeouts, HTTP/2
//! limits), then `stack` (request id, authentication, limits, deadline), then the routes of the
//! added services.
//!
//! Invariants:
//! - No socket, stream or handler delays the return of [`Server::serve`] by more than the drain
//!   time plus a second.
//! - Every task the server starts has ended by then, or has been cancelled.
//! - Every call has a request id, which its log lines, trailers and error details carry.

mod accept;
mod admin;
mod args;
pub mod auth;
mod codes;
mod connection;
mod connection_state;
mod drain_signal;
pub mod health;
mod liveness;
mod long_calls;
pub mod metrics;
pub mod page_token;
mod poll_when_woken;
mod preface;
mod process;
mod reason;
mod reloadable;
mod reset_budget;
mod routes;
pub mod security;
mod send_timeout;
mod server;
mod setting;
mod stack;
mod stream_clock;
pub mod telemetry;
pub mod tls;
mod uncancelled;

pub use args::Args;
pub use drain_signal::{DrainCause, DrainSignal};
pub use health::Health;
pub use long_calls::{ConnectionFull, LongCallSlot, LongCallSlots};
pub use reason::{Reason, domain};
pub use server::{Drained, Error, Server};
pub use setting::{InvalidSetting, bytes, duration, duration_or_zero};
pub use stack::{Deadline, RequestId, trace_parent};
pub use stream_clock::{StreamClock, StreamEnd, StreamGoodbye};
pub use uncancelled::{Aborted, UncancelledWork};

/// Maximum size of a response message in bytes: the default limit of gRPC clients.
///
/// Services keep their responses below it. A larger response becomes RESOURCE_EXHAUSTED with a
/// reason. Otherwise the client would refuse it, and report an error without naming the service
/// as its cause.
pub const RESPONSE_MAX: usize = 4 << 20;
