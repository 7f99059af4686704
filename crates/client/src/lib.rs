//! What a Rust service uses to call the services of Tidings.
//!
//! [`Endpoints`] are the instances of one service. A [`Caller`] sends calls that are safe to repeat until one of the
//! instances has answered.

mod address;
mod attempt;
mod backoff;
mod budget;
mod caller;
mod endpoints;
#[cfg(test)]
mod fake;
mod lock;
mod refusal;

pub use address::{Address, Addresses, Malformed};
pub use attempt::within;
pub use budget::Budget;
pub use caller::{Caller, Error, Policy};
pub use endpoints::{Endpoint, Endpoints};
pub use lock::{AcquireOptions, Acquired, LockGuard, Lost, Moment};
pub use refusal::Refusal;
