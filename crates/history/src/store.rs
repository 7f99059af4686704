//! Postgres, one file per table.

mod conversations;
mod messages;
mod outbox;
mod row;
mod shards;

pub use conversations::{Conversations, Created};
pub use messages::{ConversationRow, Found, Key, Messages, Numbered, Range, Verdict};
pub use outbox::{Backlog, Outbox, Pending};
pub use shards::Shards;
pub use tidings_postgres::Fault as Error;

/// The tables of the service.
#[derive(Clone, Debug)]
pub struct Store {
    /// The conversations.
    pub conversations: Conversations,
    /// The messages.
    pub messages: Messages,
    /// What the tails and broadcast have yet to hear.
    pub outbox: Outbox,
    /// Who relays which part of it.
    pub shards: Shards,
    postgres: tidings_postgres::Postgres,
}

impl Store {
    /// The tables in one database.
    pub fn new(postgres: tidings_postgres::Postgres) -> Self {
        Self {
            conversations: Conversations::new(postgres.clone()),
            messages: Messages::new(postgres.clone()),
            outbox: Outbox::new(postgres.clone()),
            shards: Shards::new(postgres.clone()),
            postgres,
        }
    }

    /// Whether Postgres answered when it was asked last.
    pub fn answers(&self) -> bool {
        self.postgres.answers()
    }

    /// Closes all connections, after the work on them.
    pub async fn close(&self) {
        self.postgres.close().await;
    }
}
