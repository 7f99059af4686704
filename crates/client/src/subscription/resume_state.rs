//! The position of a channel, and the detection of duplicates, gaps and protocol violations.

use tidings_proto::broadcast::channel_start::Start as From;
use tidings_proto::broadcast::gap::Reason;
use tidings_proto::broadcast::{CaughtUp, ChannelStart, Gap, Message, Position, Reset};

/// A channel and the point at which its subscription starts.
#[derive(Clone, Debug)]
pub struct Start(ChannelStart);

impl Start {
    /// Starts with the next message.
    pub fn latest(channel: impl Into<String>) -> Self {
        Self(ChannelStart { channel: channel.into(), start: None })
    }

    /// Starts with the last `messages` messages that the service keeps, 1 to 1,000.
    pub fn last(channel: impl Into<String>, messages: i32) -> Self {
        Self(ChannelStart { channel: channel.into(), start: Some(From::Last(messages)) })
    }

    /// Starts after `position`.
    pub fn after(channel: impl Into<String>, position: Position) -> Self {
        Self(ChannelStart { channel: channel.into(), start: Some(From::Position(position)) })
    }

    /// Returns the name of the channel.
    pub fn channel(&self) -> &str {
        &self.0.channel
    }
}

/// An event of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A message. Each comes once, in the order of offsets.
    Message(Message),
    /// All messages up to the head were delivered; later ones are live. Sent for every new stream.
    CaughtUp(CaughtUp),
    /// Messages are missing here.
    ///
    /// The reason `REASON_UNSPECIFIED` means that the client detected the gap by offsets and the
    /// service did not report it, which violates the contract.
    Gap(Gap),
    /// The channel starts a new epoch; an unknown number of messages may be missing.
    Reset(Reset),
}

impl Event {
    /// Returns the name of the channel.
    pub fn channel(&self) -> &str {
        match self {
            Self::Message(message) => &message.channel,
            Self::CaughtUp(caught_up) => &caught_up.channel,
            Self::Gap(gap) => &gap.channel,
            Self::Reset(reset) => &reset.channel,
        }
    }
}

/// Decision about an event received from an instance.
#[derive(Debug, PartialEq)]
pub(super) enum Delivery {
    /// Deliver the event.
    Next(Event),
    /// Drop the event, because all of it was delivered before.
    Duplicate,
    /// Deliver the gap, then submit the event again.
    UnreportedGap {
        /// Offsets that are missing before the event and were not reported.
        gap: Event,
        /// The event after the gap.
        event: Event,
    },
    /// Drop the stream, because the instance broke this rule.
    ProtocolViolation(&'static str),
}

/// Relation of an event's offsets to the current position.
enum OffsetOrder {
    Next,
    Before,
    Ahead { first_missing: i64 },
    OtherEpoch,
}

/// Position of a channel in a subscription.
#[derive(Debug)]
pub(super) struct ResumeState {
    start: ChannelStart,
    /// Position after the last delivered event; `None` before the first one.
    position: Option<Position>,
    /// False after a Reset, which is followed by the oldest message that the service keeps.
    next_offset_known: bool,
}

impl ResumeState {
    /// The state before the first event.
    pub(super) fn new(Start(start): Start) -> Self {
        let position = match &start.start {
            Some(From::Position(position)) => Some(position.clone()),
            _ => None,
        };
        Self { start, position, next_offset_known: true }
    }

    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Returns the start to request from an instance.
    pub(super) fn start(&self) -> ChannelStart {
        match &self.position {
            Some(position) => Start::after(self.start.channel.as_str(), position.clone()).0,
            None => self.start.clone(),
        }
    }

    /// Decides about the next event of an instance, and moves the position if it is delivered.
    pub(super) fn accept(&mut self, event: Event) -> Delivery {
        // Offsets that the event covers. A CaughtUp comes after all offsets up to its head.
        let (epoch, first, last) = match &event {
            Event::Message(message) => (&message.epoch, message.offset, message.offset),
            Event::Gap(gap) => (&gap.epoch, gap.first_offset, gap.last_offset),
            Event::CaughtUp(caught_up) => (&caught_up.epoch, caught_up.head.saturating_add(1), i64::MAX),
            Event::Reset(reset) => {
                self.position = Some(Position { epoch: reset.epoch.clone(), offset: 0 });
                self.next_offset_known = false;
                return Delivery::Next(event);
            }
        };
        match self.order(epoch, first, last) {
            OffsetOrder::Before => Delivery::Duplicate,
            OffsetOrder::OtherEpoch => Delivery::ProtocolViolation("protocol violation: epoch changed without a Reset"),
            OffsetOrder::Ahead { first_missing } => {
                let gap = Gap {
                    channel: self.start.channel.clone(),
                    epoch: epoch.clone(),
                    first_offset: first_missing,
                    last_offset: first - 1,
                    reason: Reason::Unspecified.into(),
                };
                self.position = Some(Position { epoch: gap.epoch.clone(), offset: gap.last_offset });
                Delivery::UnreportedGap { gap: Event::Gap(gap), event }
            }
            OffsetOrder::Next => Delivery::Next(self.follow(event)),
        }
    }

