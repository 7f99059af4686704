//! What each script can say.

use std::time::Duration;

use super::answer::{number, text, time};
use super::{Answer, Error};
use crate::model::{Epoch, Holder, LeaseId, Token, Waiter};

/// What became of an acquire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquire {
    /// The call holds the lock.
    Granted {
        /// Under which id: that of the first call of its request.
        id: LeaseId,
        /// The token.
        token: Token,
        /// How long the lease lasts.
        lease: Duration,
        /// Whether an earlier call had been granted it.
        deduplicated: bool,
    },
    /// It has a place in the queue.
    Waiting {
        /// Under which id.
        id: LeaseId,
    },
    /// Somebody else holds the lock, and it did not want to wait.
    Held {
        /// Who.
        holder: Option<Holder>,
        /// How many wait.
        waiting: i64,
    },
    /// Nobody is granted anything for so long.
    Quarantine(Duration),
    /// The hold of this request is over; the token it had.
    LeaseOver(Token),
    /// A repeat of the request has what it asked for again.
    Taken,
    /// The request was another one.
    Reused,
    /// Too many wait for this lock.
    QueueFull,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The call holds the lock.
    Claimed {
        /// The token.
        token: Token,
        /// How long the lease lasts.
        lease: Duration,
    },
    /// There is no offer, but a place in the queue.
    Waiting,
    /// A repeat of the request has them.
    Taken,
    /// There is neither.
    Gone,
}

/// What became of a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// Something was given up.
    Left {
        /// The place in the queue, from 1; 0: there was none.
        position: i64,
        /// Who holds the lock.
        holder: Option<Holder>,
    },
    /// There was nothing of this call.
    Nothing,
}

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The hold is over now.
    Released,
    /// It was over before.
    NotHeld,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renew {
    /// The lease lasts so long.
    Renewed(Duration),
    /// It is over.
    Lost,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Whether there may be more to end.
    pub more: bool,
    /// How long until anybody is granted anything.
    pub quarantine: Duration,
}

/// What became of a place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The lock is offered to it, or has been claimed by it.
    Offered,
    /// It is there.
    Waiting,
    /// A repeat of the request has it.
    Taken,
    /// It is not there.
    Missing,
}

/// A lock as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The last token given to any lock.
    pub last: Token,
    /// How long until anybody is granted anything.
    pub quarantine: Duration,
    /// How many wait.
    pub waiting: i64,
    /// The token of the offer that is made to somebody who waits.
    pub offered: Option<Token>,
    /// Who holds it.
    pub holder: Option<Holder>,
    /// The first who wait.
    pub waiters: Vec<Waiter>,
}

/// In which epoch and in which reign a Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The present reign.
    pub reign: String,
    /// The epoch that began last, if any is known: of this reign or of another.
    pub began: Option<Began>,
}

/// An epoch as Redis knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Began {
    /// Which.
    pub epoch: Epoch,
    /// In which reign.
    pub reign: String,
    /// The last number that was given in it.
    pub seq: i64,
}

/// What became of an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activate {
    /// The epoch has begun.
    Activated,
    /// Redis is in another reign, or there already, or further.
    Refused,
}

