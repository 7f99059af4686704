//! The failure of one attempt of a call.

use std::error::Error;
use std::io;

use tidings_status::Failure;
use tonic::Status;

use crate::address::Address;

/// Failure of one attempt of a call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AttemptFailure {
    /// No process listens at the address.
    #[error("{address}: connection refused; is it running? try: tidings up")]
    NotRunning {
        /// Address of the instance.
        address: Address,
    },
    /// The connection could not be made, or was lost.
    #[error("{address}: {reason}")]
    Unreachable {
        /// Address of the instance.
        address: Address,
        /// Innermost error message.
        reason: String,
    },
    /// The service answered with a status other than OK.
    #[error("{0}")]
    Answered(Box<Failure>),
}

impl AttemptFailure {
    /// Classifies a status that came from `address`, or from the attempt to reach it.
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
        // A server that rejects the certificate sends an alert and closes. The alert may be lost.
        if address.is_secure() && was_closed(last, &reason) {
            reason.push_str("; does the service accept your certificate?");
        }
        Self::Unreachable { address: address.clone(), reason }
    }
}

/// Returns true if a connection was closed without a reason.
fn was_closed(error: &(dyn Error + 'static), text: &str) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let ends = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    // hyper's message for a call whose connection closed before the call was sent.
    text == "connection closed" || error.downcast_ref::<io::Error>().is_some_and(|error| ends.contains(&error.kind()))
}
