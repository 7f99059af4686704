//! The use cases and their order of steps.
//!
//! Append: one transaction in Postgres (lock the conversations, find repeats, number, insert, outbox row) -> the tails ->
//! acknowledge. Page: the tail -> what it does not have, from Postgres; a newest page that the tail did not have loads it
//! under a lease. These invariants hold:
//! - **H1** numbers are gapless and in order of commit: they are given under the conversation's row lock, in the
//!   transaction that inserts;
//! - **H2** one key (conversation, sender, client_message_id) is one message, for ever;
//! - **H3** a page has no hole: it comes from a tail that proves itself whole, from one statement in Postgres, or from both
//!   where they meet;
//! - **H4** a tail never lacks a committed message below its newest: what is appended follows what is there, or the tail
//!   is dropped; what was committed while a tail was loaded is fetched before the tail counts;
//! - **H5** losing any key of Redis at any time costs a read of Postgres, nothing else.

mod error;
mod number;
mod pages;

use std::sync::Arc;

use futures_util::future::join_all;
use tokio_util::task::TaskTracker;

pub use error::Error;

use crate::cache::{self, Tails};
use crate::model::{
    Appended, AuthoredCursor, Conversation, ConversationId, Message, NewConversation, NewMessage, UserId,
};
use crate::store::{Created, Pending, Store};

/// Rows of the outbox that one step of the relay takes.
const RELAY_ROWS: i64 = 500;

/// The histories. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Histories {
    store: Store,
    tails: Arc<Tails>,
    writes: TaskTracker,
}

impl Histories {
    /// The histories of one store, with their tails.
    pub fn new(store: Store, tails: Tails) -> Self {
        Self { store, tails: Arc::new(tails), writes: TaskTracker::new() }
    }

    /// Creates a conversation. The boolean says whether an earlier call had.
    pub async fn create(&self, new: NewConversation) -> Result<(Conversation, bool), Error> {
        self.undisturbed(|histories| async move {
            match histories.store.conversations.create(&new).await? {
                Created::New(conversation) => Ok((conversation, false)),
                Created::Repeated(conversation) => Ok((conversation, true)),
                Created::IdTaken => Err(Error::IdTaken { id: new.id }),
                Created::RequestIdReused => Err(Error::RequestIdReused),
            }
        })
        .await
    }

    /// Reads a conversation.
    pub async fn get_conversation(&self, id: &ConversationId) -> Result<Conversation, Error> {
        let found = self.store.conversations.read(id).await?;
        found.ok_or_else(|| Error::NoConversation { id: id.clone() })
    }

    /// Appends messages to any conversations in one transaction; what becomes of each is told in their order.
    pub async fn append(&self, messages: Vec<NewMessage>) -> Result<Vec<Result<(Message, bool), Error>>, Error> {
        self.undisturbed(|histories| async move {
            let outcomes = histories.store.messages.append(&messages, number::number).await?;
            fail::fail_point!("history::before_apply");
            histories.tell(&outcomes).await;
            Ok(messages
                .into_iter()
                .zip(outcomes)
                .map(|(message, outcome)| said(message.conversation, outcome))
                .collect())
        })
        .await
    }

    /// Appends one message. The boolean says whether an earlier call had.
    pub async fn append_one(&self, message: NewMessage) -> Result<(Message, bool), Error> {
        self.append(vec![message]).await?.pop().unwrap_or(Err(Error::Aborted))
    }

    /// Reads one message.
    pub async fn get(&self, id: &ConversationId, seq: i64) -> Result<Message, Error> {
        let (last_seq, message) =
            self.store.messages.read(id, seq).await?.ok_or_else(|| Error::NoConversation { id: id.clone() })?;
        message.ok_or(Error::NoMessage { seq, last_seq })
    }

    /// Reads at most `limit` of the messages that a user sent, newest first, each with its place in that list.
    pub async fn authored(
        &self,
        user: &UserId,
        after: Option<AuthoredCursor>,
        limit: usize,
    ) -> Result<Vec<(Message, AuthoredCursor)>, Error> {
        Ok(self.store.messages.authored(user, after, limit).await?)
    }

    /// One step of the relay: brings the tails up to date with what was committed, and says whether there may be more.
    pub async fn relay(&self) -> Result<bool, Error> {
        let pending = self.store.outbox.pending(RELAY_ROWS).await?;
        if pending.is_empty() {
            return Ok(false);
        }
        let lasts: Vec<_> = pending.iter().map(|row| (row.conversation.clone(), row.last_seq)).collect();
        let reached = self.tails.reach(&lasts).await?;
        let (mut done, mut failed) = (Vec::with_capacity(pending.len()), None);
        for (row, reached) in pending.iter().zip(reached) {
            let repaired = if reached { Ok(()) } else { self.repair(row).await };
            match repaired {
                Ok(()) => done.push(row.id),
                Err(error) => failed = Some(error), // holds up no other conversation
            }
        }
        self.store.outbox.done(&done).await?;
        failed.map_or(Ok(i64::try_from(done.len()).is_ok_and(|rows| rows == RELAY_ROWS)), Err)
    }

    /// Waits for appends whose callers have gone, then closes all connections.
    pub async fn close(&self) {
        self.writes.close();
        self.writes.wait().await;
        self.store.close().await;
    }

    /// Gives a tail the messages that it lacks.
    async fn repair(&self, row: &Pending) -> Result<(), Error> {
        let messages = self.store.messages.range_for_relay(&row.conversation, row.first_seq, row.last_seq).await?;
        Ok(self.tails.append(&row.conversation, &messages).await?)
    }

    /// Tells the tails of a commit; what Redis does not take, the outbox will.
    async fn tell(&self, outcomes: &[Appended]) {
        let mut new: Vec<Message> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Appended::Done { message, deduplicated: false } => Some(message.clone()),
                _ => None,
            })
            .collect();
        new.sort_by(|one, other| (&one.conversation, one.seq).cmp(&(&other.conversation, other.seq)));
        let tails = new.chunk_by(|one, other| one.conversation == other.conversation);
        let told = join_all(tails.map(|messages| self.tails.append(&messages[0].conversation, messages))).await;
        if let Some(error) = told.into_iter().find_map(Result::err) {
            self.missed(&error);
        }
    }

    /// Runs a write to its end even if its caller goes away: a commit is always followed by its apply.
    async fn undisturbed<T, F>(&self, write: impl FnOnce(Self) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let write = self.writes.spawn(write(self.clone()));
        write.await.map_err(|_| Error::Aborted)?
    }

    /// Says that we go on without Redis: loudly if it answered that it would not, because that is no outage.
    #[expect(clippy::unused_self, reason = "this is where misses will be counted")]
    fn missed(&self, error: &cache::Error) {
        match error {
            cache::Error::Refused(cause) => tracing::warn!(%cause, "redis refused"),
            cache::Error::Away | cache::Error::Unanswered(_) | cache::Error::Unwritable(_) => {
                tracing::debug!(%error, "going on without redis");
            }
        }
    }
}

/// What became of one append, in the words of the service.
fn said(conversation: ConversationId, outcome: Appended) -> Result<(Message, bool), Error> {
    match outcome {
        Appended::Done { message, deduplicated } => Ok((message, deduplicated)),
        Appended::NoConversation => Err(Error::NoConversation { id: conversation }),
        Appended::KeyReused { seq } => Err(Error::KeyReused { seq }),
        Appended::NoReplyTarget { last_seq } => Err(Error::NoReplyTarget { last_seq }),
    }
}
