//! Outcomes of the scripts, which return them as numbers.

use tidings_redis::{FromRedisValue, ParsingError, Value, decode_from_number};

/// Outcome of `append.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TailAppendOutcome {
    /// There is no tail.
    NoTail,
    /// The tail has the messages.
    UpToDate,
    /// The tail was dropped, because the messages do not fit it.
    Dropped,
    /// Nothing is done: the keys belong to another incarnation.
    OtherIncarnation,
}

/// Outcome of `confirm.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConfirmOutcome {
    /// The tail lacks the message.
    Lacking,
    /// The tail has the message, begins after it, or is absent.
    Confirmed,
    /// Nothing is done: the keys belong to another incarnation.
    OtherIncarnation,
}

/// Outcome of `lease.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadLeaseOutcome {
    /// Another reader holds the lease.
    Taken,
    /// The lease is granted.
    Granted,
}

/// Outcome of `load.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadOutcome {
    /// The lease has expired or was evicted; nothing is stored.
    LeaseExpired,
    /// The tail is stored.
    Done,
    /// Newer messages were committed since the loader read Postgres; nothing is stored.
    Behind {
        /// Seq that the tail must reach: the loader reads up to it and retries.
        floor: i64,
    },
}

decode_from_number!(TailAppendOutcome: 0 => NoTail, 1 => UpToDate, 2 => Dropped, 3 => OtherIncarnation);
decode_from_number!(ConfirmOutcome: 0 => Lacking, 1 => Confirmed, 3 => OtherIncarnation);
decode_from_number!(LoadLeaseOutcome: 0 => Taken, 1 => Granted);

impl FromRedisValue for LoadOutcome {
    fn from_redis_value(reply: Value) -> Result<Self, ParsingError> {
        match Vec::<i64>::from_redis_value(reply)?[..] {
            [0] => Ok(Self::LeaseExpired),
            [1] => Ok(Self::Done),
            [2, floor] => Ok(Self::Behind { floor }),
            ref numbers => Err(format!("{numbers:?} is no LoadOutcome").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_an_error() {
        assert_eq!(TailAppendOutcome::from_redis_value(Value::Int(2)), Ok(TailAppendOutcome::Dropped));
        assert!(TailAppendOutcome::from_redis_value(Value::Int(4)).is_err());
        assert!(ConfirmOutcome::from_redis_value(Value::Int(2)).is_err());
        assert!(LoadLeaseOutcome::from_redis_value(Value::Nil).is_err());
    }

    #[test]
    fn only_a_load_that_is_behind_has_a_floor() {
        let decode = |numbers: &[i64]| {
            LoadOutcome::from_redis_value(Value::Array(numbers.iter().copied().map(Value::Int).collect()))
        };

        assert_eq!(decode(&[0]), Ok(LoadOutcome::LeaseExpired));
        assert_eq!(decode(&[1]), Ok(LoadOutcome::Done));
        assert_eq!(decode(&[2, 7]), Ok(LoadOutcome::Behind { floor: 7 }));
        let from_hash = Value::Array(vec![Value::Int(2), Value::BulkString(b"7".to_vec())]);
        assert_eq!(LoadOutcome::from_redis_value(from_hash), Ok(LoadOutcome::Behind { floor: 7 }));
        for malformed in [&[][..], &[2], &[1, 7], &[3]] {
            assert!(decode(malformed).is_err(), "{malformed:?}");
        }
    }
}
