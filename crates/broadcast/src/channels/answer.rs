//! What the scripts answer.

use std::io;

use tidings_redis::{Error, OpenError, Value};

use crate::model::{Epoch, Page, Position, Published, Stand};
use crate::wire;

/// What the `publish` script answered.
pub(super) fn published(answer: Value) -> Result<Published, Error> {
    let parts = match answer {
        Value::Array(parts) => parts,
        _ => Vec::new(),
    };
    let [Value::Int(outcome), Value::BulkString(epoch), Value::Int(offset)] = &parts[..] else {
        return Err(nonsense());
    };
    let (epoch, offset) = (Epoch::parse(epoch).ok_or_else(nonsense)?, *offset);
    match outcome {
        0 => Ok(Published::Done { epoch, offset, deduplicated: false }),
        1 => Ok(Published::Done { epoch, offset, deduplicated: true }),
        2 => Ok(Published::Reused { epoch, offset }),
        _ => Err(nonsense()),
    }
}

/// What the `read` script answered to a reader at `after`.
pub(super) fn page(answer: Vec<Value>, after: Position) -> Result<Page, Error> {
    let mut values = answer.into_iter();
    let (Some(Value::BulkString(epoch)), Some(Value::Int(head)), Some(Value::Int(oldest)), Some(Value::Int(time))) =
        (values.next(), values.next(), values.next(), values.next())
    else {
        return Err(nonsense());
    };
    let head = position(&epoch, head)?;
    let stand = Stand { head, oldest, time: head.epoch.and(wire::time(time)) };
    let follows = after.epoch == head.epoch && after.offset <= head.offset;
    let first = oldest.max(if follows { after.offset + 1 } else { 1 });
    let mut messages = Vec::with_capacity(values.len() / 2);
    for offset in first.. {
        let (Some(time), Some(body)) = (values.next(), values.next()) else { break };
        let (Value::Int(time), Value::BulkString(body), Some(epoch)) = (time, body, head.epoch) else {
            return Err(nonsense());
        };
        let time = wire::time(time).ok_or_else(nonsense)?;
        messages.push(wire::complete(body, epoch, offset, time));
    }
    Ok(Page { stand, first, messages })
}

/// An epoch, empty if there is none, and an offset.
pub(super) fn position(epoch: &[u8], offset: i64) -> Result<Position, Error> {
    if epoch.is_empty() {
        return Ok(Position::default());
    }
    Ok(Position { epoch: Some(Epoch::parse(epoch).ok_or_else(nonsense)?), offset })
}

/// Somebody else has written there.
fn nonsense() -> Error {
    Error::Refused(OpenError::from(io::Error::new(io::ErrorKind::InvalidData, "not what our scripts answer")))
}
