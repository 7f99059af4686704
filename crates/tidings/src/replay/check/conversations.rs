//! Each conversation, read page by page from both ends, equals its file line by line.

use std::collections::HashSet;

use tidings_proto::history::list_messages_request::Anchor;
use tidings_proto::history::read_info::Source;
use tidings_proto::history::{ListMessagesRequest, ListMessagesResponse, conversation::Kind};

use crate::replay::difference::Difference;
use crate::replay::findings::{Findings, Tally};
use crate::replay::import::Sent;
use crate::replay::progress::Done;
use crate::replay::retry::Error;
use crate::replay::services::Services;

/// From which end a conversation is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forwards,
    Backwards,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Forwards => "read forwards",
            Self::Backwards => "read backwards",
        }
    }
}

/// Compares one conversation.
pub(in crate::replay) async fn check(
    services: &Services,
    sent: Sent<'_>,
    page_size: i32,
    done: &Done,
) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let Sent { conversation, messages } = sent;
    let last_seq = match services.conversation(&conversation.id).await {
        Ok(read) => {
            let expected = (Kind::Open, conversation.title.as_str(), messages.len() as i64);
            let read = (read.kind(), read.title.as_str(), read.last_seq);
            if expected != read {
                let [expected, read] = [expected, read].map(|(kind, title, seq)| {
                    format!("{} {title:?} with last_seq {seq}", kind.as_str_name())
                });
                let difference = Difference::conversation(conversation, "conversation", expected, read);
                findings.differ(Some(difference.during("read as a whole")));
            }
            read.2
        }
        Err(error) => {
            let failure = error.contradiction().map(ToString::to_string).ok_or(error)?;
            let difference = Difference::conversation(conversation, "conversation", &conversation.title, failure);
            findings.differ(Some(difference.during("read as a whole")));
            0
        }
    };
    // A cache may lag behind what was acknowledged elsewhere; `min_seq` makes the reading exact. Asking for more than
    // is there would be refused, and would hide which message is missing.
    let min_seq = last_seq.min(messages.len() as i64);
    for direction in [Direction::Forwards, Direction::Backwards] {
        let first = ListMessagesRequest {
            conversation_id: conversation.id.clone(),
            anchor: (direction == Direction::Forwards).then_some(Anchor::AfterSeq(0)),
            page_size,
            min_seq,
            ..Default::default()
        };
        findings.add(read(services, sent, direction, first, done).await?);
    }
    Ok(findings)
}

/// Reads from one end to the other, beginning with the page `request`.
async fn read(
    services: &Services,
    sent: Sent<'_>,
    direction: Direction,
    mut request: ListMessagesRequest,
    done: &Done,
) -> Result<Findings, Error> {
    let Sent { conversation, messages } = sent;
    let mut findings = Findings::default();
    let mut read = 0;
    let mut seen = HashSet::new();
    let mut first = None;
    // A service that never comes to an end is stopped a page after its end should have come.
    while read <= messages.len() {
        let page = match services.messages(&request).await {
            Ok(page) => page,
            Err(error) => {
                let failure = error.contradiction().map(ToString::to_string).ok_or(error)?;
                first.get_or_insert(Difference::conversation(conversation, "page", "messages", failure));
                break;
            }
        };
        count(&page, &mut findings.tally);
        done.add(page.messages.len());
        let token = if direction == Direction::Forwards { page.newer_page_token } else { page.older_page_token };
        if page.last_seq != messages.len() as i64 && first.is_none() {
            first = Some(Difference::conversation(conversation, "last_seq", messages.len(), page.last_seq));
        }
        if page.messages.is_empty() && !request.page_token.is_empty() && first.is_none() {
            first = Some(Difference::conversation(conversation, "page", "messages, as the token says", "none"));
        }
        let mut page = page.messages;
        let empty = page.is_empty();
        if direction == Direction::Backwards {
            page.reverse();
        }
        for message in page {
            let expected = match direction {
                Direction::Forwards => messages.get(read),
                Direction::Backwards => messages.len().checked_sub(read + 1).map(|place| &messages[place]),
            };
            first = first.or_else(|| Difference::find(conversation, expected, Some(&message)));
            read += 1;
            seen.insert((message.sender_id, message.client_message_id));
        }
        if token.is_empty() || empty {
            break;
        }
        request.anchor = None;
        request.page_token = token;
    }
    if read < messages.len() && first.is_none() {
        let missing = if direction == Direction::Forwards { read } else { messages.len() - read - 1 };
        first = Difference::find(conversation, Some(&messages[missing]), None);
    }
    if direction == Direction::Forwards {
        let key = |request: &tidings_proto::history::AppendMessageRequest| {
            (request.sender_id.clone(), request.client_message_id.clone())
        };
        let present = messages.iter().filter(|message| seen.contains(&key(&message.request))).count();
        findings.tally.lost = messages.len() - present;
        findings.tally.doubled = read - present;
    }
    findings.differ(first.map(|difference| difference.during(direction.name())));
    Ok(findings)
}

fn count(page: &ListMessagesResponse, tally: &mut Tally) {
    tally.read_back += page.messages.len();
    match page.read_info.as_ref().map_or(Source::Unspecified, |info| info.source()) {
        Source::Near | Source::Redis => tally.pages_redis += 1,
        Source::Postgres => tally.pages_postgres += 1,
        Source::Unspecified => {}
    }
}
