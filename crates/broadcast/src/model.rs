//! The nouns of the service.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

/// The name of a channel, checked: 1 to 200 of `[A-Za-z0-9._~/-]`, no empty segment. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<str>);

impl ChannelName {
    /// Takes a text that was checked before.
    pub fn new(checked: impl Into<Arc<str>>) -> Self {
        Self(checked.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
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

/// Names one numbering of a channel: random, so that no two are alike. As text, 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// How long it is as text.
    pub const TEXT: usize = 16;

    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads what [`Display`](fmt::Display) wrote; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != Self::TEXT || !text.iter().all(digit) {
            return None;
        }
        u64::from_str_radix(str::from_utf8(text).ok()?, 16).ok().map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A place in a channel: right behind the message of this offset, or before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The numbering it belongs to; `None` for a channel that has none.
    pub epoch: Option<Epoch>,
    /// The offset of the last message before it, 0 or more.
    pub offset: i64,
}

impl Position {
    /// The beginning of a numbering.
    pub fn beginning(epoch: Option<Epoch>) -> Self {
        Self { epoch, offset: 0 }
    }
}

/// A message to be published.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Where to.
    pub channel: ChannelName,
    /// What it says.
    pub data: Bytes,
    /// What the data are; may be empty.
    pub content_type: String,
    /// Whatever else.
    pub attributes: BTreeMap<String, String>,
    /// The publisher's own name for it on this channel, if it has one.
    pub request_id: Option<String>,
    /// What caused it, as W3C trace context writes it; may be empty. No part of the content.
    pub trace_parent: String,
}

/// What became of one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It has a place.
    Done {
        /// The numbering.
        epoch: Epoch,
        /// Its number.
        offset: i64,
        /// Whether an earlier publish of the same request id had done it.
        deduplicated: bool,
    },
    /// The request id belongs to a message of another content.
    Reused {
        /// The numbering of that message.
        epoch: Epoch,
        /// Its number.
        offset: i64,
    },
}

/// Where a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Its numbering and its newest message.
    pub head: Position,
    /// The oldest message that is kept; one above the head if none is.
    pub oldest: i64,
    /// When the newest was published.
    pub time: Option<SystemTime>,
}

/// A part of what a channel keeps, read together with where the channel stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where the channel stands.
    pub stand: Stand,
    /// The offset of the first message.
    pub first: i64,
    /// Whole encoded messages, whose offsets follow each other.
    pub messages: Vec<Bytes>,
}

impl Page {
    /// The last offset of the page, or the one before its first if it is empty.
    pub fn last(&self) -> i64 {
        self.first + count(self.messages.len()) - 1
    }
}

/// A number of messages as a difference of offsets.
pub fn count(messages: usize) -> i64 {
    i64::try_from(messages).unwrap_or(i64::MAX)
}

/// From where on a channel is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// What is published from now on.
    Latest,
    /// What follows this position.
    After(Position),
    /// What follows a position in a numbering that no channel ever had.
    Elsewhere,
    /// The last so many that are kept, and what follows.
    Last(i64),
}

/// A channel, and from where on it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub channel: ChannelName,
    /// From where on.
    pub start: Start,
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Whole encoded messages of one channel, whose offsets follow each other.
    Messages(Vec<Bytes>),
    /// The channel has been read up to its head as it was when the subscription began.
    CaughtUp {
        /// Which.
        channel: ChannelName,
        /// Up to where everything was delivered or told.
        position: Position,
    },
    /// Messages are not kept any more.
    Gap {
        /// Where.
        channel: ChannelName,
        /// In which numbering.
        epoch: Option<Epoch>,
        /// The first that is missing.
        first: i64,
        /// The last.
        last: i64,
    },
    /// The channel begins anew.
    Reset {
        /// Which.
        channel: ChannelName,
        /// The new numbering and its newest message.
        head: Position,
    },
    /// There is nothing else to say.
    Heartbeat {
        /// Whether the instance hears nothing at the moment.
        degraded: bool,
    },
    /// The stream ends.
    Goodbye {
        /// When to come back.
        retry_after: Duration,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_epoch_is_read_as_it_was_written(number in any::<u64>()) {
            prop_assert_eq!(Epoch::parse(Epoch(number).to_string().as_bytes()), Some(Epoch(number)));
        }

        #[test]
        fn what_is_no_epoch_of_ours_is_none(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(epoch) = Epoch::parse(&bytes) {
                prop_assert_eq!(epoch.to_string().into_bytes(), bytes);
            }
        }
    }

    #[test]
    fn an_epoch_has_one_spelling() {
        for text in ["", "0123456789abcde", "0123456789ABCDEF", "+123456789abcdef", "0123456789abcdef0"] {
            assert_eq!(Epoch::parse(text.as_bytes()), None, "{text}");
        }
    }
}
