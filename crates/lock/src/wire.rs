//! Model <-> contract messages, both ways.

mod acquire;

use std::time::Duration;

use tidings_proto::lock as pb;
use tidings_status::{Fields, Invalid};

pub use acquire::{acquire, acquired};

use crate::model::{Holder, LeaseId, Lock, LockName, Token, Worth};

/// Whose reasons our errors give.
pub const DOMAIN: &str = "lock.tidings";

/// A hold as its holder names it.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Which lock.
    pub name: LockName,
    /// Under which lease.
    pub lease: LeaseId,
    /// With which token.
    pub token: Token,
}

/// Checks RenewLock.
pub fn renew(request: pb::RenewLockRequest) -> Result<Hold, Invalid> {
    hold(request.name, request.lease_id, request.token)
}

/// Checks ReleaseLock.
pub fn release(request: pb::ReleaseLockRequest) -> Result<Hold, Invalid> {
    hold(request.name, request.lease_id, request.token)
}

fn hold(name: String, lease_id: String, token: i64) -> Result<Hold, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &name);
    fields.id("lease_id", &lease_id);
    fields.require("token", token > 0, "expected 1 or more");
    fields.finish()?;
    Ok(Hold { name: LockName::new(name), lease: LeaseId::new(lease_id), token: Token::presented(token) })
}

/// Checks CheckLock.
pub fn check(request: pb::CheckLockRequest) -> Result<(LockName, Token), Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &request.name);
    fields.require("token", request.token > 0, "expected 1 or more");
    fields.finish()?;
    Ok((LockName::new(request.name), Token::presented(request.token)))
}

/// Checks GetLock.
pub fn get(request: pb::GetLockRequest) -> Result<LockName, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &request.name);
    fields.finish()?;
    Ok(LockName::new(request.name))
}

/// The answer to a renewal.
pub fn renewed(lease: Duration) -> pb::RenewLockResponse {
    pb::RenewLockResponse { lease: duration(lease) }
}

/// The answer to a release.
pub fn released(there_was_one: bool) -> pb::ReleaseLockResponse {
    use pb::release_lock_response::Outcome;
    let outcome = if there_was_one { Outcome::Released } else { Outcome::NotHeld };
    pb::ReleaseLockResponse { outcome: outcome.into() }
}

/// What a token is worth.
pub fn worth(worth: Worth) -> pb::CheckLockResponse {
    use pb::check_lock_response::State;
    let (state, remaining) = match worth {
        Worth::Current(remaining) => (State::Current, duration(remaining)),
        Worth::Stale => (State::Stale, None),
        Worth::Unknown => (State::Unknown, None),
    };
    pb::CheckLockResponse { state: state.into(), remaining }
}

/// A lock.
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

/// A holder as others see it.
fn holder(holder: Holder) -> pb::Holder {
    pb::Holder {
        owner: holder.owner,
        token: holder.token.get(),
        held_for: duration(holder.held_for),
        remaining: duration(holder.remaining),
    }
}

/// A length of time; never `None`, because all of ours are below 10,000 years.
fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}
