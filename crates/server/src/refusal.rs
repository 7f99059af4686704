//! How it is answered, the same in every service, that a store can not do its part.

use std::time::Duration;

use tidings_postgres::Fault;
use tidings_status::Reply;
use tonic::Code;

/// When to try again while Postgres or Redis is away: it may be back after a restart of some seconds, callers back off
/// besides.
const AWAY: Duration = Duration::from_millis(500);
/// When to try again while Postgres has no room: somebody has to make some.
const FULL: Duration = Duration::from_secs(5);
/// When to try again while all connections are busy.
const BUSY: Duration = Duration::from_millis(100);

/// The answer to work that Postgres did not do: STORE_AWAY, OVERLOADED or INTERNAL in `domain`.
pub fn store_failed(domain: &'static str, fault: &Fault) -> Reply {
    match fault {
        Fault::Away(_) => {
            Reply::new(Code::Unavailable, domain, "STORE_AWAY", "the store does not answer").retry_after(AWAY)
        }
        Fault::Ambiguous(_) => {
            let message = "the store fell silent, what was asked of it may have been done";
            Reply::new(Code::Unavailable, domain, "STORE_AWAY", message).retry_after(AWAY)
        }
        Fault::Full(_) => {
            Reply::new(Code::Unavailable, domain, "STORE_AWAY", "the store has no room").retry_after(FULL)
        }
        Fault::Exhausted | Fault::Retryable(_) => {
            Reply::new(Code::ResourceExhausted, domain, "OVERLOADED", "the store is busy")
                .quota("postgres connections")
                .retry_after(BUSY)
        }
        Fault::Unique(_) | Fault::Other(_) => Reply::new(Code::Internal, domain, "INTERNAL", "internal error"),
    }
    .logged(fault)
}

/// The answer to work that a Redis which keeps state did not do: STATE_AWAY or INTERNAL in `domain`.
pub fn state_failed(domain: &'static str, error: &tidings_redis::Error) -> Reply {
    match error {
        tidings_redis::Error::Away | tidings_redis::Error::Unanswered(_) => {
            Reply::new(Code::Unavailable, domain, "STATE_AWAY", "redis does not answer").retry_after(AWAY)
        }
        tidings_redis::Error::Unwritable(_) => {
            Reply::new(Code::Unavailable, domain, "STATE_AWAY", "redis takes no writes").retry_after(AWAY)
        }
        tidings_redis::Error::Refused(_) => Reply::new(Code::Internal, domain, "INTERNAL", "internal error"),
    }
    .logged(error)
}
