//! Table `conversation`: conversations without their messages.

use std::collections::BTreeMap;

use sqlx::types::Json;
use tidings_postgres::{Fault, Postgres};
use tidings_status::Created;
use time::OffsetDateTime;

use super::row::kind_code;
use crate::model::{Conversation, ConversationId, ConversationKind, NewConversation};

/// Access to the table `conversation`.
#[derive(Clone, Debug)]
pub struct Conversations {
    postgres: Postgres,
}

/// Outcome of a creation.
#[derive(Clone, Debug)]
pub enum CreateConversationOutcome {
    /// The conversation was created, now or by an earlier call of the same request.
    Created(Created<Conversation>),
    /// The id belongs to another conversation.
    IdTaken,
    /// The request id was used to create another conversation.
    RequestIdReused,
}

/// A row of `conversation`.
struct Row {
    id: String,
    title: String,
    attributes: Json<BTreeMap<String, String>>,
    last_seq: i64,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
}

impl From<Row> for Conversation {
    fn from(row: Row) -> Self {
        Self {
            id: ConversationId::new(row.id),
            kind: ConversationKind::Open, // the only kind that can be created
            title: row.title,
            attributes: row.attributes.0,
            last_seq: row.last_seq,
            version: row.version,
            create_time: row.create_time.into(),
            update_time: row.update_time.into(),
        }
    }
}

impl Conversations {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Creates a conversation, or returns the conflict that prevents it.
    pub async fn create(&self, new: &NewConversation) -> Result<CreateConversationOutcome, Fault> {
        if let Some(conversation) = self.insert(new).await? {
            return Ok(CreateConversationOutcome::Created(Created { value: conversation, deduplicated: false }));
        }
        self.find_create_conflict(new).await
    }

    /// Reads a conversation; `None` if it does not exist.
    pub async fn read(&self, id: &ConversationId) -> Result<Option<Conversation>, Fault> {
        let row = self
            .postgres
            .read(async |connection| {
                sqlx::query_as!(
                    Row,
                    r#"
                    SELECT id,
                           title,
                           attributes AS "attributes: Json<BTreeMap<String, String>>",
                           last_seq,
                           version,
                           create_time,
                           update_time
                    FROM conversation
                    WHERE id = $1
                    "#,
                    id.as_str(),
                )
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(row.map(Conversation::from))
    }

    async fn insert(&self, new: &NewConversation) -> Result<Option<Conversation>, Fault> {
        let row = self
            .postgres
            .run(async |connection| {
                sqlx::query_as!(
                    Row,
                    r#"
                    INSERT INTO conversation (id, kind, title, attributes, request_id, fingerprint)
                    VALUES ($1, $2, $3, $4, $5, $6)
                    ON CONFLICT DO NOTHING
                    RETURNING id,
                              title,
                              attributes AS "attributes: Json<BTreeMap<String, String>>",
                              last_seq,
                              version,
                              create_time,
                              update_time
                    "#,
                    new.id.as_str(),
                    kind_code(new.kind),
                    new.title,
                    Json(&new.attributes) as _,
                    new.request_id,
                    &new.fingerprint[..],
                )
                .fetch_optional(connection)
                .await
            })
            .await?;
        Ok(row.map(Conversation::from))
    }

    /// Finds the conversation that has the id or the request id of `new`, and distinguishes a retry
    /// from a conflict.
    async fn find_create_conflict(&self, new: &NewConversation) -> Result<CreateConversationOutcome, Fault> {
        let others = self
            .postgres
            .read(async |connection| {
                sqlx::query!(
                    r#"
                    SELECT id,
                           request_id,
                           fingerprint
                    FROM conversation
                    WHERE id = $1
                       OR request_id = $2
                    LIMIT 2
                    "#,
                    new.id.as_str(),
                    new.request_id,
                )
                .fetch_all(connection)
                .await
            })
            .await?;
        let same_request = others.iter().find(|other| new.request_id.is_some() && other.request_id == new.request_id);
        let same_id = others.iter().find(|other| new.request_id.is_none() && other.id == new.id.as_str());
        match same_request.or(same_id) {
            Some(other) if other.fingerprint == new.fingerprint => {
                let conversation = self.read(&ConversationId::new(other.id.clone())).await?;
                Ok(conversation.map_or(CreateConversationOutcome::IdTaken, |value| {
                    CreateConversationOutcome::Created(Created { value, deduplicated: true })
                }))
            }
            Some(_) if same_request.is_some() => Ok(CreateConversationOutcome::RequestIdReused),
            _ => Ok(CreateConversationOutcome::IdTaken),
        }
    }
}
