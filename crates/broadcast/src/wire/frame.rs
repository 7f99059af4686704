//! Conversion of stream frames.

use tidings_proto::broadcast::encoded as pb;
use tidings_proto::broadcast::encoded::subscribe_response::Frame;
use tidings_server::{DrainCause, StreamGoodbye};

use super::epoch_text;
use crate::model::SubscriptionFrame;

/// Converts a frame to the contract. Messages are already encoded.
pub fn frame(frame: SubscriptionFrame) -> pb::SubscribeResponse {
    let frame = match frame {
        SubscriptionFrame::Messages(messages) => Frame::Messages(pb::Messages { messages }),
        SubscriptionFrame::CaughtUp { channel, position } => Frame::CaughtUp(pb::CaughtUp {
            channel: channel.to_string(),
            epoch: epoch_text(position.epoch),
            head: position.offset,
        }),
        SubscriptionFrame::Gap { channel, epoch, first, last } => Frame::Gap(pb::Gap {
            channel: channel.to_string(),
            epoch: epoch_text(epoch),
            first_offset: first,
            last_offset: last,
            reason: pb::gap::Reason::Trimmed.into(),
        }),
        SubscriptionFrame::Reset { channel, head } => {
            Frame::Reset(pb::Reset { channel: channel.to_string(), epoch: epoch_text(head.epoch), head: head.offset })
        }
        SubscriptionFrame::Heartbeat { degraded } => Frame::Heartbeat(pb::Heartbeat { degraded }),
        SubscriptionFrame::Goodbye(last) => Frame::Goodbye(goodbye(last)),
    };
    pb::SubscribeResponse { frame: Some(frame) }
}

/// Converts the last words of a stream.
fn goodbye(goodbye: StreamGoodbye) -> pb::Goodbye {
    let reason = match goodbye.cause {
        DrainCause::Shutdown => pb::goodbye::Reason::Shutdown,
        DrainCause::ConnectionAge => pb::goodbye::Reason::ConnectionAge,
    };
    let retry_after = prost_types::Duration::try_from(goodbye.retry_after).ok();
    pb::Goodbye { retry_after, reason: reason.into() }
}
