//! Typed replies of the scripts.

use std::time::Duration;

use super::script_reply::{duration, flag, number, text};
use super::{Error, ScriptReply};
use crate::model::{FencingToken, HolderInfo, LeaseId, LockEpoch, LockRelease, WaiterInfo};

/// Reply to an acquire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcquireReply {
    /// The call holds the lock.
    Granted {
        /// Id of the lease: that of the first call of the request.
        id: LeaseId,
        /// Fencing token of the hold.
        token: FencingToken,
        /// Length of the lease.
        lease: Duration,
        /// True if an earlier call of the request was granted this hold.
        deduplicated: bool,
    },
    /// The call is queued.
    Waiting {
        /// Id of the queue entry.
        id: LeaseId,
    },
    /// Another client holds the lock, and the request does not wait.
    Held {
        /// The holder; `None` if the lock is only offered.
        holder: Option<HolderInfo>,
        /// Number of waiters.
        waiting: i64,
    },
    /// Nothing is granted for the given time.
    Quarantine(Duration),
    /// The hold of this request, with the given token, is over.
    LeaseOver(FencingToken),
    /// A retry has taken over the queue entry or the hold.
    TakenOver,
    /// The request id was used for a different request.
    Reused,
    /// The lock has the most waiters it may have.
    QueueFull,
}

/// Reply to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimReply {
    /// The call holds the lock.
    Claimed {
        /// Fencing token of the hold.
        token: FencingToken,
        /// Time left of the lease.
        lease: Duration,
    },
    /// The call is queued, without an offer.
    Waiting,
    /// A retry has taken over the queue entry or the offer.
    TakenOver,
    /// The call is neither queued nor offered the lock.
    Absent,
}

/// Reply to a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelReply {
    /// A queue entry, an offer or a hold was cancelled.
    Cancelled {
        /// Queue position that was given up, from 1; 0 if the call was not queued.
        position: i64,
        /// The current holder.
        holder: Option<HolderInfo>,
    },
    /// The queue entry waits for a retry of the request.
    Kept,
    /// The call had no entry.
    Nothing,
}

/// Reply to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewReply {
    /// The lease lasts for the given time from now on.
    Renewed(Duration),
    /// The lease is over.
    Lost,
}

/// Reply to a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepReply {
    /// True if more entries may have expired.
    pub more: bool,
    /// Time until the quarantine ends; zero without one.
    pub quarantine: Duration,
}

/// Status of a waiter in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaiterStatus {
    /// The lock is offered to the call, or the call has claimed it.
    Offered,
    /// The call is queued.
    Waiting,
    /// A retry has taken over the queue entry.
    TakenOver,
    /// The call is not queued.
    Absent,
}

/// State of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockView {
    /// Last token granted to any lock.
    pub last_token: FencingToken,
    /// Time until the quarantine ends; zero without one.
    pub quarantine: Duration,
    /// Number of waiters.
    pub waiting: i64,
    /// Token of the offer to a waiter, if one is open.
    pub offered_token: Option<FencingToken>,
    /// The current holder.
    pub holder: Option<HolderInfo>,
    /// The first waiters, in order of arrival.
    pub waiters: Vec<WaiterInfo>,
}

/// Incarnation of Redis, and the epoch stored in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochReply {
    /// Incarnation of the server that replied.
    pub incarnation: String,
    /// Epoch that was activated last, in this incarnation or in an earlier one.
    pub stored: Option<StoredEpoch>,
}

/// Epoch as stored in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEpoch {
    /// Number of the epoch.
    pub epoch: LockEpoch,
    /// Incarnation in which the epoch was activated.
    pub incarnation: String,
    /// Last sequence number granted in the epoch.
    pub seq: i64,
}

/// Reply to an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivateReply {
    /// The epoch has begun.
    Activated,
    /// Redis is in another incarnation, or already in this epoch or a later one.
    Refused,
}

