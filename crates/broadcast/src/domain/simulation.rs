//! A simulation of rings and cursors against a model of Redis, without sockets and without time.
//!
//! Notifications are lost, late or duplicated, and reads happen at any moment. Every reader must
//! still get each message once and in order, or a `Gap` or `Reset` instead.

#[expect(dead_code, reason = "the integration tests use the rest")]
#[path = "../../tests/support/ledger.rs"]
mod ledger;

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use self::ledger::{PublishLedger, ReceivedEvent, Transcript};
use super::cursor::Cursor;
use super::ring::{ReceiveOutcome, Ring, RingLimits, RingRead};
use crate::model::{
    ChannelEpoch, ChannelName, ChannelPage, ChannelState, Position, StartPosition, SubscriptionFrame, count,
};
use crate::wire;

/// Limits so small that rings, streams and pages overflow.
const RING: RingLimits = RingLimits { messages: 4, bytes: 1000 };
const KEPT: usize = 6;
const PAGE: usize = 3;

#[derive(Clone, Copy, Debug)]
enum SimulationStep {
    /// A message is published.
    Publish,
    /// The next notification in flight is received.
    Receive,
    /// A received notification is received again, or one of a lost session arrives late.
    ReceiveAgain(prop::sample::Index),
    /// Redis loses its data.
    Flush,
    /// The pub/sub session is lost, with all notifications in flight and all until the next
    /// session.
    Disconnect,
    /// The next pub/sub session begins.
    Reconnect,
    /// The ring is compared with Redis.
    Compare,
    /// The messages of the ring are evicted.
    Evict,
    /// The pending fill advances by a step.
    Fill,
    /// A reader subscribes.
    Subscribe(ReaderStart),
    /// A reader advances by a step.
    Read(prop::sample::Index),
}

#[derive(Clone, Copy, Debug)]
enum ReaderStart {
    Latest,
    Beginning,
    UnknownEpoch,
    Last(i64),
    /// The position of another reader.
    Resume(usize),
}

fn step() -> impl Strategy<Value = SimulationStep> {
    let start = prop_oneof![
        Just(ReaderStart::Latest),
        Just(ReaderStart::Beginning),
        Just(ReaderStart::UnknownEpoch),
        (1..9_i64).prop_map(ReaderStart::Last),
        (0..9_usize).prop_map(ReaderStart::Resume),
    ];
    prop_oneof![
        20 => Just(SimulationStep::Publish),
        20 => Just(SimulationStep::Receive),
        3 => any::<prop::sample::Index>().prop_map(SimulationStep::ReceiveAgain),
        2 => Just(SimulationStep::Flush),
        2 => Just(SimulationStep::Disconnect),
        4 => Just(SimulationStep::Reconnect),
        3 => Just(SimulationStep::Compare),
        1 => Just(SimulationStep::Evict),
        20 => Just(SimulationStep::Fill),
        5 => start.prop_map(SimulationStep::Subscribe),
        30 => any::<prop::sample::Index>().prop_map(SimulationStep::Read),
    ]
}

/// A read by a fill or by a reader. It is requested, then Redis replies, then the reply arrives.
#[derive(Debug)]
enum PendingRead {
    Requested(Position),
    Replied(ChannelPage),
}

#[derive(Debug)]
struct SimulatedReader {
    cursor: Cursor,
    pending: Option<PendingRead>,
    transcript: Transcript,
}

#[derive(Debug)]
struct Simulation {
    channel: ChannelName,
    head: Position,
    kept: VecDeque<Bytes>,
    ledger: PublishLedger,
    connected: bool,
    in_flight: VecDeque<wire::MessageNotification>,
    lost: Vec<wire::MessageNotification>,
    received: Vec<wire::MessageNotification>,
    ring: Ring,
    filling: bool,
    fill: Option<PendingRead>,
    readers: Vec<SimulatedReader>,
}

impl Simulation {
    fn new() -> Self {
        let mut ring = Ring::new(RING);
        ring.start_at(Position::default());
        Self {
            channel: ChannelName::new("c"),
            head: Position::default(),
            kept: VecDeque::new(),
            ledger: PublishLedger::default(),
            connected: true,
            in_flight: VecDeque::new(),
            lost: Vec::new(),
            received: Vec::new(),
            ring,
            filling: false,
            fill: None,
            readers: Vec::new(),
        }
    }

