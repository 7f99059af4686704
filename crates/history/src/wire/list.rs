//! Checks of the reading RPCs, and their pages.

use prost::Message as _;
use tidings_proto::history as pb;
use tidings_server::page_token;
use tidings_status::{Fields, Invalid};

use super::DOMAIN;
use crate::model::{Anchor, AuthoredCursor, ConversationId, ConversationNo, Message, Page, PageSize, UserId};

const PAGE_MAX: i32 = 200;
const PAGE_DEFAULT: i32 = 50;
const BYTES_MAX: i32 = 3_670_016;
const BYTES_DEFAULT: i32 = 1024 * 1024;

/// Kinds of tokens.
const OLDER: u8 = 1;
const NEWER: u8 = 2;
const AUTHORED: u8 = 3;

/// A checked ListMessages.
#[derive(Debug)]
pub struct List {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// Where the page is.
    pub anchor: Anchor,
    /// How large it may be.
    pub size: PageSize,
    /// What the answer must know of at least.
    pub min_seq: i64,
}

/// A checked ListUserMessages.
#[derive(Debug)]
pub struct ListAuthored {
    /// Whose messages.
    pub user: UserId,
    /// Where the page begins; `None`: at the newest.
    pub after: Option<AuthoredCursor>,
    /// How large it may be.
    pub size: PageSize,
}

/// Checks GetMessage.
pub fn get(request: pb::GetMessageRequest) -> Result<(ConversationId, i64), Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("conversation_id", &request.conversation_id);
    fields.require("seq", request.seq >= 1, "expected 1 or more");
    fields.finish()?;
    Ok((ConversationId::new(request.conversation_id), request.seq))
}

/// Checks ListMessages.
pub fn list(request: pb::ListMessagesRequest) -> Result<List, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("conversation_id", &request.conversation_id);
    fields.not_negative("min_seq", request.min_seq);
    let size = page_size(&mut fields, request.page_size, request.max_bytes);
    let anchor = anchor(&mut fields, &request);
    fields.finish()?;
    Ok(List { conversation: ConversationId::new(request.conversation_id), anchor, size, min_seq: request.min_seq })
}

/// Checks ListUserMessages.
pub fn list_authored(request: pb::ListUserMessagesRequest) -> Result<ListAuthored, Invalid> {
    use pb::list_user_messages_request::Scope;
    let mut fields = Fields::new(DOMAIN);
    fields.id("user_id", &request.user_id);
    let scope = Scope::try_from(request.scope);
    fields.require(
        "scope",
        matches!(scope, Ok(Scope::Unspecified | Scope::Authored)),
        "expected SCOPE_AUTHORED (1); members are not kept yet",
    );
    let size = page_size(&mut fields, request.page_size, request.max_bytes);
    let after = (!request.page_token.is_empty()).then(|| {
        let numbers: Option<[i64; 3]> = page_token::decode(AUTHORED, &request.user_id, &request.page_token);
        fields.require("page_token", numbers.is_some(), "expected a next_page_token of this user's list");
        let [micros, conversation, seq] = numbers.unwrap_or_default();
        AuthoredCursor { micros, conversation: ConversationNo::new(conversation), seq }
    });
    fields.finish()?;
    Ok(ListAuthored { user: UserId::new(request.user_id), after, size })
}

fn anchor(fields: &mut Fields, request: &pb::ListMessagesRequest) -> Anchor {
    use pb::list_messages_request::Anchor as Asked;
    let list = &request.conversation_id;
    if !request.page_token.is_empty() {
        fields.require("page_token", request.anchor.is_none(), "expected no anchor besides");
        let older: Option<[i64; 1]> = page_token::decode(OLDER, list, &request.page_token);
        let older = older.filter(|[seq]| *seq >= 1).map(|[seq]| Anchor::Before(seq));
        let newer: Option<[i64; 1]> = page_token::decode(NEWER, list, &request.page_token);
        let newer = newer.map(|[seq]| Anchor::After(seq));
        fields.require("page_token", older.or(newer).is_some(), "expected a token of this conversation's pages");
        return older.or(newer).unwrap_or(Anchor::Newest);
    }
    match request.anchor {
        None => Anchor::Newest,
        Some(Asked::AfterSeq(seq)) => {
            fields.not_negative("after_seq", seq);
            Anchor::After(seq)
        }
        Some(Asked::BeforeSeq(seq)) => {
            fields.require("before_seq", seq >= 1, "expected 1 or more");
            Anchor::Before(seq)
        }
        Some(Asked::AroundSeq(seq)) => {
            fields.require("around_seq", seq >= 1, "expected 1 or more");
            Anchor::Around(seq)
        }
    }
}

