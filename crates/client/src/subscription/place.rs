//! Where a channel stands, and whether what comes next follows.

use tidings_proto::broadcast::channel_start::Start as From;
use tidings_proto::broadcast::gap::Reason;
use tidings_proto::broadcast::{CaughtUp, ChannelStart, Gap, Message, Position, Reset};

/// A channel, and from where on it is wanted.
#[derive(Clone, Debug)]
pub struct Start(ChannelStart);

impl Start {
    /// From now on.
    pub fn latest(channel: impl Into<String>) -> Self {
        Self(ChannelStart { channel: channel.into(), start: None })
    }

    /// From the last so many messages on that are kept, 1 to 1,000.
    pub fn last(channel: impl Into<String>, messages: i32) -> Self {
        Self(ChannelStart { channel: channel.into(), start: Some(From::Last(messages)) })
    }

    /// From what follows `position` on.
    pub fn after(channel: impl Into<String>, position: Position) -> Self {
        Self(ChannelStart { channel: channel.into(), start: Some(From::Position(position)) })
    }

    /// The name of the channel.
    pub fn channel(&self) -> &str {
        &self.0.channel
    }
}

/// What a subscription brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A message, each once, in order of their offsets.
    Message(Message),
    /// The channel has been read up to its head; what follows is live. Comes again after each stream that broke.
    CaughtUp(CaughtUp),
    /// Messages are missing here. Its reason is `REASON_UNSPECIFIED`, which no service sends, if none told of it and it was
    /// found out by their offsets: then the service has broken its promise.
    Gap(Gap),
    /// The channel begins anew here, and an unknown number of messages may be missing.
    Reset(Reset),
}

impl Event {
    /// The name of the channel.
    pub fn channel(&self) -> &str {
        match self {
            Self::Message(message) => &message.channel,
            Self::CaughtUp(caught_up) => &caught_up.channel,
            Self::Gap(gap) => &gap.channel,
            Self::Reset(reset) => &reset.channel,
        }
    }
}

/// What has become of an event that came from an instance.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// It follows.
    Told(Event),
    /// It came before.
    Twice,
    /// Something is missing before it that nobody told of; it is to be taken again after that.
    Hole {
        /// What is missing.
        gap: Event,
        /// The event.
        behind: Event,
    },
    /// It can not be: what the instance does not keep to.
    Contradiction(&'static str),
}

/// How something stands to what came before it.
enum Order {
    Follows,
    Before,
    Behind { first_missing: i64 },
    OtherEpoch,
}

/// Where a channel stands.
#[derive(Debug)]
pub(super) struct Place {
    asked: ChannelStart,
    /// Behind the last thing that was told.
    position: Option<Position>,
    /// Whether the next offset is known: not after a Reset, which is followed by the oldest message that is kept.
    exact: bool,
}

impl Place {
    /// Nothing was told yet.
    pub(super) fn new(Start(asked): Start) -> Self {
        let position = match &asked.start {
            Some(From::Position(position)) => Some(position.clone()),
            _ => None,
        };
        Self { asked, position, exact: true }
    }

    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// What to ask an instance for.
    pub(super) fn start(&self) -> ChannelStart {
        match &self.position {
            Some(position) => Start::after(self.asked.channel.as_str(), position.clone()).0,
            None => self.asked.clone(),
        }
    }

    /// Takes what an instance told next.
    pub(super) fn take(&mut self, event: Event) -> Taken {
        // What it says of which offsets: everything up to the head of a CaughtUp was told before.
        let (epoch, first, last) = match &event {
            Event::Message(message) => (&message.epoch, message.offset, message.offset),
            Event::Gap(gap) => (&gap.epoch, gap.first_offset, gap.last_offset),
            Event::CaughtUp(caught_up) => (&caught_up.epoch, caught_up.head.saturating_add(1), i64::MAX),
            Event::Reset(reset) => {
                self.position = Some(Position { epoch: reset.epoch.clone(), offset: 0 });
                self.exact = false;
                return Taken::Told(event);
            }
        };
        match self.order(epoch, first, last) {
            Order::Before => Taken::Twice,
            Order::OtherEpoch => Taken::Contradiction("it told of another epoch without a Reset"),
            Order::Behind { first_missing } => {
                let gap = Gap {
                    channel: self.asked.channel.clone(),
                    epoch: epoch.clone(),
                    first_offset: first_missing,
                    last_offset: first - 1,
                    reason: Reason::Unspecified.into(),
                };
                self.position = Some(Position { epoch: gap.epoch.clone(), offset: gap.last_offset });
                Taken::Hole { gap: Event::Gap(gap), behind: event }
            }
            Order::Follows => Taken::Told(self.follow(event)),
        }
    }

    /// How offsets stand to the last that was told.
    fn order(&self, epoch: &str, first: i64, last: i64) -> Order {
        let Some(position) = &self.position else { return Order::Follows };
        if !position.epoch.is_empty() && position.epoch != epoch {
            return Order::OtherEpoch; // an empty one is that of a channel that had none: any may follow
        }
        let next = position.offset.saturating_add(1);
        if last < next {
            Order::Before
        } else if first > next && self.exact {
            Order::Behind { first_missing: next }
        } else {
            Order::Follows
        }
    }

    /// Moves behind an event that follows.
    fn follow(&mut self, event: Event) -> Event {
        let told = self.position.as_ref().map_or(0, |position| position.offset);
        let (event, epoch, offset) = match event {
            Event::Gap(gap) => {
                let first_offset =
                    if self.position.is_some() { gap.first_offset.max(told + 1) } else { gap.first_offset };
                let (epoch, offset) = (gap.epoch.clone(), gap.last_offset);
                (Event::Gap(Gap { first_offset, ..gap }), epoch, offset)
            }
            Event::Message(ref message) => {
                let (epoch, offset) = (message.epoch.clone(), message.offset);
                (event, epoch, offset)
            }
            Event::CaughtUp(ref caught_up) => {
                let (epoch, offset) = (caught_up.epoch.clone(), caught_up.head.max(told));
                (event, epoch, offset)
            }
            Event::Reset(_) => return event,
        };
        self.position = Some(Position { epoch, offset });
        self.exact = true;
        event
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an instance may tell of epoch `e`, true or not, twice or not at all.
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
        fn every_offset_is_told_once_and_in_order_as_a_message_or_as_missing(events in prop::collection::vec(event(), 0..60)) {
            let mut place = Place::new(Start::after("c", Position { epoch: "e".into(), offset: 0 }));
            let mut next = 1;
            for mut event in events {
                loop {
                    let (told, again) = match place.take(event) {
                        Taken::Told(told) => (told, None),
                        Taken::Hole { gap, behind } => (gap, Some(behind)),
                        Taken::Twice => break,
                        Taken::Contradiction(why) => panic!("{why}"),
                    };
                    let (first, last) = match told {
                        Event::Message(message) => (message.offset, message.offset),
                        Event::Gap(gap) => (gap.first_offset, gap.last_offset),
                        Event::CaughtUp(_) | Event::Reset(_) => (next, next - 1),
                    };
                    prop_assert_eq!(first, next);
                    next = last + 1;
                    prop_assert_eq!(place.position().map(|position| position.offset), Some(last));
                    match again {
                        Some(behind) => event = behind,
                        None => break,
                    }
                }
            }
        }
    }
}
