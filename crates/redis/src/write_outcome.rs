//! Outcome of a write: one of three, not two.

use crate::error::Error;

/// Outcome of a write.
///
/// A `Result` would let a caller take "no answer" for "not done", which is how a message is
/// published twice and a lock is left behind. With this type the caller states what each case
/// means, or that doubt makes no difference ([`assume_idempotent`]).
///
/// [`assume_idempotent`]: Self::assume_idempotent
#[derive(Debug)]
#[must_use = "a write may have been done without an answer"]
pub enum WriteOutcome<T> {
    /// Applied; holds the reply.
    Done(T),
    /// Not applied, now or later: nothing was sent, or Redis refuses writes.
    NotDone(Error),
    /// **May have been applied**, fully or partly, or may still be: no reply, or an unexpected one.
    Unknown(Error),
}

impl<T> WriteOutcome<T> {
    /// Treats an unknown outcome as an error. For writes that are safe to apply twice and late, and
    /// that are repeated by another mechanism or not needed.
    pub fn assume_idempotent(self) -> Result<T, Error> {
        match self {
            Self::Done(answer) => Ok(answer),
            Self::NotDone(error) | Self::Unknown(error) => Err(error),
        }
    }

    /// Converts the reply.
    pub fn map<U>(self, read: impl FnOnce(T) -> U) -> WriteOutcome<U> {
        self.and_then(|answer| Ok(read(answer)))
    }

    /// Converts the reply; an unexpected one makes the outcome unknown.
    pub fn and_then<U>(self, read: impl FnOnce(T) -> Result<U, Error>) -> WriteOutcome<U> {
        match self {
            Self::Done(answer) => read(answer).map_or_else(WriteOutcome::Unknown, WriteOutcome::Done),
            Self::NotDone(error) => WriteOutcome::NotDone(error),
            Self::Unknown(error) => WriteOutcome::Unknown(error),
        }
    }

    /// Classifies the result of one write, which the server applies fully unless it fails midway.
    pub(crate) fn of_one(answer: Result<T, Error>) -> Self {
        match answer {
            Ok(answer) => Self::Done(answer),
            Err(error @ (Error::Away | Error::Unwritable(_))) => Self::NotDone(error),
            Err(error @ (Error::Unanswered(_) | Error::Denied(_) | Error::Refused(_))) => Self::Unknown(error),
        }
    }

    /// Classifies the result of several writes: some may have been applied before one was refused.
    pub(crate) fn of_many(answer: Result<T, Error>) -> Self {
        match answer {
            Err(error @ Error::Unwritable(_)) => Self::Unknown(error),
            answer => Self::of_one(answer),
        }
    }
}
