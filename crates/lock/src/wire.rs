//! Conversion between domain types and contract messages.

mod acquire;

use std::time::Duration;

use tidings_proto::lock as pb;
use tidings_status::{Fields, Invalid};

pub use acquire::{acquire, acquired};

use crate::model::{FencingToken, HolderInfo, LeaseId, Lock, LockName, LockRelease, TokenState};

/// `ErrorInfo.domain` of the errors of this service.
pub const DOMAIN: &str = "lock.tidings";

/// Reference to a hold, as its holder presents it.
#[derive(Clone, Debug)]
pub struct HoldRef {
    /// Name of the lock.
    pub name: LockName,
    /// Id of the lease.
    pub lease: LeaseId,
    /// Fencing token of the hold.
    pub token: FencingToken,
}

/// Validates a request of RenewLock, and converts it into the model.
pub fn renew(request: pb::RenewLockRequest) -> Result<HoldRef, Invalid> {
    hold(request.name, request.lease_id, request.token)
}

/// Validates a request of ReleaseLock, and converts it into the model.
pub fn release(request: pb::ReleaseLockRequest) -> Result<HoldRef, Invalid> {
    hold(request.name, request.lease_id, request.token)
}

fn hold(name: String, lease_id: String, token: i64) -> Result<HoldRef, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &name);
    fields.id("lease_id", &lease_id);
    fields.require("token", token > 0, "expected 1 or more");
    fields.finish()?;
    Ok(HoldRef { name: LockName::new(name), lease: LeaseId::new(lease_id), token: FencingToken::presented(token) })
}

/// Validates a request of CheckLock, and converts it into the model.
pub fn check(request: pb::CheckLockRequest) -> Result<(LockName, FencingToken), Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &request.name);
    fields.require("token", request.token > 0, "expected 1 or more");
    fields.finish()?;
    Ok((LockName::new(request.name), FencingToken::presented(request.token)))
}

/// Validates a request of GetLock, and converts it into the model.
pub fn get(request: pb::GetLockRequest) -> Result<LockName, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &request.name);
    fields.finish()?;
    Ok(LockName::new(request.name))
}

/// Builds the response to RenewLock.
pub fn renewed(lease: Duration) -> pb::RenewLockResponse {
    pb::RenewLockResponse { lease: duration(lease) }
}

/// Builds the response to ReleaseLock.
pub fn released(release: LockRelease) -> pb::ReleaseLockResponse {
    use pb::release_lock_response::Outcome;
    let outcome = match release {
        LockRelease::Released => Outcome::Released,
        LockRelease::NotHeld => Outcome::NotHeld,
    };
    pb::ReleaseLockResponse { outcome: outcome.into() }
}

/// Builds the response to CheckLock.
pub fn token_state(state: TokenState) -> pb::CheckLockResponse {
    use pb::check_lock_response::State;
    let (state, remaining) = match state {
        TokenState::Current(remaining) => (State::Current, duration(remaining)),
        TokenState::Stale => (State::Stale, None),
        TokenState::Unknown => (State::Unknown, None),
    };
    pb::CheckLockResponse { state: state.into(), remaining }
}

/// Builds the response to GetLock.
pub fn lock(lock: Lock) -> pb::GetLockResponse {
    let waiters = lock.waiters.into_iter();
    let lock = pb::Lock {
        name: lock.name.as_str().to_owned(),
        holders: lock.holder.into_iter().map(holder).collect(),
        waiters: waiters.map(|waiter| pb::Waiter { owner: waiter.owner, waited: duration(waiter.waited) }).collect(),
        waiter_count: lock.waiter_count.try_into().unwrap_or(i32::MAX),
        quarantine: duration(lock.quarantine).filter(|_| !lock.quarantine.is_zero()),
    };
    pb::GetLockResponse { lock: Some(lock) }
}

/// Converts a holder.
fn holder(holder: HolderInfo) -> pb::Holder {
    pb::Holder {
        owner: holder.owner,
        token: holder.token.get(),
        held_for: duration(holder.held_for),
        remaining: duration(holder.remaining),
    }
}

/// Converts a duration; never `None`, because all durations here are below 10,000 years.
fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}
