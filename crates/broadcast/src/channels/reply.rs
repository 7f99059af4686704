//! Parses the replies of the scripts.

use std::io;

use tidings_redis::{Error, OpenError, Value};

use crate::model::{ChannelEpoch, ChannelPage, ChannelState, Position, PublishOutcome, Published};
use crate::wire;

/// Parses the reply of the `publish` script.
pub(super) fn publish_outcome(reply: Value) -> Result<PublishOutcome, Error> {
    let parts = match reply {
        Value::Array(parts) => parts,
        _ => Vec::new(),
    };
    let [Value::Int(outcome), Value::BulkString(epoch), Value::Int(offset)] = &parts[..] else {
        return Err(malformed());
    };
    let (epoch, offset) = (ChannelEpoch::parse(epoch).ok_or_else(malformed)?, *offset);
    match outcome {
        0 => Ok(PublishOutcome::Published(Published { epoch, offset, deduplicated: false })),
        1 => Ok(PublishOutcome::Published(Published { epoch, offset, deduplicated: true })),
        2 => Ok(PublishOutcome::RequestIdReused { epoch, offset }),
        _ => Err(malformed()),
    }
}

/// Parses the reply of the `read` script to a reader at `after`.
pub(super) fn page(reply: Vec<Value>, after: Position) -> Result<ChannelPage, Error> {
    let mut values = reply.into_iter();
    let (Some(Value::BulkString(epoch)), Some(Value::Int(head)), Some(Value::Int(oldest)), Some(Value::Int(time))) =
        (values.next(), values.next(), values.next(), values.next())
    else {
        return Err(malformed());
    };
    let head = position(&epoch, head)?;
    let state = ChannelState { head, oldest, publish_time: head.epoch.and(wire::time_from_micros(time)) };
    let follows = after.epoch == head.epoch && after.offset <= head.offset;
    let first = oldest.max(if follows { after.offset + 1 } else { 1 });
    let mut messages = Vec::with_capacity(values.len() / 2);
    for offset in first.. {
        let (Some(time), Some(body)) = (values.next(), values.next()) else { break };
        let (Value::Int(time), Value::BulkString(body), Some(epoch)) = (time, body, head.epoch) else {
            return Err(malformed());
        };
        let time = wire::time_from_micros(time).ok_or_else(malformed)?;
        messages.push(wire::complete_message(body, epoch, offset, time));
    }
    Ok(ChannelPage { state, first, messages })
}

/// Parses an epoch, which is empty if the channel has none, and an offset.
pub(super) fn position(epoch: &[u8], offset: i64) -> Result<Position, Error> {
    if epoch.is_empty() {
        return Ok(Position::default());
    }
    Ok(Position { epoch: Some(ChannelEpoch::parse(epoch).ok_or_else(malformed)?), offset })
}

/// The error of a reply that no version of the scripts sends: another program wrote to the keys.
fn malformed() -> Error {
    Error::Refused(OpenError::from(io::Error::new(io::ErrorKind::InvalidData, "malformed reply of a script")))
}
