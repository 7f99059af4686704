//! Outcomes of scripts that are numbers.

/// Implements [`FromRedisValue`](crate::FromRedisValue) for an enum whose variants are the numbers
/// that a script returns. Any other number is an error: script and enum must agree.
///
/// ```
/// use tidings_redis::{FromRedisValue, Value, decode_from_number};
///
/// #[derive(Debug, PartialEq)]
/// enum FillOutcome {
///     LeaseLost,
///     Stored,
/// }
///
/// decode_from_number!(FillOutcome: 0 => LeaseLost, 1 => Stored);
///
/// assert_eq!(FillOutcome::from_redis_value(Value::Int(1)), Ok(FillOutcome::Stored));
/// assert!(FillOutcome::from_redis_value(Value::Int(2)).is_err());
/// ```
#[macro_export]
macro_rules! decode_from_number {
    ($outcome:ident: $($number:literal => $variant:ident),+) => {
        impl $crate::FromRedisValue for $outcome {
            fn from_redis_value(reply: $crate::Value) -> Result<Self, $crate::ParsingError> {
                match <i64 as $crate::FromRedisValue>::from_redis_value(reply)? {
                    $($number => Ok(Self::$variant),)+
                    number => Err(format!("{number} is no {}", stringify!($outcome)).into()),
                }
            }
        }
    };
}
