//! Checks of AppendMessage and BatchAppendMessages, and their answers.

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::history as pb;
use tidings_status::{Fields, Invalid};

use super::DOMAIN;
use crate::model::{Body, ConversationId, Message, NewMessage, UserId};

/// The most items of one batch.
const BATCH_MAX: usize = 100;
/// The longest text, and the most bytes of a binary body.
const BODY_MAX: usize = 32 * 1024;
const CONTENT_TYPE_MAX: usize = 128;

/// Checks AppendMessage.
pub fn append(request: pb::AppendMessageRequest) -> Result<NewMessage, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    check(&mut fields, &request);
    fields.finish()?;
    Ok(new_message(request))
}

/// Checks BatchAppendMessages.
pub fn batch_append(request: pb::BatchAppendMessagesRequest) -> Result<Vec<NewMessage>, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.within_range("requests", &request.requests.len(), &(1..=BATCH_MAX));
    for (place, item) in request.requests.iter().enumerate().take(BATCH_MAX) {
        fields.within(format_args!("requests[{place}]"), |fields| check(fields, item));
    }
    fields.finish()?;
    Ok(request.requests.into_iter().map(new_message).collect())
}

fn check(fields: &mut Fields, request: &pb::AppendMessageRequest) {
    fields.id("conversation_id", &request.conversation_id);
    fields.id("sender_id", &request.sender_id);
    fields.id("client_message_id", &request.client_message_id);
    match request.body.as_ref().and_then(|body| body.content.as_ref()) {
        Some(pb::body::Content::Text(text)) => fields.text("body.text", text, BODY_MAX),
        Some(pb::body::Content::Binary(binary)) => {
            let (bytes, kind) = (binary.data.len(), &binary.content_type);
            fields.require(
                "body.binary.data",
                bytes <= BODY_MAX,
                format!("expected at most {BODY_MAX} bytes, got {bytes}"),
            );
            fields.require(
                "body.binary.content_type",
                (1..=CONTENT_TYPE_MAX).contains(&kind.len()) && kind.bytes().all(|byte| byte.is_ascii_graphic()),
                format!("expected 1 to {CONTENT_TYPE_MAX} bytes of visible ASCII"),
            );
        }
        None => fields.refuse("body", "expected a text or a binary"),
    }
    fields.not_negative("reply_to_seq", request.reply_to_seq);
    fields.attributes("attributes", &request.attributes);
}

/// A request that was checked, so that it has a body.
fn new_message(request: pb::AppendMessageRequest) -> NewMessage {
    let fingerprint = Sha256::digest(request.encode_to_vec()).into();
    NewMessage {
        conversation: ConversationId::new(request.conversation_id),
        sender: UserId::new(request.sender_id),
        client_message_id: request.client_message_id,
        fingerprint,
        body: super::body(request.body).unwrap_or(Body::Text(String::new())),
        reply_to_seq: request.reply_to_seq,
        attributes: request.attributes,
    }
}

/// The answer to an append that was done.
pub fn appended(message: Message, deduplicated: bool) -> pb::AppendMessageResponse {
    pb::AppendMessageResponse { message: Some(super::message(message)), deduplicated }
}

/// The result of an item that was appended.
pub fn batch_appended(message: Message, deduplicated: bool) -> pb::BatchAppendMessagesResult {
    let outcome = pb::batch_append_messages_result::Outcome::Appended(appended(message, deduplicated));
    pb::BatchAppendMessagesResult { outcome: Some(outcome) }
}

/// The result of an item that was refused; `seq` as the contract says for the reason.
pub fn batch_refused(reason: pb::ErrorReason, message: String, seq: i64) -> pb::BatchAppendMessagesResult {
    let failure = pb::AppendFailure { reason: reason.into(), message, seq };
    let outcome = pb::batch_append_messages_result::Outcome::Failure(failure);
    pb::BatchAppendMessagesResult { outcome: Some(outcome) }
}
