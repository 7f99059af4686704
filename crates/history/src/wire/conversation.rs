//! Validation of the RPCs of ConversationService, and their responses.

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::history as pb;
use tidings_status::{Created, Fields, Invalid};
use uuid::Uuid;

use super::DOMAIN;
use crate::model::{Conversation, ConversationId, ConversationKind, NewConversation};

/// Maximum length of a title, in bytes.
const TITLE_MAX: usize = 256;

/// Validates CreateConversation. Generates an id if the caller chose none.
pub fn create(request: pb::CreateConversationRequest) -> Result<NewConversation, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.optional_id("request_id", &request.request_id);
    fields.require("conversation", request.conversation.is_some(), "expected a conversation");
    let requested = pb::Conversation {
        last_seq: 0,
        version: 0,
        create_time: None,
        update_time: None,
        ..request.conversation.unwrap_or_default()
    };
    fields.within("conversation", |fields| {
        fields.optional_id("id", &requested.id);
        fields.require(
            "kind",
            requested.kind == i32::from(pb::conversation::Kind::Open),
            "expected KIND_OPEN (3); conversations with members are not supported yet",
        );
        fields.text("title", &requested.title, TITLE_MAX);
        fields.attributes("attributes", &requested.attributes);
    });
    fields.finish()?;
    let fingerprint = Sha256::digest(requested.encode_to_vec()).into();
    let id = if requested.id.is_empty() { Uuid::now_v7().to_string() } else { requested.id };
    Ok(NewConversation {
        id: ConversationId::new(id),
        request_id: Some(request.request_id).filter(|id| !id.is_empty()),
        fingerprint,
        kind: ConversationKind::Open,
        title: requested.title,
        attributes: requested.attributes,
    })
}

/// Validates a request of GetConversation, and converts it into the model.
pub fn get(request: pb::GetConversationRequest) -> Result<ConversationId, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("id", &request.id);
    fields.finish()?;
    Ok(ConversationId::new(request.id))
}

/// Builds the response to a creation.
pub fn created(created: Created<Conversation>) -> pb::CreateConversationResponse {
    let Created { value, deduplicated } = created;
    pb::CreateConversationResponse { conversation: Some(conversation(value)), deduplicated }
}

/// Converts a conversation to the contract.
pub fn conversation(conversation: Conversation) -> pb::Conversation {
    pb::Conversation {
        id: conversation.id.to_string(),
        kind: match conversation.kind {
            ConversationKind::Open => pb::conversation::Kind::Open.into(),
        },
        title: conversation.title,
        attributes: conversation.attributes,
        last_seq: conversation.last_seq,
        version: conversation.version,
        create_time: Some(conversation.create_time.into()),
        update_time: Some(conversation.update_time.into()),
    }
}
