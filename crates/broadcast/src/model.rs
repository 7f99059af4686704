//! The types of the service: channels, positions, messages and frames.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tidings_server::StreamGoodbye;

/// Prefix of the channels of history: the messages of a conversation are published to
/// `conversation/<id>`.
const RESERVED: &str = "conversation/";

/// A valid channel name: 1 to 200 of `[A-Za-z0-9._~/-]`, no empty segment. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// Wraps a name that the caller has validated.
    pub fn new(checked: impl Into<Arc<str>>) -> Self {
        Self(checked.into())
    }

    /// Returns the name without copying it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if the channel belongs to a service: only its relay publishes there.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED)
    }
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies one numbering of a channel's messages. Offsets start at 1 in each epoch.
///
/// The value is random and therefore unique. Its text form is 16 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelEpoch(u64);

impl ChannelEpoch {
    /// Length of the text form in bytes.
    pub const TEXT_LEN: usize = 16;

    /// Makes a new random epoch.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Parses the output of [`Display`](fmt::Display); returns `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != Self::TEXT_LEN || !text.iter().all(digit) {
            return None;
        }
        u64::from_str_radix(str::from_utf8(text).ok()?, 16).ok().map(Self)
    }
}

impl fmt::Display for ChannelEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A position in a channel: directly behind the message with this offset, or before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Epoch that `offset` belongs to; `None` if the channel has no epoch.
    pub epoch: Option<ChannelEpoch>,
    /// Offset of the last message before the position, 0 or more.
    pub offset: i64,
}

impl Position {
    /// The position before the first message of an epoch.
    pub fn beginning(epoch: Option<ChannelEpoch>) -> Self {
        Self { epoch, offset: 0 }
    }
}

/// A message to publish. Redis assigns its epoch, offset and publish time.
#[derive(Clone, Debug)]
pub struct UnpublishedMessage {
    /// Channel to publish to.
    pub channel: ChannelName,
    /// Payload, at most 64 KiB.
    pub data: Bytes,
    /// Media type of `data`; may be empty.
    pub content_type: String,
    /// Names and values chosen by the publisher.
    pub attributes: BTreeMap<String, String>,
    /// The publisher's id of the message on this channel, for deduplication.
    pub request_id: Option<String>,
    /// W3C `traceparent` of the cause; may be empty. Not part of the deduplicated content.
    pub trace_parent: String,
}

/// The position of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Epoch that `offset` belongs to.
    pub epoch: ChannelEpoch,
    /// Offset of the message, 1 or more.
    pub offset: i64,
    /// True if an earlier publish with the same request id and content stored the message.
    pub deduplicated: bool,
}

/// The outcome of one publish that Redis has processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The channel has the message.
    Published(Published),
    /// Refused: the request id belongs to a message with other content.
    RequestIdReused {
        /// Epoch of that message.
        epoch: ChannelEpoch,
        /// Offset of that message.
        offset: i64,
    },
}

/// The state of a channel in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// Position of the newest message.
    pub head: Position,
    /// Offset of the oldest message kept; one above the head if none is.
    pub oldest: i64,
    /// Publish time of the newest message; `None` if the channel has no epoch.
    pub publish_time: Option<SystemTime>,
}

/// Messages read from Redis, with the state of their channel at the same moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPage {
    /// State of the channel at the moment of the read.
    pub state: ChannelState,
    /// Offset of the first message.
    pub first: i64,
    /// Whole encoded messages with consecutive offsets.
    pub messages: Vec<Bytes>,
}

impl ChannelPage {
    /// Returns the offset of the last message; `first - 1` if the page is empty.
    pub fn last(&self) -> i64 {
        self.first + count(self.messages.len()) - 1
    }
}

/// Converts a number of messages to a difference of offsets.
pub fn count(messages: usize) -> i64 {
    i64::try_from(messages).unwrap_or(i64::MAX)
}

/// The start position of a subscription to one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// The head of the channel when the call arrives: only newer messages are delivered.
    Latest,
    /// Directly behind this position.
    After(Position),
    /// A position in an epoch that this service never issued.
    UnknownEpoch,
    /// Before the given number of newest messages, as far as they are kept.
    Last(i64),
}

/// A channel to subscribe to, and its start position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelStart {
    /// Channel to subscribe to.
    pub channel: ChannelName,
    /// Position behind which delivery starts.
    pub start: StartPosition,
}

/// One frame of a subscriber's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionFrame {
    /// Whole encoded messages of one channel with consecutive offsets.
    Messages(Vec<Bytes>),
    /// The stream has reached the head that the channel had when the subscription began.
    CaughtUp {
        /// Channel that has been read.
        channel: ChannelName,
        /// Position up to which messages were delivered or reported missing.
        position: Position,
    },
    /// Messages of the channel are missing because they are no longer kept.
    Gap {
        /// Channel with the gap.
        channel: ChannelName,
        /// Epoch that the offsets belong to.
        epoch: Option<ChannelEpoch>,
        /// Offset of the first missing message.
        first: i64,
        /// Offset of the last missing message.
        last: i64,
    },
    /// The channel has a new epoch; an unknown number of messages may be missing.
    Reset {
        /// Channel with the new epoch.
        channel: ChannelName,
        /// Position of the newest message in the new epoch.
        head: Position,
    },
    /// The stream is alive but had nothing to send for the heartbeat interval.
    Heartbeat {
        /// True while the instance has no pub/sub session, so that messages are late.
        degraded: bool,
    },
    /// The last frame of a stream that the instance ends.
    Goodbye(StreamGoodbye),
}

/// The present size of an instance, for the gauges.
#[derive(Clone, Copy, Debug)]
pub struct HubSize {
    /// Number of open Subscribe streams.
    pub streams: usize,
    /// Channels that are subscribed in Redis, or about to be.
    pub channels: usize,
    /// Bytes of messages in all rings.
    pub rings_bytes: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_epoch_is_parsed_from_its_text(number in any::<u64>()) {
            let epoch = ChannelEpoch(number);
            prop_assert_eq!(ChannelEpoch::parse(epoch.to_string().as_bytes()), Some(epoch));
        }

        #[test]
        fn only_the_text_of_an_epoch_is_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(epoch) = ChannelEpoch::parse(&bytes) {
                prop_assert_eq!(epoch.to_string().into_bytes(), bytes);
            }
        }
    }

    #[test]
    fn an_epoch_has_one_spelling() {
        for text in ["", "0123456789abcde", "0123456789ABCDEF", "+123456789abcdef", "0123456789abcdef0"] {
            assert_eq!(ChannelEpoch::parse(text.as_bytes()), None, "{text}");
        }
    }
}
