//! The rules of rings and cursors, played against a model of Redis without sockets and without time: whatever is lost,
//! late or read at the wrong moment, every reader gets each message once and in order, or is told where not.

#[expect(dead_code, reason = "the tests of the service use the rest")]
#[path = "../../tests/support/ledger.rs"]
mod ledger;

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use self::ledger::{Account, Ledger, Told};
use super::cursor::Cursor;
use super::ring::{Heard, Ring, RingLimits, Taken};
use crate::model::{ChannelName, Epoch, Frame, Page, Position, Stand, Start, count};
use crate::wire;

/// So small that everything overflows.
const RING: RingLimits = RingLimits { messages: 4, bytes: 1000 };
const KEPT: usize = 6;
const PAGE: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message is published.
    Publish,
    /// The next message that is under way is heard.
    Hear,
    /// A message that was heard is heard again; or one that was cut off, late, beside the next session.
    HearAgain(prop::sample::Index),
    /// Redis loses its data.
    Flush,
    /// The session is cut: what is under way is lost, and what is published.
    Cut,
    /// The next session begins.
    Rejoin,
    /// The ring is compared with Redis.
    Compare,
    /// The ring forgets its messages.
    Shed,
    /// The fill that is due goes on by a step.
    Fill,
    /// A reader begins.
    Begin(Wanted),
    /// A reader goes on by a step.
    Read(prop::sample::Index),
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Latest,
    Everything,
    Elsewhere,
    Last(i64),
    /// Where another reader is.
    Resume(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let wanted = prop_oneof![
        Just(Wanted::Latest),
        Just(Wanted::Everything),
        Just(Wanted::Elsewhere),
        (1..9_i64).prop_map(Wanted::Last),
        (0..9_usize).prop_map(Wanted::Resume),
    ];
    prop_oneof![
        20 => Just(Step::Publish),
        20 => Just(Step::Hear),
        3 => any::<prop::sample::Index>().prop_map(Step::HearAgain),
        2 => Just(Step::Flush),
        2 => Just(Step::Cut),
        4 => Just(Step::Rejoin),
        3 => Just(Step::Compare),
        1 => Just(Step::Shed),
        20 => Just(Step::Fill),
        5 => wanted.prop_map(Step::Begin),
        30 => any::<prop::sample::Index>().prop_map(Step::Read),
    ]
}

/// A fill, or the read of a reader: first it knows where from, then Redis answers, then the answer arrives.
#[derive(Debug)]
enum Reading {
    From(Position),
    Answered(Page),
}

#[derive(Debug)]
struct Reader {
    cursor: Cursor,
    reading: Option<Reading>,
    account: Account,
}

#[derive(Debug)]
struct World {
    channel: ChannelName,
    head: Position,
    kept: VecDeque<Bytes>,
    ledger: Ledger,
    hears: bool,
    under_way: VecDeque<wire::Told>,
    cut_off: Vec<wire::Told>,
    past: Vec<wire::Told>,
    ring: Ring,
    filling: bool,
    fill: Option<Reading>,
    readers: Vec<Reader>,
}

impl World {
    fn new() -> Self {
        let mut ring = Ring::new(RING);
        ring.open(Position::default());
        Self {
            channel: ChannelName::new("c"),
            head: Position::default(),
            kept: VecDeque::new(),
            ledger: Ledger::default(),
            hears: true,
            under_way: VecDeque::new(),
            cut_off: Vec::new(),
            past: Vec::new(),
            ring,
            filling: false,
            fill: None,
            readers: Vec::new(),
        }
    }

    fn go(&mut self, step: Step) {
        match step {
            Step::Publish => self.publish(),
            Step::Hear => {
                if let Some(told) = self.under_way.pop_front() {
                    self.past.push(told.clone());
                    self.hear(told);
                }
            }
            Step::HearAgain(which) if !self.past.is_empty() => self.hear(which.get(&self.past).clone()),
            Step::Flush => {
                self.head = Position::default();
                self.kept.clear();
            }
            Step::Cut => {
                self.hears = false;
                self.cut_off.extend(self.under_way.drain(..));
            }
            Step::Rejoin if !self.hears => {
                self.ring.was_deaf();
                self.hears = true;
                self.past.append(&mut self.cut_off);
                self.compare();
            }
            Step::Compare => self.compare(),
            Step::Shed => self.ring.shed(),
            Step::Fill => self.fill(),
            Step::Begin(wanted) => self.begin(wanted),
            Step::Read(which) if !self.readers.is_empty() => self.read(which.index(self.readers.len())),
            Step::HearAgain(_) | Step::Rejoin | Step::Read(_) => {}
        }
    }

    fn publish(&mut self) {
        let epoch = *self.head.epoch.get_or_insert_with(Epoch::random);
        self.head.offset += 1;
        let (offset, text) = (self.head.offset, self.ledger.acks.len().to_string());
        self.ledger.note(&epoch.to_string(), offset, &text);
        let message = Bytes::from(text);
        self.kept.push_back(message.clone());
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        let told = wire::Told { epoch, offset, message };
        if self.hears { self.under_way.push_back(told) } else { self.cut_off.push(told) }
    }

    fn hear(&mut self, told: wire::Told) {
        self.filling |= self.ring.hear(told) == Heard::Astray;
    }

    fn compare(&mut self) {
        let ring = self.ring.head();
        self.filling |= ring.epoch != self.head.epoch || ring.offset < self.head.offset;
    }

    fn stand(&self) -> Stand {
        Stand { head: self.head, oldest: self.head.offset - count(self.kept.len()) + 1, time: None }
    }

