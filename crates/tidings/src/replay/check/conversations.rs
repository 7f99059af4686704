//! Checks that each conversation, read page by page from both ends, equals its file line by line.

use std::collections::HashSet;
use std::fmt::Display;

use tidings_proto::history::conversation::Kind;
use tidings_proto::history::list_messages_request::Anchor;
use tidings_proto::history::read_info::Source;
use tidings_proto::history::{self as pb, ListMessagesRequest, ListMessagesResponse, ReadInfo};

use crate::replay::clients::{Error, ServiceClients};
use crate::replay::difference::Difference;
use crate::replay::findings::{ReplayCounts, ReplayFindings};
use crate::replay::plan::{PlannedConversation, PlannedMessage};
use crate::replay::progress::DoneCount;

/// Compares the fields of one conversation, then its messages forwards and backwards.
pub(in crate::replay) async fn check(
    clients: &ServiceClients,
    sent: &PlannedConversation,
    page_size: i32,
    done: &DoneCount,
) -> Result<ReplayFindings, Error> {
    let mut findings = ReplayFindings::default();
    let last_seq = check_fields(clients, sent, &mut findings).await?;
    // A cache may lag behind an append acknowledged by another instance; `min_seq` makes the read
    // exact. A `min_seq` above the stored `last_seq` would be refused and hide the missing message.
    let min_seq = last_seq.min(sent.last_seq());
    for direction in [Direction::Forwards, Direction::Backwards] {
        let request = ListMessagesRequest {
            conversation_id: sent.id.clone(),
            anchor: (direction == Direction::Forwards).then_some(Anchor::AfterSeq(0)),
            page_size,
            min_seq,
            ..Default::default()
        };
        let pass = ReadPass::new(sent, direction);
        findings.add(pass.run(clients, request, done).await?);
    }
    Ok(findings)
}

/// Compares the fields of a conversation. Returns the seq of its newest message.
async fn check_fields(
    clients: &ServiceClients,
    sent: &PlannedConversation,
    findings: &mut ReplayFindings,
) -> Result<i64, Error> {
    let text =
        |kind: Kind, title: &str, last_seq: i64| format!("{} {title:?} with last_seq {last_seq}", kind.as_str_name());
    let expected = text(Kind::Open, &sent.title, sent.last_seq());
    let (read, last_seq) = match clients.conversation(&sent.id).await {
        Ok(read) => (text(read.kind(), &read.title, read.last_seq), read.last_seq),
        Err(error) => (error.precondition_failure().map(ToString::to_string).ok_or(error)?, 0),
    };
    if read != expected {
        let difference = Difference::conversation(sent, "conversation", expected, read);
        findings.record(Some(difference.in_phase("read by GetConversation")));
    }
    Ok(last_seq)
}

/// Direction in which a conversation is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forwards,
    Backwards,
}

/// One read of a conversation from one end to the other.
#[derive(Debug)]
struct ReadPass<'a> {
    sent: &'a PlannedConversation,
    direction: Direction,
    read: usize,
    /// Sender and client message id of each message read.
    ids: HashSet<(String, String)>,
    counts: ReplayCounts,
    first: Option<Difference>,
}

impl<'a> ReadPass<'a> {
    fn new(sent: &'a PlannedConversation, direction: Direction) -> Self {
        Self { sent, direction, read: 0, ids: HashSet::new(), counts: ReplayCounts::default(), first: None }
    }

    /// Reads page by page from `request` on. Continues after a difference, to count lost and
    /// duplicated messages. Against a service whose pages never end, stops at the first page beyond
    /// the expected end.
    async fn run(
        mut self,
        clients: &ServiceClients,
        mut request: ListMessagesRequest,
        done: &DoneCount,
    ) -> Result<ReplayFindings, Error> {
        while self.read <= self.sent.messages.len() {
            let page = match clients.messages(&request).await {
                Ok(page) => page,
                Err(error) => {
                    let failure = error.precondition_failure().map(ToString::to_string).ok_or(error)?;
                    self.record("page", "messages", failure);
                    break;
                }
            };
            done.add(page.messages.len());
            let empty = page.messages.is_empty();
            if empty && !request.page_token.is_empty() {
                self.record("page", "messages, because the previous page had a page token", "none");
            }
            request.anchor = None;
            request.page_token = self.page(page);
            if empty || request.page_token.is_empty() {
                break;
            }
        }
        Ok(self.finish())
    }

    /// Compares a page. Returns the token of the next page.
    fn page(&mut self, page: ListMessagesResponse) -> String {
        self.counts.read_back += page.messages.len();
        match page.read_info.as_ref().map(ReadInfo::source) {
            Some(Source::LocalCache | Source::Redis) => self.counts.pages_redis += 1,
            Some(Source::Postgres) => self.counts.pages_postgres += 1,
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
            self.ids.insert((message.sender_id, message.client_message_id));
        }
        if page.last_seq != self.sent.last_seq() {
            self.record("last_seq", self.sent.last_seq(), page.last_seq);
        }
        token
    }

    /// Returns the next expected message.
    fn expected(&self) -> Option<&'a PlannedMessage> {
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

    fn record(&mut self, field: &'static str, expected: impl Display, read: impl Display) {
        if self.first.is_none() {
            self.first = Some(Difference::conversation(self.sent, field, expected, read));
        }
    }

    /// Checks that no expected message is left, and counts lost and duplicated messages.
    fn finish(mut self) -> ReplayFindings {
        self.compare(None);
        let Self { sent, direction, read, ids, mut counts, first } = self;
        let phase = match direction {
            Direction::Forwards => "read forwards",
            Direction::Backwards => "read backwards",
        };
        if direction == Direction::Forwards {
            let id = |message: &PlannedMessage| {
                (message.request.sender_id.clone(), message.request.client_message_id.clone())
            };
            let present = sent.messages.iter().filter(|message| ids.contains(&id(message))).count();
            counts.lost = sent.messages.len() - present;
            counts.duplicated = read - present;
        }
        let mut findings = ReplayFindings { counts, ..ReplayFindings::default() };
        findings.record(first.map(|difference| difference.in_phase(phase)));
        findings
    }
}
