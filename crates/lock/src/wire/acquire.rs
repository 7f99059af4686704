//! Checks of AcquireLock requests, and their responses.

use std::time::Duration;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::lock as pb;
use tidings_proto::lock::acquire_lock_request::Mode;
use tidings_proto::lock::acquire_lock_response::{Granted, Held, Outcome, TimedOut};
use tidings_status::{Fields, Invalid};
use tokio::time::Instant;

use super::{DOMAIN, duration, holder};
use crate::model::{AcquireOutcome, AcquireRequest, LockName, RequestKey, TTL_MAX, TTL_MIN};

/// Longest owner, in bytes.
const OWNER_MAX: usize = 128;
/// Longest wait. A client that wants to wait for longer sends another request, which bounds the
/// time an undetected dead client stays queued.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// Time before the call's deadline at which its wait ends, so that the response arrives in time.
const RESPONSE_MARGIN: Duration = Duration::from_millis(50);

/// Checks an AcquireLock request that arrived at `arrived` with `deadline` left.
pub fn acquire(
    request: pb::AcquireLockRequest,
    default_ttl: Duration,
    arrived: Instant,
    deadline: Option<Duration>,
) -> Result<AcquireRequest, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &request.name);
    fields.require("mode", Mode::try_from(request.mode).is_ok(), "expected MODE_EXCLUSIVE or unset");
    fields.require("owner", !request.owner.is_empty(), "expected 1 to 128 bytes");
    fields.text("owner", &request.owner, OWNER_MAX);
    let ttl = request.ttl.map_or(Some(default_ttl), whole_millis).filter(|ttl| (TTL_MIN..=TTL_MAX).contains(ttl));
    fields.require("ttl", ttl.is_some(), "expected 1s to 300s");
    let wait = request.wait.map_or(Some(Duration::ZERO), whole_millis).filter(|wait| *wait <= WAIT_MAX);
    fields.require("wait", wait.is_some(), "expected 0s to 60s");
    fields.optional_id("request_id", &request.request_id);
    fields.finish()?;

    let (ttl, wait) = (ttl.unwrap_or(default_ttl), wait.unwrap_or_default());
    let wait = deadline.map_or(wait, |deadline| wait.min(deadline.saturating_sub(RESPONSE_MARGIN)));
    let waits = request.wait.and_then(whole_millis).is_some_and(|wait| !wait.is_zero());
    let fingerprint = fingerprint(&request, ttl);
    Ok(AcquireRequest {
        name: LockName::new(request.name),
        owner: request.owner,
        ttl,
        key: Some(request.request_id).filter(|id| !id.is_empty()).map(|id| RequestKey { id, fingerprint }),
        arrived,
        wait_until: waits.then(|| arrived + wait),
    })
}

/// Converts a duration into whole milliseconds, as scripts count it; `None` if negative or
/// malformed.
fn whole_millis(duration: prost_types::Duration) -> Option<Duration> {
    let exact = Duration::try_from(duration).ok()?;
    Some(Duration::from_millis(u64::try_from(exact.as_millis()).ok()?))
}

/// Hashes the fields that a retry has in common with its request.
fn fingerprint(request: &pb::AcquireLockRequest, ttl: Duration) -> [u8; 16] {
    let comparable = pb::AcquireLockRequest {
        name: request.name.clone(),
        mode: Mode::Exclusive.into(),
        owner: request.owner.clone(),
        ttl: duration(ttl),
        wait: None,
        request_id: String::new(),
    };
    let hash: [u8; 32] = Sha256::digest(comparable.encode_to_vec()).into();
    let mut prefix = [0; 16]; // enough against accidental collisions; Redis may keep a million of them
    prefix.copy_from_slice(&hash[..16]);
    prefix
}

/// Builds the response to AcquireLock.
pub fn acquired(acquired: AcquireOutcome) -> pb::AcquireLockResponse {
    let outcome = match acquired {
        AcquireOutcome::Granted(grant) => Outcome::Granted(Granted {
            token: grant.token.get(),
            lease_id: grant.lease_id.as_str().to_owned(),
            lease: duration(grant.lease),
            waited: duration(grant.waited),
            deduplicated: grant.deduplicated,
        }),
        AcquireOutcome::Held { holder: by, waiting } => {
            Outcome::Held(Held { blockers: by.into_iter().map(holder).collect(), waiting })
        }
        AcquireOutcome::TimedOut { holder: by, position } => {
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

    fn checked(request: pb::AcquireLockRequest, deadline: Option<Duration>) -> AcquireRequest {
        acquire(request, TTL, Instant::now(), deadline).unwrap()
    }

    #[test]
    fn an_unset_ttl_is_the_default_and_an_unset_wait_is_none() {
        let checked = checked(request(), None);

        assert_eq!((checked.ttl, checked.wait_until), (TTL, None));
    }

    #[test]
    fn a_wait_ends_before_an_earlier_deadline_of_the_call() {
        let waits = |deadline| {
            let checked = checked(pb::AcquireLockRequest { wait: Some(seconds(5)), ..request() }, deadline);
            checked.wait_until.unwrap() - checked.arrived
        };
        assert_eq!(waits(None), Duration::from_secs(5));
        assert_eq!(waits(Some(Duration::from_secs(9))), Duration::from_secs(5));
        assert_eq!(waits(Some(Duration::from_secs(2))), Duration::from_millis(1950));
        assert_eq!(waits(Some(Duration::from_millis(20))), Duration::ZERO);
    }

    /// Its fingerprint stays the same; that of another request differs.
    #[test]
    fn a_retry_may_change_its_wait_and_spell_out_defaults() {
        let print = |request: pb::AcquireLockRequest| {
            checked(pb::AcquireLockRequest { request_id: "r".to_owned(), ..request }, None).key.unwrap().fingerprint
        };
        let first = print(request());
        let retry = pb::AcquireLockRequest {
            wait: Some(seconds(3)),
            ttl: Some(seconds(10)),
            mode: Mode::Exclusive.into(),
            ..request()
        };
        assert_eq!(print(retry), first);
        for other in [
            pb::AcquireLockRequest { owner: "bob".to_owned(), ..request() },
            pb::AcquireLockRequest { name: "orders/43".to_owned(), ..request() },
            pb::AcquireLockRequest { ttl: Some(seconds(11)), ..request() },
        ] {
            assert_ne!(print(other), first);
        }
    }
}
