//! Outcomes of the scripts, which return them as numbers. Any other number is an error: the script
//! and this module must agree.

use tidings_redis::{FromRedisValue, ParsingError, Value, decode_from_number};

/// Reply of `lease.lua`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LeaseReply {
    /// The lease is granted.
    Granted,
    /// Another reader holds the lease.
    Taken,
    /// There is a value, which is not to be replaced.
    Present(Vec<u8>),
}

/// Outcome of `fill.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillOutcome {
    /// Refused: the lease had expired, was evicted, or was deleted by a write.
    LeaseLost,
    /// The value is stored.
    Stored,
    /// Refused: the value has a newer version.
    Newer,
}

/// Outcome of `release.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReleaseOutcome {
    /// The lease was lost before.
    LeaseLost,
    /// The lease is released.
    Released,
}

/// Outcome of `apply.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApplyOutcome {
    /// There is no value.
    NoValue,
    /// An older value is replaced.
    Replaced,
    /// The value has this or a newer version.
    UpToDate,
    /// Nothing is done: the keys belong to another incarnation.
    OtherIncarnation,
}

/// Outcome of `unlink.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnlinkOutcome {
    /// The values and leases are unlinked.
    Unlinked,
    /// Nothing is done: the keys belong to another incarnation.
    OtherIncarnation,
}

/// Outcome of `hint.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HintOutcome {
    /// Refused: the hint has changed since the reader saw it.
    Changed,
    /// The hint is stored, or deleted.
    Stored,
}

impl FromRedisValue for LeaseReply {
    fn from_redis_value(reply: Value) -> Result<Self, ParsingError> {
        match <(i64, Option<Vec<u8>>)>::from_redis_value(reply)? {
            (0, None) => Ok(Self::Granted),
            (1, None) => Ok(Self::Taken),
            (2, Some(value)) => Ok(Self::Present(value)),
            (number, _) => Err(format!("{number} is no LeaseReply").into()),
        }
    }
}

decode_from_number!(FillOutcome: 0 => LeaseLost, 1 => Stored, 2 => Newer);
decode_from_number!(ReleaseOutcome: 0 => LeaseLost, 1 => Released);
decode_from_number!(ApplyOutcome: 0 => NoValue, 1 => Replaced, 2 => UpToDate, 3 => OtherIncarnation);
decode_from_number!(UnlinkOutcome: 1 => Unlinked, 3 => OtherIncarnation);
decode_from_number!(HintOutcome: 0 => Changed, 1 => Stored);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_an_error() {
        assert_eq!(FillOutcome::from_redis_value(Value::Int(1)), Ok(FillOutcome::Stored));
        assert!(FillOutcome::from_redis_value(Value::Int(3)).is_err());
        assert!(ApplyOutcome::from_redis_value(Value::Int(4)).is_err());
        assert!(UnlinkOutcome::from_redis_value(Value::Int(0)).is_err());
    }

    #[test]
    fn a_lease_reply_has_a_value_only_if_one_is_present() {
        let reply = |number, value| LeaseReply::from_redis_value(Value::Array(vec![Value::Int(number), value]));
        let value = || Value::BulkString(b"value".to_vec());

        assert_eq!(reply(0, Value::Nil), Ok(LeaseReply::Granted));
        assert_eq!(reply(1, Value::Nil), Ok(LeaseReply::Taken));
        assert_eq!(reply(2, value()), Ok(LeaseReply::Present(b"value".to_vec())));
        for malformed in [reply(0, value()), reply(2, Value::Nil), reply(3, Value::Nil)] {
            assert!(malformed.is_err());
        }
    }
}
