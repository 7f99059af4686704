//! Checks of AcquireLock, and its answer.

use std::time::Duration;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::lock as pb;
use tidings_proto::lock::acquire_lock_request::Mode;
use tidings_proto::lock::acquire_lock_response::{Granted, Held, Outcome, TimedOut};
use tidings_status::{Fields, Invalid};
use tokio::time::Instant;

use super::{DOMAIN, duration, holder};
use crate::model::{Acquired, LockName, RequestName, TTL_MAX, TTL_MIN, Wish};

/// The longest owner, in bytes.
const OWNER_MAX: usize = 128;
/// The longest wait: whoever wants to wait for longer asks again, so that a place in the queue is never that of a caller who
/// went away long ago unnoticed.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// How long before the deadline of a call its wait ends, so that the answer is there in time.
const ANSWER_TIME: Duration = Duration::from_millis(50);

/// Checks AcquireLock, which arrived at a time and has so long to be answered.
pub fn acquire(
    request: pb::AcquireLockRequest,
    default_ttl: Duration,
    arrived: Instant,
    deadline: Option<Duration>,
) -> Result<Wish, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &request.name);
    fields.require("mode", Mode::try_from(request.mode).is_ok(), "expected MODE_EXCLUSIVE or nothing");
    fields.require("owner", !request.owner.is_empty(), "expected 1 to 128 bytes");
    fields.text("owner", &request.owner, OWNER_MAX);
    let ttl = request.ttl.map_or(Some(default_ttl), length).filter(|ttl| (TTL_MIN..=TTL_MAX).contains(ttl));
    fields.require("ttl", ttl.is_some(), "expected 1s to 300s");
    let wait = request.wait.map_or(Some(Duration::ZERO), length).filter(|wait| *wait <= WAIT_MAX);
    fields.require("wait", wait.is_some(), "expected 0s to 60s");
    fields.optional_id("request_id", &request.request_id);
    fields.finish()?;

    let (ttl, wait) = (ttl.unwrap_or(default_ttl), wait.unwrap_or_default());
    let wait = deadline.map_or(wait, |deadline| wait.min(deadline.saturating_sub(ANSWER_TIME)));
    let waits = request.wait.and_then(length).is_some_and(|wait| !wait.is_zero());
    let fingerprint = fingerprint(&request, ttl);
    Ok(Wish {
        name: LockName::new(request.name),
        owner: request.owner,
        ttl,
        request: Some(request.request_id).filter(|id| !id.is_empty()).map(|id| RequestName { id, fingerprint }),
        arrived,
        until: waits.then(|| arrived + wait),
    })
}

/// A length of time in whole milliseconds, as scripts count it; `None` if it is negative or none at all.
fn length(duration: prost_types::Duration) -> Option<Duration> {
    let exact = Duration::try_from(duration).ok()?;
    Some(Duration::from_millis(u64::try_from(exact.as_millis()).ok()?))
}

/// What two requests have in common of which one is the repeat of the other.
fn fingerprint(request: &pb::AcquireLockRequest, ttl: Duration) -> [u8; 16] {
    let same = pb::AcquireLockRequest {
        name: request.name.clone(),
        mode: Mode::Exclusive.into(),
        owner: request.owner.clone(),
        ttl: duration(ttl),
        wait: None,
        request_id: String::new(),
    };
    let hash: [u8; 32] = Sha256::digest(same.encode_to_vec()).into();
    let mut half = [0; 16]; // is enough against accidents, and there may be a million of them in Redis
    half.copy_from_slice(&hash[..16]);
    half
}

/// What became of an acquire.
pub fn acquired(acquired: Acquired) -> pb::AcquireLockResponse {
    let outcome = match acquired {
        Acquired::Granted(grant) => Outcome::Granted(Granted {
            token: grant.token.get(),
            lease_id: grant.lease_id.as_str().to_owned(),
            lease: duration(grant.lease),
            waited: duration(grant.waited),
            deduplicated: grant.deduplicated,
        }),
        Acquired::Held { holder: by, waiting } => {
            Outcome::Held(Held { blockers: by.into_iter().map(holder).collect(), waiting })
        }
        Acquired::TimedOut { holder: by, position } => {
            Outcome::TimedOut(TimedOut { blockers: by.into_iter().map(holder).collect(), position })
        }
    };
    pb::AcquireLockResponse { outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    fn request() -> pb::AcquireLockRequest {
        pb::AcquireLockRequest { name: "orders/42".to_owned(), owner: "ada".to_owned(), ..Default::default() }
    }

    fn wish(request: pb::AcquireLockRequest, deadline: Option<Duration>) -> Wish {
        acquire(request, TTL, Instant::now(), deadline).unwrap()
    }

    #[test]
    fn an_unset_ttl_is_the_default_and_an_unset_wait_is_none() {
        let wish = wish(request(), None);

        assert_eq!((wish.ttl, wish.until), (TTL, None));
    }

    #[test]
    fn a_wait_ends_before_the_deadline_of_the_call_if_that_is_earlier() {
        let waits = |deadline| {
            let wish = wish(pb::AcquireLockRequest { wait: Some(seconds(5)), ..request() }, deadline);
            wish.until.unwrap() - wish.arrived
        };
        assert_eq!(waits(None), Duration::from_secs(5));
        assert_eq!(waits(Some(Duration::from_secs(9))), Duration::from_secs(5));
        assert_eq!(waits(Some(Duration::from_secs(2))), Duration::from_millis(1950));
        assert_eq!(waits(Some(Duration::from_millis(20))), Duration::ZERO);
    }

    #[test]
    fn a_repeat_may_wait_for_another_time_and_say_the_default_or_leave_it_out() {
        let print = |request: pb::AcquireLockRequest| {
            wish(pb::AcquireLockRequest { request_id: "r".to_owned(), ..request }, None).request.unwrap().fingerprint
        };
        let first = print(request());
        let repeat = pb::AcquireLockRequest {
            wait: Some(seconds(3)),
            ttl: Some(seconds(10)),
            mode: Mode::Exclusive.into(),
            ..request()
        };
        assert_eq!(print(repeat), first);
        for other in [
            pb::AcquireLockRequest { owner: "bob".to_owned(), ..request() },
            pb::AcquireLockRequest { name: "orders/43".to_owned(), ..request() },
            pb::AcquireLockRequest { ttl: Some(seconds(11)), ..request() },
        ] {
            assert_ne!(print(other), first);
        }
    }
}
