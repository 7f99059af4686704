//! What became of a call that did not end with OK.

use std::error::Error;
use std::io;

use tidings_status::Failure;
use tonic::Status;

use crate::address::Address;

/// Why a call was not answered with OK.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody listens there.
    #[error("{address}: connection refused; is it running? try: tidings up")]
    NotRunning {
        /// Where the service should be.
        address: Address,
    },
    /// The connection could not be made, or was lost.
    #[error("{address}: {reason}")]
    Unreachable {
        /// Where the service should be.
        address: Address,
        /// The last words of whatever failed.
        reason: String,
    },
    /// The service answered.
    #[error("{0}")]
    Answered(Box<Failure>),
}

impl Refusal {
    /// Reads a status that came from `address`, or from the attempt to get there.
    pub fn new(status: &Status, address: &Address) -> Self {
        let mut cause = status.source();
        let Some(mut last) = cause else {
            return Self::Answered(Box::new(Failure::from(status)));
        };
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return Self::NotRunning { address: address.clone() };
            }
            last = error;
            cause = error.source();
        }
        let mut reason = last.to_string();
        // A server that refuses a certificate says so and closes; whether that is heard before the end is a matter of luck.
        if address.is_secure() && was_closed(last, &reason) {
            reason.push_str("; does the service accept your certificate?");
        }
        Self::Unreachable { address: address.clone(), reason }
    }
}

/// Whether a connection came to its end without a reason.
fn was_closed(error: &(dyn Error + 'static), text: &str) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ends = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    // The words are hyper's for a call whose connection ended before it was sent.
    text == "connection closed" || error.downcast_ref::<io::Error>().is_some_and(|error| ends.contains(&error.kind()))
}
