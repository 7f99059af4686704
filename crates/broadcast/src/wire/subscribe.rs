//! Validation of Subscribe requests.

use std::collections::HashSet;

use tidings_proto::broadcast::encoded as pb;
use tidings_status::{Fields, Invalid};

use super::DOMAIN;
use crate::model::{ChannelEpoch, ChannelName, ChannelStart, Position, StartPosition};

/// Most channels of one stream.
const CHANNELS_MAX: usize = 256;
/// Largest `last`: the most messages that a channel keeps.
const LAST_MAX: i32 = 1000;

/// Validates a Subscribe request.
pub fn subscribe(request: pb::SubscribeRequest) -> Result<Vec<ChannelStart>, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.within_range("channels", &request.channels.len(), &(1..=CHANNELS_MAX));
    let mut seen = HashSet::new();
    for (index, item) in request.channels.iter().enumerate().take(CHANNELS_MAX) {
        fields.within(format_args!("channels[{index}]"), |fields| validate(fields, item, &mut seen));
    }
    fields.finish()?;
    Ok(request.channels.into_iter().map(channel_start).collect())
}

fn validate<'a>(fields: &mut Fields, item: &'a pb::ChannelStart, seen: &mut HashSet<&'a str>) {
    fields.name("channel", &item.channel);
    fields.require("channel", seen.insert(&item.channel), "expected each channel once");
    match &item.start {
        None => {}
        Some(pb::channel_start::Start::Last(last)) => fields.within_range("last", last, &(1..=LAST_MAX)),
        Some(pb::channel_start::Start::Position(position)) if position.epoch.is_empty() => {
            fields.require("position.offset", position.offset == 0, "expected 0 where there is no epoch");
        }
        Some(pb::channel_start::Start::Position(position)) => {
            fields.not_negative("position.offset", position.offset);
        }
    }
}

fn channel_start(item: pb::ChannelStart) -> ChannelStart {
    let start = match item.start {
        None => StartPosition::Latest,
        Some(pb::channel_start::Start::Last(last)) => StartPosition::Last(last.into()),
        Some(pb::channel_start::Start::Position(position)) if position.epoch.is_empty() => {
            StartPosition::After(Position::default())
        }
        Some(pb::channel_start::Start::Position(pb::Position { epoch, offset })) => {
            // Epochs are opaque to clients: an unknown one is not malformed, it leads to a `Reset`.
            ChannelEpoch::parse(epoch.as_bytes()).map_or(StartPosition::UnknownEpoch, |epoch| {
                StartPosition::After(Position { epoch: Some(epoch), offset })
            })
        }
    };
    ChannelStart { channel: ChannelName::new(item.channel), start }
}
