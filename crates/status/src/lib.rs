//! How an error looks on the wire.
//!
//! Every failure of a service is a gRPC status with `google.rpc` details: an [`ErrorInfo`](tonic_types::ErrorInfo) whose
//! reason is a value of the contract's `ErrorReason`, and what the code asks for besides. [`Reply`] writes it, [`Failure`]
//! reads it, [`Fields`] checks requests and names every malformed field at once.

mod failure;
mod fields;
mod reply;

pub use failure::{Failure, code_name};
pub use fields::{Fields, Invalid, Violation};
pub use reply::Reply;
