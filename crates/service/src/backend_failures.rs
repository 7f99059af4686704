//! Replies to calls that failed because of Postgres or Redis, the same in every service.

use std::time::Duration;

use tidings_postgres::Fault;
use tidings_proto::lock::ErrorReason; // the contract with the reasons of both stores
use tidings_status::Reply;
use tonic::Code;

/// Retry delay while Postgres or Redis is unavailable: a restart takes seconds, and callers back
/// off in addition.
const AWAY: Duration = Duration::from_millis(500);
/// Retry delay while Postgres is out of space: an operator has to act.
const FULL: Duration = Duration::from_secs(5);
/// Retry delay while all connections are busy.
const BUSY: Duration = Duration::from_millis(100);

/// Builds the reply to a call that failed in Postgres: STORE_AWAY, OVERLOADED or INTERNAL in
/// `domain`.
pub fn store_failed(domain: &'static str, fault: &Fault) -> Reply {
    let away = |message| Reply::new(Code::Unavailable, domain, ErrorReason::StoreAway.text(), message);
    match fault {
        Fault::Away(_) => away("the store is unavailable").retry_after(AWAY),
        Fault::Refused(_) => away("the store refuses this service").retry_after(AWAY),
        Fault::Ambiguous(_) => {
            away("connection to the store lost; the transaction may have committed").retry_after(AWAY)
        }
        Fault::Full(_) => away("the store is out of disk space or memory").retry_after(FULL),
        Fault::Exhausted | Fault::Retryable(_) => {
            Reply::new(Code::ResourceExhausted, domain, ErrorReason::Overloaded.text(), "the store is busy")
                .quota("postgres connections")
                .retry_after(BUSY)
        }
        Fault::Unique(_) | Fault::Other(_) => internal(domain),
    }
    .logged(fault)
}

/// Builds the reply to a call that failed in a Redis that holds state: STATE_AWAY or INTERNAL in
/// `domain`.
pub fn state_failed(domain: &'static str, error: &tidings_redis::Error) -> Reply {
    let away =
        |message| Reply::new(Code::Unavailable, domain, ErrorReason::StateAway.text(), message).retry_after(AWAY);
    match error {
        tidings_redis::Error::Away | tidings_redis::Error::Unanswered(_) => away("redis does not answer"),
        tidings_redis::Error::Unwritable(_) => away("redis refuses writes"),
        tidings_redis::Error::Denied(_) => away("redis denies a command to this service"),
        tidings_redis::Error::Refused(_) => internal(domain),
    }
    .logged(error)
}

fn internal(domain: &'static str) -> Reply {
    Reply::new(Code::Internal, domain, ErrorReason::Internal.text(), "internal error")
}

#[cfg(test)]
mod tests {
    use tidings_proto::{broadcast, history, lock, user};

    #[test]
    fn every_contract_has_the_reasons_of_its_stores() {
        let (user, history) = (user::ErrorReason::StoreAway.text(), history::ErrorReason::StoreAway.text());
        assert_eq!([user, history], [lock::ErrorReason::StoreAway.text(); 2]);
        assert_eq!(broadcast::ErrorReason::StateAway.text(), lock::ErrorReason::StateAway.text());
    }
}
