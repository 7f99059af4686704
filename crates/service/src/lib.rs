//! The life of a service, from its command line to its exit code, the same for every service.
//!
//! A type with the settings of a service implements [`Service`]; [`main!`] makes it a binary, and
//! [`serve`] and [`migrate`] run it in another one. They set up log, metrics, runtime and signals.
//! The service itself calls [`listen`], [`Database`] and [`open_redis`] to validate the settings of
//! its server, bind its port and open its stores. [`Tasks`] then runs start-up step, background
//! tasks and server, until a signal or a failure ends them in order. [`probe`] reports the
//! dependencies as health entries meanwhile.
//!
//! Invariants:
//! - An unavailable store is waited for; an unsuitable one ends the service at once.
//! - A background task that panics ends the service, whose orchestrator restarts it.
//! - Every task has ended when [`Tasks::serve`] returns.

mod backend_failures;
mod binary;
mod database;
mod error;
pub mod probe;
mod repeat;
mod run;
pub mod signal;
mod start;
mod tasks;
mod usage;

pub use backend_failures::{state_failed, store_failed};
pub use binary::{Service, main, migrate, serve};
pub use database::Database;
pub use error::ServeError;
pub use repeat::{repeat, repeat_on};
pub use start::{listen, open_redis};
pub use tasks::Tasks;
pub use usage::parse;

#[doc(hidden)] // for `main!`
pub use mimalloc::MiMalloc;