pub(super) fn acquire(epoch: Epoch, mut answer: Answer) -> Result<Acquire, Error> {
    Ok(match answer.word() {
        "GRANTED" => Acquire::Granted {
            id: LeaseId::new(answer.text()?),
            token: Token::new(epoch, answer.number()?),
            lease: answer.time()?,
            deduplicated: answer.number()? == 1,
        },
        "WAITING" => Acquire::Waiting { id: LeaseId::new(answer.text()?) },
        "HELD" => Acquire::Held { waiting: answer.number()?, holder: holder(epoch, &mut answer)? },
        "QUARANTINE" => Acquire::Quarantine(answer.time()?),
        "LEASE_OVER" => Acquire::LeaseOver(Token::new(epoch, answer.number()?)),
        "TAKEN" => Acquire::Taken,
        "REUSED" => Acquire::Reused,
        "QUEUE_FULL" => Acquire::QueueFull,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn claim(epoch: Epoch, mut answer: Answer) -> Result<Claim, Error> {
    Ok(match answer.word() {
        "CLAIMED" => Claim::Claimed { token: Token::new(epoch, answer.number()?), lease: answer.time()? },
        "WAITING" => Claim::Waiting,
        "TAKEN" => Claim::Taken,
        "GONE" => Claim::Gone,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn cancel(epoch: Epoch, mut answer: Answer) -> Result<Cancel, Error> {
    Ok(match answer.word() {
        "LEFT" => Cancel::Left { position: answer.number()?, holder: holder(epoch, &mut answer)? },
        "NOTHING" => Cancel::Nothing,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn release(answer: &Answer) -> Result<Release, Error> {
    Ok(match answer.word() {
        "RELEASED" => Release::Released,
        "NOT_HELD" => Release::NotHeld,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn renew(mut answer: Answer) -> Result<Renew, Error> {
    Ok(match answer.word() {
        "RENEWED" => Renew::Renewed(answer.time()?),
        "LOST" => Renew::Lost,
        _ => return Err(Error::Malformed),
    })
}

pub(super) fn swept(mut answer: Answer) -> Result<Swept, Error> {
    Ok(Swept { more: answer.number()? == 1, quarantine: answer.time()? })
}

pub(super) fn places(answer: Answer) -> Result<Vec<Place>, Error> {
    let places = answer.texts().map(|state| {
        Ok(match state?.as_str() {
            "OFFERED" => Place::Offered,
            "WAITING" => Place::Waiting,
            "TAKEN" => Place::Taken,
            "MISSING" => Place::Missing,
            _ => return Err(Error::Malformed),
        })
    });
    places.collect()
}

pub(super) fn view(epoch: Epoch, mut answer: Answer) -> Result<View, Error> {
    let last = Token::new(epoch, answer.number()?);
    let (quarantine, waiting) = (answer.time()?, answer.number()?);
    let mut given = answer.list()?;
    let given = given
        .next()
        .map(|seq| Ok::<_, Error>((number(Some(&seq))?, number(given.next().as_ref())? == 1)))
        .transpose()?;
    let offered = given.filter(|(_, offered)| *offered).map(|(seq, _)| Token::new(epoch, seq));
    let holder = holder(epoch, &mut answer)?;
    let (mut flat, mut waiters) = (answer.list()?, Vec::new());
    while let Some(owner) = flat.next() {
        waiters.push(Waiter { owner: text(Some(owner))?, waited: time(flat.next().as_ref())? });
    }
    Ok(View { last, quarantine, waiting, offered, holder, waiters })
}

pub(super) fn seen((reign, epoch, began_in, seq): (String, String, String, String)) -> Result<Seen, Error> {
    let number = |text: &str| text.parse().map_err(|_| Error::Malformed);
    let began = match epoch.as_str() {
        "" => None,
        epoch => Some(Began { epoch: Epoch::new(number(epoch)?), reign: began_in, seq: number(&seq)? }),
    };
    Ok(Seen { reign, began })
}

pub(super) fn activate(answer: &Answer) -> Result<Activate, Error> {
    Ok(match answer.word() {
        "ACTIVATED" => Activate::Activated,
        "REFUSED" => Activate::Refused,
        _ => return Err(Error::Malformed),
    })
}

fn holder(epoch: Epoch, answer: &mut Answer) -> Result<Option<Holder>, Error> {
    let mut values = answer.list()?;
    let Some(owner) = values.next() else { return Ok(None) };
    Ok(Some(Holder {
        owner: text(Some(owner))?,
        token: Token::new(epoch, number(values.next().as_ref())?),
        held_for: time(values.next().as_ref())?,
        remaining: time(values.next().as_ref())?,
    }))
}