    fn apply(&mut self, step: SimulationStep) {
        match step {
            SimulationStep::Publish => self.publish(),
            SimulationStep::Receive => {
                if let Some(notification) = self.in_flight.pop_front() {
                    self.received.push(notification.clone());
                    self.receive(notification);
                }
            }
            SimulationStep::ReceiveAgain(which) if !self.received.is_empty() => {
                self.receive(which.get(&self.received).clone());
            }
            SimulationStep::Flush => {
                self.head = Position::default();
                self.kept.clear();
            }
            SimulationStep::Disconnect => {
                self.connected = false;
                self.lost.extend(self.in_flight.drain(..));
            }
            SimulationStep::Reconnect if !self.connected => {
                self.ring.on_disconnect();
                self.connected = true;
                self.received.append(&mut self.lost);
                self.compare();
            }
            SimulationStep::Compare => self.compare(),
            SimulationStep::Evict => self.ring.evict(),
            SimulationStep::Fill => self.fill(),
            SimulationStep::Subscribe(start) => self.subscribe(start),
            SimulationStep::Read(which) if !self.readers.is_empty() => self.read(which.index(self.readers.len())),
            SimulationStep::ReceiveAgain(_) | SimulationStep::Reconnect | SimulationStep::Read(_) => {}
        }
    }

    fn publish(&mut self) {
        let epoch = *self.head.epoch.get_or_insert_with(ChannelEpoch::random);
        self.head.offset += 1;
        let (offset, text) = (self.head.offset, self.ledger.acks.len().to_string());
        self.ledger.record(&epoch.to_string(), offset, &text);
        let message = Bytes::from(text);
        self.kept.push_back(message.clone());
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        let notification = wire::MessageNotification { epoch, offset, message };
        if self.connected { self.in_flight.push_back(notification) } else { self.lost.push(notification) }
    }

    fn receive(&mut self, notification: wire::MessageNotification) {
        self.filling |= self.ring.receive(notification) == ReceiveOutcome::OutOfSequence;
    }

    fn compare(&mut self) {
        let ring = self.ring.head();
        self.filling |= ring.epoch != self.head.epoch || ring.offset < self.head.offset;
    }

    fn state(&self) -> ChannelState {
        ChannelState { head: self.head, oldest: self.head.offset - count(self.kept.len()) + 1, publish_time: None }
    }

    /// Returns the reply of the `read` script.
    fn page(&self, after: Position) -> ChannelPage {
        let state = self.state();
        let follows = after.epoch == state.head.epoch && after.offset <= state.head.offset;
        let first = state.oldest.max(if follows { after.offset + 1 } else { 1 });
        let skip = usize::try_from(first - state.oldest).unwrap();
        ChannelPage { state, first, messages: self.kept.iter().skip(skip).take(PAGE).cloned().collect() }
    }

    fn fill(&mut self) {
        if !self.filling {
            return;
        }
        self.fill = match self.fill.take() {
            None => Some(PendingRead::Requested(self.ring.begin_fill())),
            Some(PendingRead::Requested(from)) => Some(PendingRead::Replied(self.page(from))),
            Some(PendingRead::Replied(page)) => {
                self.filling = !self.ring.fill(&page);
                None
            }
        };
    }

    fn subscribe(&mut self, start: ReaderStart) {
        let mut cursor = Cursor::unpositioned(self.ring.losses());
        let start = match start {
            ReaderStart::Latest => StartPosition::Latest,
            ReaderStart::Beginning => StartPosition::After(Position::default()),
            ReaderStart::UnknownEpoch => StartPosition::UnknownEpoch,
            ReaderStart::Last(last) => StartPosition::Last(last),
            ReaderStart::Resume(reader) => {
                StartPosition::After(self.readers.get(reader).map_or(self.head, |it| it.cursor.position))
            }
        };
        let reset = cursor.start(&self.channel, start, &self.state());
        let start = Some(match start {
            StartPosition::UnknownEpoch => ("unknown".to_owned(), 7),
            StartPosition::After(after) => (text(after.epoch), after.offset),
            StartPosition::Latest | StartPosition::Last(_) => (text(cursor.position.epoch), cursor.position.offset),
        });
        let transcript = Transcript { acked_before: self.ledger.acks.len(), start, events: Vec::new() };
        let mut reader = SimulatedReader { cursor, pending: None, transcript };
        reader.record(reset);
        self.readers.push(reader);
    }

