//! Validation of the reading RPCs, and their pages.

use prost::Message as _;
use tidings_proto::history as pb;
use tidings_server::page_token;
use tidings_status::{Fields, Invalid};

use super::DOMAIN;
use crate::model::{Anchor, AuthoredCursor, ConversationId, ConversationNo, Message, MessagePage, PageSize, UserId};

/// Maximum number of messages in a page.
const PAGE_MAX: i32 = 200;
/// Default number of messages in a page.
const PAGE_DEFAULT: i32 = 50;
/// Maximum size of the messages in a page, in bytes: 3.5 MiB, below the 4 MiB limit of a response.
const BYTES_MAX: i32 = 3_670_016;
/// Default size of the messages in a page, in bytes.
const BYTES_DEFAULT: i32 = 1024 * 1024;

/// Kinds of page tokens: the kind is part of the encoded token.
const OLDER: u8 = 1;
const NEWER: u8 = 2;
const AUTHORED: u8 = 3;

/// A validated ListMessages request.
#[derive(Debug)]
pub struct ListMessagesQuery {
    /// Conversation to read.
    pub conversation: ConversationId,
    /// Position of the page.
    pub anchor: Anchor,
    /// Limits of the page.
    pub size: PageSize,
    /// Seq that the state behind the page must include; 0 for any state.
    pub min_seq: i64,
}

/// A validated ListUserMessages request.
#[derive(Debug)]
pub struct ListUserMessagesQuery {
    /// User whose messages are listed.
    pub user: UserId,
    /// Cursor after which the page begins; `None`: begin with the newest message.
    pub after: Option<AuthoredCursor>,
    /// Limits of the page.
    pub size: PageSize,
}

/// Validates a request of GetMessage, and converts it into the model.
pub fn get(request: pb::GetMessageRequest) -> Result<(ConversationId, i64), Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("conversation_id", &request.conversation_id);
    fields.require("seq", request.seq >= 1, "expected 1 or more");
    fields.finish()?;
    Ok((ConversationId::new(request.conversation_id), request.seq))
}

/// Validates a request of ListMessages, and converts it into the model.
pub fn list(request: pb::ListMessagesRequest) -> Result<ListMessagesQuery, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("conversation_id", &request.conversation_id);
    fields.not_negative("min_seq", request.min_seq);
    let size = page_size(&mut fields, request.page_size, request.max_bytes);
    let anchor = anchor(&mut fields, &request);
    fields.finish()?;
    Ok(ListMessagesQuery {
        conversation: ConversationId::new(request.conversation_id),
        anchor,
        size,
        min_seq: request.min_seq,
    })
}

/// Validates a request of ListUserMessages, and converts it into the model.
pub fn list_authored(request: pb::ListUserMessagesRequest) -> Result<ListUserMessagesQuery, Invalid> {
    use pb::list_user_messages_request::Scope;
    let mut fields = Fields::new(DOMAIN);
    fields.id("user_id", &request.user_id);
    let scope = Scope::try_from(request.scope);
    fields.require(
        "scope",
        matches!(scope, Ok(Scope::Unspecified | Scope::Authored)),
        "expected SCOPE_AUTHORED (1); other scopes are not supported yet",
    );
    let size = page_size(&mut fields, request.page_size, request.max_bytes);
    let after = (!request.page_token.is_empty()).then(|| {
        let parts: Option<[i64; 3]> = page_token::decode(AUTHORED, &request.user_id, &request.page_token);
        fields.require("page_token", parts.is_some(), "expected a next_page_token from a list of this user");
        let [micros, conversation, seq] = parts.unwrap_or_default();
        AuthoredCursor { micros, conversation: ConversationNo::new(conversation), seq }
    });
    fields.finish()?;
    Ok(ListUserMessagesQuery { user: UserId::new(request.user_id), after, size })
}

fn anchor(fields: &mut Fields, request: &pb::ListMessagesRequest) -> Anchor {
    use pb::list_messages_request::Anchor as RequestedAnchor;
    let list = &request.conversation_id;
    if !request.page_token.is_empty() {
        fields.require("page_token", request.anchor.is_none(), "expected no anchor together with a page_token");
        let older: Option<[i64; 1]> = page_token::decode(OLDER, list, &request.page_token);
        let older = older.filter(|[seq]| *seq >= 1).map(|[seq]| Anchor::Before(seq));
        let newer: Option<[i64; 1]> = page_token::decode(NEWER, list, &request.page_token);
        let newer = newer.map(|[seq]| Anchor::After(seq));
        fields.require("page_token", older.or(newer).is_some(), "expected a page token of this conversation");
        return older.or(newer).unwrap_or(Anchor::Newest);
    }
    match request.anchor {
        None => Anchor::Newest,
        Some(RequestedAnchor::AfterSeq(seq)) => {
            fields.not_negative("after_seq", seq);
            Anchor::After(seq)
        }
        Some(RequestedAnchor::BeforeSeq(seq)) => {
            fields.require("before_seq", seq >= 1, "expected 1 or more");
            Anchor::Before(seq)
        }
        Some(RequestedAnchor::AroundSeq(seq)) => {
            fields.require("around_seq", seq >= 1, "expected 1 or more");
            Anchor::Around(seq)
        }
    }
}