pub(super) fn acquire(epoch: LockEpoch, mut reply: ScriptReply) -> Result<AcquireReply, Error> {
    Ok(match reply.tag() {
        "GRANTED" => AcquireReply::Granted {
            id: LeaseId::new(reply.text()?),
            token: FencingToken::new(epoch, reply.number()?),
            lease: reply.duration()?,
            deduplicated: reply.flag()?,
        },
        "WAITING" => AcquireReply::Waiting { id: LeaseId::new(reply.text()?) },
        "HELD" => AcquireReply::Held { waiting: reply.number()?, holder: holder(epoch, &mut reply)? },
        "QUARANTINE" => AcquireReply::Quarantine(reply.duration()?),
        "LEASE_OVER" => AcquireReply::LeaseOver(FencingToken::new(epoch, reply.number()?)),
        "TAKEN_OVER" => AcquireReply::TakenOver,
        "REUSED" => AcquireReply::Reused,
        "QUEUE_FULL" => AcquireReply::QueueFull,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn claim(epoch: LockEpoch, mut reply: ScriptReply) -> Result<ClaimReply, Error> {
    Ok(match reply.tag() {
        "CLAIMED" => ClaimReply::Claimed { token: FencingToken::new(epoch, reply.number()?), lease: reply.duration()? },
        "WAITING" => ClaimReply::Waiting,
        "TAKEN_OVER" => ClaimReply::TakenOver,
        "ABSENT" => ClaimReply::Absent,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn cancel(epoch: LockEpoch, mut reply: ScriptReply) -> Result<CancelReply, Error> {
    Ok(match reply.tag() {
        "CANCELLED" => CancelReply::Cancelled { position: reply.number()?, holder: holder(epoch, &mut reply)? },
        "KEPT" => CancelReply::Kept,
        "NOTHING" => CancelReply::Nothing,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn release(reply: &ScriptReply) -> Result<LockRelease, Error> {
    Ok(match reply.tag() {
        "RELEASED" => LockRelease::Released,
        "NOT_HELD" => LockRelease::NotHeld,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn renew(mut reply: ScriptReply) -> Result<RenewReply, Error> {
    Ok(match reply.tag() {
        "RENEWED" => RenewReply::Renewed(reply.duration()?),
        "LOST" => RenewReply::Lost,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn sweep(mut reply: ScriptReply) -> Result<SweepReply, Error> {
    Ok(SweepReply { more: reply.flag()?, quarantine: reply.duration()? })
}

pub(super) fn statuses(reply: ScriptReply) -> Result<Vec<WaiterStatus>, Error> {
    let statuses = reply.texts().map(|state| {
        Ok(match state?.as_str() {
            "OFFERED" => WaiterStatus::Offered,
            "WAITING" => WaiterStatus::Waiting,
            "TAKEN_OVER" => WaiterStatus::TakenOver,
            "ABSENT" => WaiterStatus::Absent,
            _ => return Err(Error::Malformed),
        })
    });
    statuses.collect()
}

pub(super) fn lock_view(epoch: LockEpoch, mut reply: ScriptReply) -> Result<LockView, Error> {
    let last_token = FencingToken::new(epoch, reply.number()?);
    let (quarantine, waiting) = (reply.duration()?, reply.number()?);
    let mut fields = reply.list()?;
    let hold =
        fields.next().map(|seq| Ok::<_, Error>((number(Some(&seq))?, flag(fields.next().as_ref())?))).transpose()?;
    let offered_token = hold.filter(|(_, offered)| *offered).map(|(seq, _)| FencingToken::new(epoch, seq));
    let holder = holder(epoch, &mut reply)?;
    let (mut flat, mut waiters) = (reply.list()?, Vec::new());
    while let Some(owner) = flat.next() {
        waiters.push(WaiterInfo { owner: text(Some(owner))?, waited: duration(flat.next().as_ref())? });
    }
    Ok(LockView { last_token, quarantine, waiting, offered_token, holder, waiters })
}

pub(super) fn epoch(
    (incarnation, epoch, stored_incarnation, seq): (String, String, String, String),
) -> Result<EpochReply, Error> {
    let number = |text: &str| text.parse().map_err(|_| Error::Malformed);
    let stored = match epoch.as_str() {
        "" => None,
        epoch => Some(StoredEpoch {
            epoch: LockEpoch::new(number(epoch)?),
            incarnation: stored_incarnation,
            seq: number(&seq)?,
        }),
    };
    Ok(EpochReply { incarnation, stored })
}

pub(super) fn activate(reply: &ScriptReply) -> Result<ActivateReply, Error> {
    Ok(match reply.tag() {
        "ACTIVATED" => ActivateReply::Activated,
        "REFUSED" => ActivateReply::Refused,
        _ => return Err(Error::Malformed),
    })
}

fn holder(epoch: LockEpoch, reply: &mut ScriptReply) -> Result<Option<HolderInfo>, Error> {
    let mut values = reply.list()?;
    let Some(owner) = values.next() else { return Ok(None) };
    Ok(Some(HolderInfo {
        owner: text(Some(owner))?,
        token: FencingToken::new(epoch, number(values.next().as_ref())?),
        held_for: duration(values.next().as_ref())?,
        remaining: duration(values.next().as_ref())?,
    }))
}