fn page_size(fields: &mut Fields, messages: i32, bytes: i32) -> PageSize {
    fields.within_range("page_size", &messages, &(0..=PAGE_MAX));
    fields.within_range("max_bytes", &bytes, &(0..=BYTES_MAX));
    let or = |value: i32, default| usize::try_from(if value == 0 { default } else { value }).unwrap_or_default();
    PageSize { messages: or(messages, PAGE_DEFAULT), bytes: or(bytes, BYTES_DEFAULT) }
}

/// A page of a conversation as the contract has it, cut to its bytes at the end that is away from its anchor.
pub fn page(asked: &List, page: Page) -> pb::ListMessagesResponse {
    let mut messages: Vec<pb::Message> = page.messages.into_iter().map(super::message).collect();
    cut(&mut messages, asked.anchor, asked.size.bytes);
    let name = asked.conversation.as_str();
    let nothing = place(asked.anchor).min(page.last_seq);
    let first = messages.first().map_or(nothing + 1, |message| message.seq);
    let last = messages.last().map_or(nothing, |message| message.seq);
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

/// The number that a page without messages comes right after.
fn place(anchor: Anchor) -> i64 {
    match anchor {
        Anchor::Newest => 0,
        Anchor::After(seq) => seq,
        Anchor::Before(seq) | Anchor::Around(seq) => seq - 1,
    }
}

/// A page of a user's messages as the contract has it. `found` has one message more than the page, if there is one.
pub fn authored_page(asked: &ListAuthored, found: Vec<(Message, AuthoredCursor)>) -> pb::ListUserMessagesResponse {
    let more = found.len() > asked.size.messages;
    let (mut messages, cursors): (Vec<_>, Vec<_>) =
        found.into_iter().take(asked.size.messages).map(|(message, cursor)| (super::message(message), cursor)).unzip();
    let all = messages.len();
    cut(&mut messages, Anchor::After(0), asked.size.bytes);
    let next = cursors.get(messages.len().wrapping_sub(1)).filter(|_| more || messages.len() < all);
    let token = next.map(|next| {
        page_token::encode(AUTHORED, asked.user.as_str(), &[next.micros, next.conversation.get(), next.seq])
    });
    pb::ListUserMessagesResponse { messages, next_page_token: token.unwrap_or_default() }
}

/// Cuts a page to its bytes, but for one message.
fn cut(messages: &mut Vec<pb::Message>, anchor: Anchor, bytes: usize) {
    let mut total: usize = messages.iter().map(prost::Message::encoded_len).sum();
    let (mut from, mut to) = (0, messages.len());
    while total > bytes && to - from > 1 {
        let from_the_front = match anchor {
            Anchor::Newest | Anchor::Before(_) => true,
            Anchor::After(_) => false,
            Anchor::Around(seq) => seq - messages[from].seq > messages[to - 1].seq - seq,
        };
        if from_the_front {
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

    fn kept(anchor: Anchor, bytes: usize) -> Vec<i64> {
        let mut page = messages(11..=20); // each of 102 bytes
        cut(&mut page, anchor, bytes);
        page.iter().map(|message| message.seq).collect()
    }

    #[test]
    fn a_page_is_cut_at_the_end_away_from_its_anchor() {
        assert_eq!(kept(Anchor::Newest, 306), [18, 19, 20]);
        assert_eq!(kept(Anchor::Before(21), 306), [18, 19, 20]);
        assert_eq!(kept(Anchor::After(10), 306), [11, 12, 13]);
        assert_eq!(kept(Anchor::Around(15), 306), [14, 15, 16]);
        assert_eq!(kept(Anchor::Around(20), 306), [18, 19, 20]);
    }

    #[test]
    fn at_least_one_message_is_returned_however_large() {
        assert_eq!(kept(Anchor::Newest, 1), [20]);
        assert_eq!(kept(Anchor::After(10), 1), [11]);
        assert_eq!(kept(Anchor::Around(15), 1), [15]);
    }
}
