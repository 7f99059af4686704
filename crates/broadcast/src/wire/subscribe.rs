//! Checks of Subscribe.

use std::collections::HashSet;

use tidings_proto::broadcast::encoded as pb;
use tidings_status::{Fields, Invalid};

use super::DOMAIN;
use crate::model::{ChannelName, Epoch, Position, Start, Wish};

/// The most channels of one stream.
const CHANNELS_MAX: usize = 256;
/// The most messages to begin with: as many as are kept.
const LAST_MAX: i32 = 1000;

/// Checks Subscribe.
pub fn subscribe(request: pb::SubscribeRequest) -> Result<Vec<Wish>, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.within_range("channels", &request.channels.len(), &(1..=CHANNELS_MAX));
    let mut seen = HashSet::new();
    for (place, item) in request.channels.iter().enumerate().take(CHANNELS_MAX) {
        fields.within(format_args!("channels[{place}]"), |fields| check(fields, item, &mut seen));
    }
    fields.finish()?;
    Ok(request.channels.into_iter().map(wish).collect())
}

fn check<'a>(fields: &mut Fields, item: &'a pb::ChannelStart, seen: &mut HashSet<&'a str>) {
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

fn wish(item: pb::ChannelStart) -> Wish {
    let start = match item.start {
        None => Start::Latest,
        Some(pb::channel_start::Start::Last(last)) => Start::Last(last.into()),
        Some(pb::channel_start::Start::Position(position)) if position.epoch.is_empty() => {
            Start::After(Position::default())
        }
        Some(pb::channel_start::Start::Position(pb::Position { epoch, offset })) => {
            // Epochs are opaque to a caller: one that we never wrote is no malformed field, but lost.
            Epoch::parse(epoch.as_bytes())
                .map_or(Start::Elsewhere, |epoch| Start::After(Position { epoch: Some(epoch), offset }))
        }
    };
    Wish { channel: ChannelName::new(item.channel), start }
}
