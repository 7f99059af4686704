//! Each conversation, read page by page from both ends, equals its file line by line.

use std::collections::HashSet;
use std::fmt::Display;

use tidings_proto::history::conversation::Kind;
use tidings_proto::history::list_messages_request::Anchor;
use tidings_proto::history::read_info::Source;
use tidings_proto::history::{self as pb, ListMessagesRequest, ListMessagesResponse, ReadInfo};

use crate::replay::difference::Difference;
use crate::replay::findings::{Findings, Tally};
use crate::replay::plan::{Conversation, Message};
use crate::replay::progress::Done;
use crate::replay::services::{Error, Services};

/// Compares one conversation: as a whole, from its first message on, and from its newest back.
pub(in crate::replay) async fn check(
    services: &Services,
    sent: &Conversation,
    page_size: i32,
    done: &Done,
) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let last_seq = whole(services, sent, &mut findings).await?;
    // A cache may lag behind what was acknowledged elsewhere; `min_seq` makes the reading exact. Asking for more than
    // is there would be refused, and would hide which message is missing.
    let min_seq = last_seq.min(sent.last_seq());
    for direction in [Direction::Forwards, Direction::Backwards] {
        let request = ListMessagesRequest {
            conversation_id: sent.id.clone(),
            anchor: (direction == Direction::Forwards).then_some(Anchor::AfterSeq(0)),
            page_size,
            min_seq,
            ..Default::default()
        };
        let reading = Reading::new(sent, direction);
        findings.add(reading.run(services, request, done).await?);
    }
    Ok(findings)
}

/// Compares what a conversation says of itself. Returns the number of its newest message.
async fn whole(services: &Services, sent: &Conversation, findings: &mut Findings) -> Result<i64, Error> {
    let shown =
        |kind: Kind, title: &str, last_seq: i64| format!("{} {title:?} with last_seq {last_seq}", kind.as_str_name());
    let expected = shown(Kind::Open, &sent.title, sent.last_seq());
    let (read, last_seq) = match services.conversation(&sent.id).await {
        Ok(read) => (shown(read.kind(), &read.title, read.last_seq), read.last_seq),
        Err(error) => (error.contradiction().map(ToString::to_string).ok_or(error)?, 0),
    };
    if read != expected {
        let difference = Difference::conversation(sent, "conversation", expected, read);
        findings.differ(Some(difference.during("read as a whole")));
    }
    Ok(last_seq)
}

/// From which end a conversation is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forwards,
    Backwards,
}

/// One reading of a conversation from one end to the other.
#[derive(Debug)]
struct Reading<'a> {
    sent: &'a Conversation,
    direction: Direction,
    read: usize,
    names: HashSet<(String, String)>,
    tally: Tally,
    first: Option<Difference>,
}

impl<'a> Reading<'a> {
    fn new(sent: &'a Conversation, direction: Direction) -> Self {
        Self { sent, direction, read: 0, names: HashSet::new(), tally: Tally::default(), first: None }
    }

    /// Reads page by page, beginning with the one that `request` asks for, and goes on after a difference to count what
    /// is lost and doubled. A service that never comes to an end is left a page after its end should have come.
    async fn run(
        mut self,
        services: &Services,
        mut request: ListMessagesRequest,
        done: &Done,
    ) -> Result<Findings, Error> {
        while self.read <= self.sent.messages.len() {
            let page = match services.messages(&request).await {
                Ok(page) => page,
                Err(error) => {
                    let failure = error.contradiction().map(ToString::to_string).ok_or(error)?;
                    self.differ("page", "messages", failure);
                    break;
                }
            };
            done.add(page.messages.len());
            let empty = page.messages.is_empty();
            if empty && !request.page_token.is_empty() {
                self.differ("page", "messages, as the token of the page before says", "none");
            }
            request.anchor = None;
            request.page_token = self.page(page);
            if empty || request.page_token.is_empty() {
                break;
            }
        }
        Ok(self.finish())
    }

    /// Compares a page. Returns the token of the next one.
    fn page(&mut self, page: ListMessagesResponse) -> String {
        self.tally.read_back += page.messages.len();
        match page.read_info.as_ref().map(ReadInfo::source) {
            Some(Source::Near | Source::Redis) => self.tally.pages_redis += 1,
            Some(Source::Postgres) => self.tally.pages_postgres += 1,
            Some(Source::Unspecified) | None => {}
        }
        let mut messages = page.messages;
        let token = match self.direction {
            Direction::Forwards => page.newer_page_token,
            Direction::Backwards => {
                messages.reverse();
                page.older_page_token
            }
        };
        for message in messages {
            self.compare(Some(&message));
            self.read += 1;
            self.names.insert((message.sender_id, message.client_message_id));
        }
        if page.last_seq != self.sent.last_seq() {
            self.differ("last_seq", self.sent.last_seq(), page.last_seq);
        }
        token
    }

    /// The message that must be read next.
    fn expected(&self) -> Option<&'a Message> {
        let messages = &self.sent.messages;
        match self.direction {
            Direction::Forwards => messages.get(self.read),
            Direction::Backwards => messages.get(messages.len().checked_sub(self.read + 1)?),
        }
    }

    fn compare(&mut self, read: Option<&pb::Message>) {
        if self.first.is_none() {
            self.first = Difference::find(self.sent, self.expected(), read);
        }
    }

    fn differ(&mut self, field: &'static str, expected: impl Display, read: impl Display) {
        if self.first.is_none() {
            self.first = Some(Difference::conversation(self.sent, field, expected, read));
        }
    }

    /// Compares the end and counts.
    fn finish(mut self) -> Findings {
        self.compare(None);
        let Self { sent, direction, read, names, mut tally, first } = self;
        let during = match direction {
            Direction::Forwards => "read forwards",
            Direction::Backwards => "read backwards",
        };
        if direction == Direction::Forwards {
            let name =
                |message: &Message| (message.request.sender_id.clone(), message.request.client_message_id.clone());
            let present = sent.messages.iter().filter(|message| names.contains(&name(message))).count();
            tally.lost = sent.messages.len() - present;
            tally.doubled = read - present;
        }
        let mut findings = Findings { tally, ..Findings::default() };
        findings.differ(first.map(|difference| difference.during(during)));
        findings
    }
}
