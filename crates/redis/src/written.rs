//! What is known of a write: there are three cases, not two.

use crate::Error;

/// What became of a write.
///
/// A `Result` would let a caller take "no answer" for "not done", which is how a message is published twice and a lock is
/// left behind. So this is none: who writes says what each case means, or that it makes no difference ([`or_again`]).
///
/// [`or_again`]: Self::or_again
#[derive(Debug)]
#[must_use = "a write may have been done without an answer"]
pub enum Written<T> {
    /// It was done, and this is the answer.
    Done(T),
    /// It was not done and will not be: nothing was sent, or Redis takes no writes.
    NotDone(Error),
    /// It **may have been done**, whole or in part, or may be done yet: no answer came, or one that nobody expects.
    Doubtful(Error),
}

impl<T> Written<T> {
    /// For a write that is safe to do twice and late, and that somebody does again, or nobody misses: doubt is a failure like
    /// any other.
    pub fn or_again(self) -> Result<T, Error> {
        match self {
            Self::Done(answer) => Ok(answer),
            Self::NotDone(error) | Self::Doubtful(error) => Err(error),
        }
    }

    /// Reads an answer.
    pub fn map<U>(self, read: impl FnOnce(T) -> U) -> Written<U> {
        self.and_then(|answer| Ok(read(answer)))
    }

    /// Reads an answer, which may be one that nobody expects.
    pub fn and_then<U>(self, read: impl FnOnce(T) -> Result<U, Error>) -> Written<U> {
        match self {
            Self::Done(answer) => read(answer).map_or_else(Written::Doubtful, Written::Done),
            Self::NotDone(error) => Written::NotDone(error),
            Self::Doubtful(error) => Written::Doubtful(error),
        }
    }

    /// Of one write, which a server does whole or not at all unless it fails half way.
    pub(crate) fn of_one(answer: Result<T, Error>) -> Self {
        match answer {
            Ok(answer) => Self::Done(answer),
            Err(error @ (Error::Away | Error::Unwritable(_))) => Self::NotDone(error),
            Err(error @ (Error::Unanswered(_) | Error::Refused(_))) => Self::Doubtful(error),
        }
    }

    /// Of many: some may have been done before one was refused.
    pub(crate) fn of_many(answer: Result<T, Error>) -> Self {
        match answer {
            Err(error @ Error::Unwritable(_)) => Self::Doubtful(error),
            answer => Self::of_one(answer),
        }
    }
}
