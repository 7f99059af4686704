//! Untyped reply of a script, read value by value.

use std::time::Duration;
use std::vec::IntoIter;

use tidings_redis::Value;

use super::Error;

/// A reply: a tag that names the outcome, and its values.
pub(super) struct ScriptReply {
    tag: String,
    rest: IntoIter<Value>,
}

impl ScriptReply {
    /// Wraps a reply.
    ///
    /// # Errors
    /// [`Error::NoEpoch`] if the script was refused by the epoch gate, [`Error::Malformed`] without
    /// a tag.
    pub(super) fn new(values: Vec<Value>) -> Result<Self, Error> {
        let mut rest = values.into_iter();
        let tag = text(rest.next())?;
        match tag.as_str() {
            "NO_EPOCH" | "OTHER_EPOCH" => Err(Error::NoEpoch),
            _ => Ok(Self { tag, rest }),
        }
    }

    /// Returns the tag.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// Reads the next value as a number.
    pub(super) fn number(&mut self) -> Result<i64, Error> {
        number(self.rest.next().as_ref())
    }

    /// Reads the next value as a flag.
    pub(super) fn flag(&mut self) -> Result<bool, Error> {
        flag(self.rest.next().as_ref())
    }

    /// Reads the next value as a duration.
    pub(super) fn duration(&mut self) -> Result<Duration, Error> {
        duration(self.rest.next().as_ref())
    }

    /// Reads the next value as text.
    pub(super) fn text(&mut self) -> Result<String, Error> {
        text(self.rest.next())
    }

    /// Reads the next value as a list.
    pub(super) fn list(&mut self) -> Result<IntoIter<Value>, Error> {
        match self.rest.next() {
            Some(Value::Array(values)) => Ok(values.into_iter()),
            _ => Err(Error::Malformed),
        }
    }

    /// Reads all remaining values as texts.
    pub(super) fn texts(self) -> impl Iterator<Item = Result<String, Error>> {
        self.rest.map(|value| text(Some(value)))
    }
}

/// Reads a value as a number.
pub(super) fn number(value: Option<&Value>) -> Result<i64, Error> {
    match value {
        Some(Value::Int(number)) => Ok(*number),
        _ => Err(Error::Malformed),
    }
}

/// Reads a value as a flag, sent as 0 or 1.
pub(super) fn flag(value: Option<&Value>) -> Result<bool, Error> {
    match number(value)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::Malformed),
    }
}

/// Reads a value as a duration, sent in milliseconds.
pub(super) fn duration(value: Option<&Value>) -> Result<Duration, Error> {
    let millis = number(value)?;
    Ok(Duration::from_millis(millis.try_into().unwrap_or(0)))
}

/// Reads a value as text.
pub(super) fn text(value: Option<Value>) -> Result<String, Error> {
    match value {
        Some(Value::BulkString(bytes)) => String::from_utf8(bytes).map_err(|_| Error::Malformed),
        _ => Err(Error::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_0_or_1() {
        assert!(matches!(flag(Some(&Value::Int(0))), Ok(false)));
        assert!(matches!(flag(Some(&Value::Int(1))), Ok(true)));
        for malformed in [Some(&Value::Int(2)), Some(&Value::Nil), None] {
            assert!(matches!(flag(malformed), Err(Error::Malformed)), "{malformed:?}");
        }
    }
}
