//! Model <-> contract messages, both ways; and the bytes of a message, which are made once.

mod frame;
mod message;
mod publish;
mod subscribe;

use tidings_proto::broadcast::encoded as pb;
use tidings_status::{Fields, Invalid};

pub use frame::frame;
pub use message::{Told, body, caused, complete, fingerprint, time, trace_parent};
pub use publish::{batch_publish, batch_published, batch_refused, publish, published};
pub use subscribe::subscribe;

use crate::model::{ChannelName, Epoch, Position, Stand};

/// Whose reasons our errors give.
pub const DOMAIN: &str = "broadcast.tidings";

/// Checks GetChannel.
pub fn get_channel(request: pb::GetChannelRequest) -> Result<ChannelName, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.name("name", &request.name);
    fields.finish()?;
    Ok(ChannelName::new(request.name))
}

/// A channel as the contract has it.
pub fn channel(name: &ChannelName, stand: &Stand, subscribers: usize) -> pb::Channel {
    pb::Channel {
        name: name.to_string(),
        epoch: epoch(stand.head),
        head: stand.head.offset,
        oldest: stand.oldest,
        publish_time: stand.time.map(Into::into),
        instance_subscribers: i32::try_from(subscribers).unwrap_or(i32::MAX),
    }
}

/// The epoch of a position as the contract has it.
fn epoch(position: Position) -> String {
    text(position.epoch)
}

fn text(epoch: Option<Epoch>) -> String {
    epoch.map(|epoch| epoch.to_string()).unwrap_or_default()
}