    /// Compares the offsets `first..=last` of `epoch` with the current position.
    fn order(&self, epoch: &str, first: i64, last: i64) -> OffsetOrder {
        let Some(position) = &self.position else { return OffsetOrder::Next };
        if !position.epoch.is_empty() && position.epoch != epoch {
            return OffsetOrder::OtherEpoch; // a channel without an epoch may get any epoch
        }
        let next = position.offset.saturating_add(1);
        if last < next {
            OffsetOrder::Before
        } else if first > next && self.next_offset_known {
            OffsetOrder::Ahead { first_missing: next }
        } else {
            OffsetOrder::Next
        }
    }

    /// Moves the position after an event. Cuts a gap to the offsets not yet delivered.
    fn follow(&mut self, event: Event) -> Event {
        let delivered = self.position.as_ref().map_or(0, |position| position.offset);
        let (event, epoch, offset) = match event {
            Event::Gap(gap) => {
                let first_offset =
                    if self.position.is_some() { gap.first_offset.max(delivered + 1) } else { gap.first_offset };
                let (epoch, offset) = (gap.epoch.clone(), gap.last_offset);
                (Event::Gap(Gap { first_offset, ..gap }), epoch, offset)
            }
            Event::Message(ref message) => {
                let (epoch, offset) = (message.epoch.clone(), message.offset);
                (event, epoch, offset)
            }
            Event::CaughtUp(ref caught_up) => {
                let (epoch, offset) = (caught_up.epoch.clone(), caught_up.head.max(delivered));
                (event, epoch, offset)
            }
            Event::Reset(_) => return event,
        };
        self.position = Some(Position { epoch, offset });
        self.next_offset_known = true;
        event
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Events of epoch `e`, also contradictory, duplicate and missing ones.
    fn event() -> impl Strategy<Value = Event> {
        let (channel, epoch) = (String::from("c"), String::from("e"));
        let first = 1..40i64;
        (first, 0..6i64, 0..6u8).prop_map(move |(first_offset, more, kind)| {
            let (channel, epoch) = (channel.clone(), epoch.clone());
            match kind {
                0 => Event::CaughtUp(CaughtUp { channel, epoch, head: first_offset }),
                1 => {
                    let (last_offset, reason) = (first_offset + more, Reason::Trimmed.into());
                    Event::Gap(Gap { channel, epoch, first_offset, last_offset, reason })
                }
                _ => Event::Message(Message { channel, epoch, offset: first_offset, ..Default::default() }),
            }
        })
    }

    proptest! {
        #[test]
        fn every_offset_is_delivered_once_as_message_or_gap(events in prop::collection::vec(event(), 0..60)) {
            let mut resume_state = ResumeState::new(Start::after("c", Position { epoch: "e".into(), offset: 0 }));
            let mut next = 1;
            for mut event in events {
                loop {
                    let (delivered, again) = match resume_state.accept(event) {
                        Delivery::Next(event) => (event, None),
                        Delivery::UnreportedGap { gap, event } => (gap, Some(event)),
                        Delivery::Duplicate => break,
                        Delivery::ProtocolViolation(problem) => panic!("{problem}"),
                    };
                    let (first, last) = match delivered {
                        Event::Message(message) => (message.offset, message.offset),
                        Event::Gap(gap) => (gap.first_offset, gap.last_offset),
                        Event::CaughtUp(_) | Event::Reset(_) => (next, next - 1),
                    };
                    prop_assert_eq!(first, next);
                    next = last + 1;
                    prop_assert_eq!(resume_state.position().map(|position| position.offset), Some(last));
                    match again {
                        Some(later) => event = later,
                        None => break,
                    }
                }
            }
        }
    }
}
