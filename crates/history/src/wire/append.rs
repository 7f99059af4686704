//! Validation of AppendMessage and BatchAppendMessages, and their responses.

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::history as pb;
use tidings_status::{Created, Fields, Invalid};

use super::DOMAIN;
use crate::model::{AppendRequest, Body, ConversationId, Message, UserId};

/// Maximum number of items in a batch.
const BATCH_MAX: usize = 100;
/// Maximum size of a text or binary body, in bytes.
const BODY_MAX: usize = 32 * 1024;
/// Maximum length of a content type, in bytes.
const CONTENT_TYPE_MAX: usize = 128;

/// Validates a request of AppendMessage, and converts it into the model.
pub fn append(request: pb::AppendMessageRequest) -> Result<AppendRequest, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    check(&mut fields, &request);
    fields.finish()?;
    Ok(append_request(request))
}

/// Validates a request of BatchAppendMessages, and converts it into the model.
pub fn batch_append(request: pb::BatchAppendMessagesRequest) -> Result<Vec<AppendRequest>, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.within_range("requests", &request.requests.len(), &(1..=BATCH_MAX));
    for (index, item) in request.requests.iter().enumerate().take(BATCH_MAX) {
        fields.within(format_args!("requests[{index}]"), |fields| check(fields, item));
    }
    fields.finish()?;
    Ok(request.requests.into_iter().map(append_request).collect())
}

fn check(fields: &mut Fields, request: &pb::AppendMessageRequest) {
    fields.id("conversation_id", &request.conversation_id);
    fields.id("sender_id", &request.sender_id);
    fields.id("client_message_id", &request.client_message_id);
    match request.body.as_ref().and_then(|body| body.content.as_ref()) {
        Some(pb::body::Content::Text(text)) => fields.text("body.text", text, BODY_MAX),
        Some(pb::body::Content::Binary(binary)) => {
            let (bytes, content_type) = (binary.data.len(), &binary.content_type);
            fields.require(
                "body.binary.data",
                bytes <= BODY_MAX,
                format!("expected at most {BODY_MAX} bytes, got {bytes}"),
            );
            fields.require(
                "body.binary.content_type",
                (1..=CONTENT_TYPE_MAX).contains(&content_type.len())
                    && content_type.bytes().all(|byte| byte.is_ascii_graphic()),
                format!("expected 1 to {CONTENT_TYPE_MAX} bytes of visible ASCII"),
            );
        }
        None => fields.refuse("body", "expected a text or a binary"),
    }
    fields.not_negative("reply_to_seq", request.reply_to_seq);
    fields.attributes("attributes", &request.attributes);
}

/// Converts a validated request, which has a body.
fn append_request(request: pb::AppendMessageRequest) -> AppendRequest {
    let fingerprint = Sha256::digest(request.encode_to_vec()).into();
    AppendRequest {
        conversation: ConversationId::new(request.conversation_id),
        sender: UserId::new(request.sender_id),
        client_message_id: request.client_message_id,
        fingerprint,
        body: super::body(request.body).unwrap_or(Body::Text(String::new())),
        reply_to_seq: request.reply_to_seq,
        attributes: request.attributes,
    }
}

/// Builds the response to a successful append.
pub fn appended(appended: Created<Message>) -> pb::AppendMessageResponse {
    let Created { value, deduplicated } = appended;
    pb::AppendMessageResponse { message: Some(super::message(value)), deduplicated }
}

/// Builds the result of a batch item that was appended.
pub fn batch_appended(message: Created<Message>) -> pb::BatchAppendMessagesResult {
    let outcome = pb::batch_append_messages_result::Outcome::Appended(appended(message));
    pb::BatchAppendMessagesResult { outcome: Some(outcome) }
}

/// Builds the result of a batch item that was refused. The contract defines `seq` for each reason.
pub fn batch_refused(reason: pb::ErrorReason, message: String, seq: i64) -> pb::BatchAppendMessagesResult {
    let failure = pb::AppendFailure { reason: reason.into(), message, seq };
    let outcome = pb::batch_append_messages_result::Outcome::Failure(failure);
    pb::BatchAppendMessagesResult { outcome: Some(outcome) }
}
