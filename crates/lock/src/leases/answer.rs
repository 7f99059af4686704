//! Reads the answer of a script, value by value.

use std::time::Duration;
use std::vec::IntoIter;

use tidings_redis::Value;

use super::Error;

/// An answer: a word that says which it is, and what goes with it.
pub(super) struct Answer {
    word: String,
    rest: IntoIter<Value>,
}

impl Answer {
    /// Takes an answer that passed the gate.
    ///
    /// # Errors
    /// [`Error::NoEpoch`] if it did not, [`Error::Malformed`].
    pub(super) fn new(values: Vec<Value>) -> Result<Self, Error> {
        let mut rest = values.into_iter();
        let word = text(rest.next())?;
        match word.as_str() {
            "NO_EPOCH" | "OTHER_EPOCH" => Err(Error::NoEpoch),
            _ => Ok(Self { word, rest }),
        }
    }

    /// Which it is.
    pub(super) fn word(&self) -> &str {
        &self.word
    }

    /// The next value, a number.
    pub(super) fn number(&mut self) -> Result<i64, Error> {
        number(self.rest.next().as_ref())
    }

    /// The next value, a length of time.
    pub(super) fn time(&mut self) -> Result<Duration, Error> {
        time(self.rest.next().as_ref())
    }

    /// The next value, a text.
    pub(super) fn text(&mut self) -> Result<String, Error> {
        text(self.rest.next())
    }

    /// The next value, a list.
    pub(super) fn list(&mut self) -> Result<IntoIter<Value>, Error> {
        match self.rest.next() {
            Some(Value::Array(values)) => Ok(values.into_iter()),
            _ => Err(Error::Malformed),
        }
    }

    /// All values that are left, texts.
    pub(super) fn texts(self) -> impl Iterator<Item = Result<String, Error>> {
        self.rest.map(|value| text(Some(value)))
    }
}

/// A number.
pub(super) fn number(value: Option<&Value>) -> Result<i64, Error> {
    match value {
        Some(Value::Int(number)) => Ok(*number),
        _ => Err(Error::Malformed),
    }
}

/// A length of time, in milliseconds.
pub(super) fn time(value: Option<&Value>) -> Result<Duration, Error> {
    let millis = number(value)?;
    Ok(Duration::from_millis(millis.try_into().unwrap_or(0)))
}

/// A text.
pub(super) fn text(value: Option<Value>) -> Result<String, Error> {
    match value {
        Some(Value::BulkString(bytes)) => String::from_utf8(bytes).map_err(|_| Error::Malformed),
        _ => Err(Error::Malformed),
    }
}