    fn read(&mut self, number: usize) {
        match self.readers[number].pending.take() {
            None => {
                let reader = &mut self.readers[number];
                match self.ring.read(reader.cursor.position, reader.cursor.losses) {
                    RingRead::Miss => reader.pending = Some(PendingRead::Requested(reader.cursor.position)),
                    RingRead::Empty => {
                        let caught_up = reader.cursor.take_caught_up(&self.channel);
                        reader.record(caught_up);
                    }
                    RingRead::Messages { epoch, messages, .. } => {
                        let caught_up = reader.cursor.take_caught_up(&self.channel);
                        reader.record(caught_up);
                        let before = Position { epoch, offset: reader.cursor.position.offset };
                        reader.record_messages(before, &messages);
                        reader.cursor.position = Position { epoch, offset: before.offset + count(messages.len()) };
                        let caught_up = reader.cursor.take_caught_up(&self.channel);
                        reader.record(caught_up);
                    }
                }
            }
            Some(PendingRead::Requested(after)) => {
                self.readers[number].pending = Some(PendingRead::Replied(self.page(after)));
            }
            Some(PendingRead::Replied(page)) => {
                let ring = (self.ring.head(), self.ring.losses());
                let reader = &mut self.readers[number];
                let frames = reader.cursor.apply_page(&self.channel, &page, ring);
                self.filling |= frames.is_empty();
                for frame in frames {
                    match frame {
                        SubscriptionFrame::Messages(messages) => {
                            let before = Position { epoch: page.state.head.epoch, offset: page.first - 1 };
                            reader.record_messages(before, &messages);
                        }
                        other => reader.record(Some(other)),
                    }
                }
            }
        }
    }

    /// Settles the simulation twice, and checks every reader. The publish in between makes readers
    /// report an epoch that may have begun and ended unnoticed.
    fn check(&mut self) -> Result<(), String> {
        self.settle();
        self.publish();
        self.settle();
        if self.ring.head() != self.head {
            return Err(format!("the ring is at {:?}, the channel at {:?}", self.ring.head(), self.head));
        }
        let end = (text(self.head.epoch), self.head.offset);
        self.readers.iter().try_for_each(|reader| {
            let checked = self.ledger.check(&reader.transcript, (&end.0, end.1));
            checked.map_err(|error| format!("{error}\n{:#?}\n{:?}", reader.transcript, self.ledger))
        })
    }

    /// Runs all steps until every reader has reached the head.
    fn settle(&mut self) {
        self.apply(SimulationStep::Reconnect);
        for _ in 0..50 {
            self.apply(SimulationStep::Receive);
            self.apply(SimulationStep::Compare);
            (0..3).for_each(|_| self.fill());
            (0..self.readers.len()).for_each(|number| (0..3).for_each(|_| self.read(number)));
        }
    }
}

impl SimulatedReader {
    fn record(&mut self, frame: Option<SubscriptionFrame>) {
        self.transcript.events.extend(frame.map(|frame| match frame {
            SubscriptionFrame::CaughtUp { position, .. } => {
                ReceivedEvent::CaughtUp { epoch: text(position.epoch), head: position.offset }
            }
            SubscriptionFrame::Gap { epoch, first, last, .. } => ReceivedEvent::Gap { epoch: text(epoch), first, last },
            SubscriptionFrame::Reset { head, .. } => {
                ReceivedEvent::Reset { epoch: text(head.epoch), head: head.offset }
            }
            other => panic!("{other:?}"),
        }));
    }

    fn record_messages(&mut self, before: Position, messages: &[Bytes]) {
        let epoch = text(before.epoch);
        self.transcript.events.extend(messages.iter().zip(before.offset + 1..).map(|(message, offset)| {
            ReceivedEvent::Message { epoch: epoch.clone(), offset, text: String::from_utf8(message.to_vec()).unwrap() }
        }));
    }
}

fn text(epoch: Option<ChannelEpoch>) -> String {
    epoch.map(|epoch| epoch.to_string()).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..Default::default() })]

    #[test]
    fn every_reader_gets_each_message_or_a_gap_or_reset(steps in vec(step(), 0..200)) {
        let mut simulation = Simulation::new();
        for step in steps {
            simulation.apply(step);
        }
        prop_assert_eq!(simulation.check(), Ok(()));
    }
}
