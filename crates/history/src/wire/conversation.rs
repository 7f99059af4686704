//! Checks of the RPCs of ConversationService, and their answers.

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tidings_proto::history as pb;
use tidings_status::{Fields, Invalid};
use uuid::Uuid;

use super::DOMAIN;
use crate::model::{Conversation, ConversationId, Kind, NewConversation};

const TITLE_MAX: usize = 256;

/// Checks CreateConversation.
pub fn create(request: pb::CreateConversationRequest) -> Result<NewConversation, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.optional_id("request_id", &request.request_id);
    fields.require("conversation", request.conversation.is_some(), "expected a conversation");
    let asked = pb::Conversation {
        last_seq: 0,
        version: 0,
        create_time: None,
        update_time: None,
        ..request.conversation.unwrap_or_default()
    };
    fields.within("conversation", |fields| {
        fields.optional_id("id", &asked.id);
        fields.require(
            "kind",
            asked.kind == i32::from(pb::conversation::Kind::Open),
            "expected KIND_OPEN (3); members are not kept yet",
        );
        fields.text("title", &asked.title, TITLE_MAX);
        fields.attributes("attributes", &asked.attributes);
    });
    fields.finish()?;
    let fingerprint = Sha256::digest(asked.encode_to_vec()).into();
    let id = if asked.id.is_empty() { Uuid::now_v7().to_string() } else { asked.id };
    Ok(NewConversation {
        id: ConversationId::new(id),
        request_id: Some(request.request_id).filter(|id| !id.is_empty()),
        fingerprint,
        kind: Kind::Open,
        title: asked.title,
        attributes: asked.attributes,
    })
}

/// Checks GetConversation.
pub fn get(request: pb::GetConversationRequest) -> Result<ConversationId, Invalid> {
    let mut fields = Fields::new(DOMAIN);
    fields.id("id", &request.id);
    fields.finish()?;
    Ok(ConversationId::new(request.id))
}

/// A conversation as the contract has it.
pub fn conversation(conversation: Conversation) -> pb::Conversation {
    pb::Conversation {
        id: conversation.id.to_string(),
        kind: match conversation.kind {
            Kind::Open => pb::conversation::Kind::Open.into(),
        },
        title: conversation.title,
        attributes: conversation.attributes,
        last_seq: conversation.last_seq,
        version: conversation.version,
        create_time: Some(conversation.create_time.into()),
        update_time: Some(conversation.update_time.into()),
    }
}