    /// What the script `read` answers.
    fn page(&self, after: Position) -> Page {
        let stand = self.stand();
        let follows = after.epoch == stand.head.epoch && after.offset <= stand.head.offset;
        let first = stand.oldest.max(if follows { after.offset + 1 } else { 1 });
        let skip = usize::try_from(first - stand.oldest).unwrap();
        Page { stand, first, messages: self.kept.iter().skip(skip).take(PAGE).cloned().collect() }
    }

    fn fill(&mut self) {
        if !self.filling {
            return;
        }
        self.fill = match self.fill.take() {
            None => Some(Reading::From(self.ring.begin_fill())),
            Some(Reading::From(from)) => Some(Reading::Answered(self.page(from))),
            Some(Reading::Answered(page)) => {
                self.filling = !self.ring.fill(&page);
                None
            }
        };
    }

    fn begin(&mut self, wanted: Wanted) {
        let mut cursor = Cursor::nowhere(self.ring.losses());
        let start = match wanted {
            Wanted::Latest => Start::Latest,
            Wanted::Everything => Start::After(Position::default()),
            Wanted::Elsewhere => Start::Elsewhere,
            Wanted::Last(last) => Start::Last(last),
            Wanted::Resume(reader) => Start::After(self.readers.get(reader).map_or(self.head, |it| it.cursor.position)),
        };
        let reset = cursor.begin(&self.channel, start, &self.stand());
        let start = Some(match start {
            Start::Elsewhere => ("elsewhere".to_owned(), 7),
            Start::After(asked) => (text(asked.epoch), asked.offset),
            Start::Latest | Start::Last(_) => (text(cursor.position.epoch), cursor.position.offset),
        });
        let account = Account { since: self.ledger.acks.len(), start, told: Vec::new() };
        let mut reader = Reader { cursor, reading: None, account };
        reader.note(reset);
        self.readers.push(reader);
    }

    fn read(&mut self, number: usize) {
        match self.readers[number].reading.take() {
            None => {
                let reader = &mut self.readers[number];
                match self.ring.take(reader.cursor.position, reader.cursor.losses) {
                    Taken::Behind => reader.reading = Some(Reading::From(reader.cursor.position)),
                    Taken::Nothing => {
                        let caught_up = reader.cursor.caught_up(&self.channel);
                        reader.note(caught_up);
                    }
                    Taken::Messages { epoch, messages, .. } => {
                        let caught_up = reader.cursor.caught_up(&self.channel);
                        reader.note(caught_up);
                        let before = Position { epoch, offset: reader.cursor.position.offset };
                        reader.note_messages(before, &messages);
                        reader.cursor.position = Position { epoch, offset: before.offset + count(messages.len()) };
                        let caught_up = reader.cursor.caught_up(&self.channel);
                        reader.note(caught_up);
                    }
                }
            }
            Some(Reading::From(after)) => self.readers[number].reading = Some(Reading::Answered(self.page(after))),
            Some(Reading::Answered(page)) => {
                let present = (self.ring.head(), self.ring.losses());
                let reader = &mut self.readers[number];
                let told = reader.cursor.meet(&self.channel, &page, present);
                self.filling |= told.is_empty();
                for frame in told {
                    match frame {
                        Frame::Messages(messages) => {
                            let before = Position { epoch: page.stand.head.epoch, offset: page.first - 1 };
                            reader.note_messages(before, &messages);
                        }
                        other => reader.note(Some(other)),
                    }
                }
            }
        }
    }

    /// Lets everything come to rest, twice, and judges every reader: what may have come and gone unheard while there
    /// was no epoch is said with the next message.
    fn judge(&mut self) -> Result<(), String> {
        self.rest();
        self.publish();
        self.rest();
        if self.ring.head() != self.head {
            return Err(format!("the ring is at {:?}, the channel at {:?}", self.ring.head(), self.head));
        }
        let end = (text(self.head.epoch), self.head.offset);
        self.readers.iter().try_for_each(|reader| {
            let judged = self.ledger.judge(&reader.account, (&end.0, end.1));
            judged.map_err(|error| format!("{error}\n{:#?}\n{:?}", reader.account, self.ledger))
        })
    }

    fn rest(&mut self) {
        self.go(Step::Rejoin);
        for _ in 0..50 {
            self.go(Step::Hear);
            self.go(Step::Compare);
            (0..3).for_each(|_| self.fill());
            (0..self.readers.len()).for_each(|number| (0..3).for_each(|_| self.read(number)));
        }
    }
}

impl Reader {
    fn note(&mut self, frame: Option<Frame>) {
        self.account.told.extend(frame.map(|frame| match frame {
            Frame::CaughtUp { position, .. } => Told::CaughtUp { epoch: text(position.epoch), head: position.offset },
            Frame::Gap { epoch, first, last, .. } => Told::Gap { epoch: text(epoch), first, last },
            Frame::Reset { head, .. } => Told::Reset { epoch: text(head.epoch), head: head.offset },
            other => panic!("{other:?}"),
        }));
    }

    fn note_messages(&mut self, before: Position, messages: &[Bytes]) {
        let epoch = text(before.epoch);
        self.account.told.extend(messages.iter().zip(before.offset + 1..).map(|(message, offset)| Told::Message {
            epoch: epoch.clone(),
            offset,
            text: String::from_utf8(message.to_vec()).unwrap(),
        }));
    }
}

fn text(epoch: Option<Epoch>) -> String {
    epoch.map(|epoch| epoch.to_string()).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..Default::default() })]

    #[test]
    fn whatever_is_lost_or_late_every_reader_is_told_exactly(steps in vec(step(), 0..200)) {
        let mut world = World::new();
        for step in steps {
            world.go(step);
        }
        prop_assert_eq!(world.judge(), Ok(()));
    }
}
