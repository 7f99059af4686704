//! Outcomes on the wire: errors, and creations that may be retries.
//!
//! Every failure of a service is a gRPC status with `google.rpc` details: an
//! [`ErrorInfo`](tonic_types::ErrorInfo) with a reason from the contract's `ErrorReason`, and
//! further details that depend on the code. [`Reply`] encodes it, [`Failure`] decodes it, and
//! [`Fields`] validates requests and reports every malformed field at once. [`Created`] is the
//! result of a creation under an idempotency key.
//!
//! ```
//! use std::time::Duration;
//!
//! use tidings_status::{Failure, Fields, Invalid, Reply};
//! use tonic::{Code, Status};
//!
//! // A service validates a request, ...
//! fn validate(id: &str, age: i32) -> Result<(), Invalid> {
//!     let mut fields = Fields::new("user.tidings");
//!     fields.id("id", id);
//!     fields.within_range("age", &age, &(0..=150));
//!     fields.finish()
//! }
//! let invalid = Status::from(validate("no spaces", 200).unwrap_err());
//!
//! // ... and states the reason why it cannot serve it.
//! let unavailable =
//!     Reply::new(Code::Unavailable, "user.tidings", "STORE_AWAY", "Postgres does not answer")
//!         .retry_after(Duration::from_millis(250))
//!         .into_status();
//!
//! // A client decodes both.
//! let failure = Failure::from(&unavailable);
//! assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "STORE_AWAY"));
//! assert_eq!(failure.retry_after, Some(Duration::from_millis(250)));
//!
//! let failure = Failure::from(&invalid);
//! let fields: Vec<_> = failure.violations.iter().map(|field| field.field.as_str()).collect();
//! assert_eq!((failure.reason.as_str(), fields), ("INVALID_FIELDS", vec!["id", "age"]));
//! ```

mod created;
mod failure;
mod fields;
mod reply;

pub use created::Created;
pub use failure::{Failure, code_name};
pub use fields::{Fields, Invalid, Violation};
pub use reply::Reply;
