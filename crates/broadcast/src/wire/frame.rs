//! What a subscriber is told, as the contract has it.

use tidings_proto::broadcast::encoded as pb;
use tidings_proto::broadcast::encoded::subscribe_response::Frame as Told;

use super::{epoch, text};
use crate::model::Frame;

/// A frame as the contract has it; messages go as the bytes that they are.
pub fn frame(frame: Frame) -> pb::SubscribeResponse {
    let frame = match frame {
        Frame::Messages(messages) => Told::Messages(pb::Messages { messages }),
        Frame::CaughtUp { channel, position } => {
            Told::CaughtUp(pb::CaughtUp { channel: channel.to_string(), epoch: epoch(position), head: position.offset })
        }
        Frame::Gap { channel, epoch, first, last } => Told::Gap(pb::Gap {
            channel: channel.to_string(),
            epoch: text(epoch),
            first_offset: first,
            last_offset: last,
            reason: pb::gap::Reason::Trimmed.into(),
        }),
        Frame::Reset { channel, head } => {
            Told::Reset(pb::Reset { channel: channel.to_string(), epoch: epoch(head), head: head.offset })
        }
        Frame::Heartbeat { degraded } => Told::Heartbeat(pb::Heartbeat { degraded }),
        Frame::Goodbye { retry_after } => {
            Told::Goodbye(pb::Goodbye { retry_after: prost_types::Duration::try_from(retry_after).ok() })
        }
    };
    pb::SubscribeResponse { frame: Some(frame) }
}
