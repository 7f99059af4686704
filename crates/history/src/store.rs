//! The tables in Postgres, one file per table.

mod conversations;
mod messages;
mod outbox;
mod row;
mod shards;

pub use conversations::{Conversations, CreateConversationOutcome};
pub use messages::{
    AppendDecision, AssignedSeq, ConversationRow, LockedState, MessageKey, Messages, SeqRange, StoredMessage,
};
pub use outbox::{Backlog, Outbox, PendingRange};
pub use shards::{LeasedShards, Shards};
pub use tidings_postgres::Fault as Error;

/// The tables of the service.
#[derive(Clone, Debug)]
pub struct Store {
    /// `conversation`: conversations without their messages.
    pub conversations: Conversations,
    /// `message`: the messages of all conversations.
    pub messages: Messages,
    /// `outbox`: messages that the tails or broadcast may not have.
    pub outbox: Outbox,
    /// `relay_shard` and `relay_worker`: the instance that relays each shard of the outbox.
    pub shards: Shards,
    postgres: tidings_postgres::Postgres,
}

impl Store {
    /// Creates the tables of one database.
    pub fn new(postgres: tidings_postgres::Postgres) -> Self {
        Self {
            conversations: Conversations::new(postgres.clone()),
            messages: Messages::new(postgres.clone()),
            outbox: Outbox::new(postgres.clone()),
            shards: Shards::new(postgres.clone()),
            postgres,
        }
    }

    /// Returns true if Postgres answered the last request.
    pub fn is_available(&self) -> bool {
        self.postgres.answers()
    }

    /// Closes all connections once the work on them is done.
    pub async fn close(&self) {
        self.postgres.close().await;
    }
}
