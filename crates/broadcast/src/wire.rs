//! Conversion between model and contract messages, and the encoding of published messages.

mod frame;
mod message;
mod publish;
mod subscribe;

use tidings_proto::broadcast::encoded as pb;
use tidings_status::{Fields, Invalid};

pub use frame::frame;
pub use message::{
    MessageNotification, complete_message, encode_body, fingerprint, time_from_micros, trace_parent, with_trace_parent,
};
pub use publish::{batch_publish, batch_published, batch_refused, publish, published};
pub use subscribe::subscribe;

use crate::model::{ChannelEpoch, ChannelName, ChannelState};

/// ErrorInfo domain of this service.
pub const DOMAIN: &str = "broadcast.tidings";

/// Validates a GetChannel request.
pub fn get_channel(request: pb::GetChannelRequest) -> Result<ChannelName, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &request.name);
    fields.finish()?;
    Ok(ChannelName::new(request.name))
}

/// Converts the state of a channel to the contract's `Channel`.
pub fn channel(name: &ChannelName, state: &ChannelState, subscribers: usize) -> pb::Channel {
    pb::Channel {
        name: name.to_string(),
        epoch: epoch_text(state.head.epoch),
        head: state.head.offset,
        oldest: state.oldest,
        publish_time: state.publish_time.map(Into::into),
        instance_subscribers: i32::try_from(subscribers).unwrap_or(i32::MAX),
    }
}

/// Converts an epoch to the contract's text, which is empty without one.
fn epoch_text(epoch: Option<ChannelEpoch>) -> String {
    epoch.map(|epoch| epoch.to_string()).unwrap_or_default()
}