fn page_size(fields: &mut Fields, messages: i32, bytes: i32) -> PageSize {
    fields.within_range("page_size", &messages, &(0..=PAGE_MAX));
    fields.within_range("max_bytes", &bytes, &(0..=BYTES_MAX));
    let or_default =
        |value: i32, default| usize::try_from(if value == 0 { default } else { value }).unwrap_or_default();
    PageSize { messages: or_default(messages, PAGE_DEFAULT), bytes: or_default(bytes, BYTES_DEFAULT) }
}

/// Builds a page of a conversation, trimmed to its maximum size at the end far from its anchor.
pub fn page(query: &ListMessagesQuery, page: MessagePage) -> pb::ListMessagesResponse {
    let mut messages: Vec<pb::Message> = page.messages.into_iter().map(super::message).collect();
    trim_to_bytes(&mut messages, query.anchor, query.size.bytes);
    let name = query.conversation.as_str();
    let before_page = seq_before_empty_page(query.anchor).min(page.last_seq);
    let first = messages.first().map_or(before_page + 1, |message| message.seq);
    let last = messages.last().map_or(before_page, |message| message.seq);
    let older = (first > 1).then(|| page_token::encode(OLDER, name, &[first]));
    let newer = (last < page.last_seq).then(|| page_token::encode(NEWER, name, &[last]));
    pb::ListMessagesResponse {
        messages,
        older_page_token: older.unwrap_or_default(),
        newer_page_token: newer.unwrap_or_default(),
        last_seq: page.last_seq,
        read_info: Some(super::read_info(page.source, page.stale)),
    }
}

/// Returns the seq after which an empty page is positioned.
fn seq_before_empty_page(anchor: Anchor) -> i64 {
    match anchor {
        Anchor::Newest => 0,
        Anchor::After(seq) => seq,
        Anchor::Before(seq) | Anchor::Around(seq) => seq - 1,
    }
}

/// Builds a page of a user's messages. `messages` has one message more than the page if another
/// page follows.
pub fn authored_page(
    query: &ListUserMessagesQuery,
    messages: Vec<(Message, AuthoredCursor)>,
) -> pb::ListUserMessagesResponse {
    let more = messages.len() > query.size.messages;
    let (mut messages, cursors): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .take(query.size.messages)
        .map(|(message, cursor)| (super::message(message), cursor))
        .unzip();
    let all = messages.len();
    trim_to_bytes(&mut messages, Anchor::After(0), query.size.bytes);
    let next = cursors.get(messages.len().wrapping_sub(1)).filter(|_| more || messages.len() < all);
    let token = next.map(|next| {
        page_token::encode(AUTHORED, query.user.as_str(), &[next.micros, next.conversation.get(), next.seq])
    });
    pb::ListUserMessagesResponse { messages, next_page_token: token.unwrap_or_default() }
}

/// Trims a page to `bytes`, at the end far from its anchor; at least one message remains.
fn trim_to_bytes(messages: &mut Vec<pb::Message>, anchor: Anchor, bytes: usize) {
    let mut total: usize = messages.iter().map(prost::Message::encoded_len).sum();
    let (mut from, mut to) = (0, messages.len());
    while total > bytes && to - from > 1 {
        let trim_front = match anchor {
            Anchor::Newest | Anchor::Before(_) => true,
            Anchor::After(_) => false,
            Anchor::Around(seq) => seq - messages[from].seq > messages[to - 1].seq - seq,
        };
        if trim_front {
            total -= messages[from].encoded_len();
            from += 1;
        } else {
            to -= 1;
            total -= messages[to].encoded_len();
        }
    }
    messages.truncate(to);
    messages.drain(..from);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(seqs: std::ops::RangeInclusive<i64>) -> Vec<pb::Message> {
        seqs.map(|seq| pb::Message { seq, sender_id: "x".repeat(98), ..Default::default() }).collect()
    }

    fn trimmed(anchor: Anchor, bytes: usize) -> Vec<i64> {
        let mut page = messages(11..=20); // 102 bytes each
        trim_to_bytes(&mut page, anchor, bytes);
        page.iter().map(|message| message.seq).collect()
    }

    #[test]
    fn a_page_is_trimmed_at_the_end_far_from_its_anchor() {
        assert_eq!(trimmed(Anchor::Newest, 306), [18, 19, 20]);
        assert_eq!(trimmed(Anchor::Before(21), 306), [18, 19, 20]);
        assert_eq!(trimmed(Anchor::After(10), 306), [11, 12, 13]);
        assert_eq!(trimmed(Anchor::Around(15), 306), [14, 15, 16]);
        assert_eq!(trimmed(Anchor::Around(20), 306), [18, 19, 20]);
    }

    #[test]
    fn at_least_one_message_is_returned_however_large() {
        assert_eq!(trimmed(Anchor::Newest, 1), [20]);
        assert_eq!(trimmed(Anchor::After(10), 1), [11]);
        assert_eq!(trimmed(Anchor::Around(15), 1), [15]);
    }
}
