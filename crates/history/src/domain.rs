//! The use cases, and the order in which each touches Postgres and Redis.
//!
//! Append: one transaction in Postgres locks the conversations, finds duplicates, assigns seqs, and
//! inserts the messages and an outbox row; a single new message takes one statement that does the
//! same. Then the tails are updated and the caller gets its acknowledgement. The relay publishes
//! the messages to broadcast.
//!
//! Page: the tail in Redis first, then Postgres for the messages that the tail does not have. A
//! newest page that misses the tail loads it under a lease.
//!
//! These invariants hold:
//! - **H1** Seqs have no gap and follow the order of commit: they are assigned under the
//!   conversation's row lock, in the transaction that inserts the messages.
//! - **H2** One key (conversation, sender, client_message_id) identifies one message, indefinitely.
//! - **H3** A page has no gap: it comes from a tail that is proven contiguous, from one statement
//!   in Postgres, or from both where they are adjacent.
//! - **H4** A tail that is read never lacks a committed message below its newest, because a tail
//!   with a gap is not read. An early message is stored at its position; a message that is far too
//!   early drops the tail. A load fetches the messages committed meanwhile before it stores the
//!   tail.
//! - **H5** Losing any key of Redis at any time costs a read of Postgres and nothing else.
//! - **H6** Every committed message is published at least once, and those of one conversation in
//!   the order of their seqs. A message is published again only with the same (seq, edit_version).

mod assign_seqs;
mod error;
mod pages;
mod relay;

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use futures_util::future::join_all;
use tidings_server::UncancelledWork;
use tidings_status::Created;
use tidings_trace::TraceParent;

pub use error::Error;
pub use relay::Relay;

use crate::cache::{self, Tails};
use crate::metrics::Metrics;
use crate::model::{
    AppendOutcome, AppendRequest, AuthoredCursor, Conversation, ConversationId, Message, MessageSlice, NewConversation,
    Shard, UserId,
};
use crate::store::{CreateConversationOutcome, Store};

/// The use cases over all conversations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Histories {
    store: Store,
    tails: Arc<Tails>,
    relay: Arc<Relay>,
    metrics: Arc<Metrics>,
    /// A commit is always followed by the update of the tails.
    writes: UncancelledWork,
}

impl Histories {
    /// Creates the use cases over `store` and `tails`; every append wakes `relay`.
    pub fn new(store: Store, tails: Arc<Tails>, relay: Arc<Relay>) -> Self {
        Self { store, tails, relay, metrics: Metrics::new(), writes: UncancelledWork::default() }
    }

    /// Creates a conversation.
    pub async fn create(&self, new: NewConversation) -> Result<Created<Conversation>, Error> {
        let histories = self.clone();
        let create = async move {
            match histories.store.conversations.create(&new).await? {
                CreateConversationOutcome::Created(created) => Ok(created),
                CreateConversationOutcome::IdTaken => Err(Error::IdTaken { id: new.id }),
                CreateConversationOutcome::RequestIdReused => Err(Error::RequestIdReused),
            }
        };
        self.writes.run(create).await
    }

    /// Reads a conversation.
    pub async fn get_conversation(&self, id: &ConversationId) -> Result<Conversation, Error> {
        let conversation = self.store.conversations.read(id).await?;
        conversation.ok_or_else(|| Error::NoConversation { id: id.clone() })
    }

    /// Appends one message. The relay publishes it in the trace of `trace_parent`.
    pub async fn append(
        &self,
        message: AppendRequest,
        trace_parent: Option<TraceParent>,
    ) -> Result<Created<Message>, Error> {
        let histories = self.clone();
        let append = async move {
            let outcome = histories.commit(&message, trace_parent).await?;
            histories.after_commit(slice::from_ref(&outcome)).await;
            to_result(message.conversation, outcome)
        };
        self.writes.run(append).await
    }

    /// Appends messages to any conversations in one transaction. Returns one result per message, in
    /// the order of `messages`. The relay publishes them in the trace of `trace_parent`.
    pub async fn append_all(
        &self,
        messages: Vec<AppendRequest>,
        trace_parent: Option<TraceParent>,
    ) -> Result<Vec<Result<Created<Message>, Error>>, Error> {
        let histories = self.clone();
        let append = async move {
            let outcomes = match &messages[..] {
                [message] => vec![histories.commit(message, trace_parent).await?],
                batch => histories.commit_all(batch, trace_parent).await?,
            };
            histories.after_commit(&outcomes).await;
            Ok(messages
                .into_iter()
                .zip(outcomes)
                .map(|(message, outcome)| to_result(message.conversation, outcome))
                .collect())
        };
        self.writes.run(append).await
    }

    /// Reads one message.
    pub async fn get(&self, id: &ConversationId, seq: i64) -> Result<Message, Error> {
        let found = self.store.messages.read(id, seq).await?;
        let MessageSlice { mut messages, last_seq } = found.ok_or_else(|| Error::NoConversation { id: id.clone() })?;
        messages.pop().ok_or(Error::NoMessage { seq, last_seq })
    }

    /// Reads at most `limit` of the messages that a user sent, newest first, each with its cursor.
    pub async fn authored(
        &self,
        user: &UserId,
        after: Option<AuthoredCursor>,
        limit: usize,
    ) -> Result<Vec<(Message, AuthoredCursor)>, Error> {
        Ok(self.store.messages.authored(user, after, limit).await?)
    }

    /// Waits for writes whose callers have disconnected, then closes all connections.
    pub async fn close(&self) {
        self.writes.finish().await;
        self.store.close().await;
    }

    /// Commits one message. A new message takes one statement; all other cases are decided under
    /// the locks of a transaction.
    async fn commit(&self, message: &AppendRequest, trace_parent: Option<TraceParent>) -> Result<AppendOutcome, Error> {
        match self.store.messages.append_one(message, trace_parent).await? {
            Some(appended) => Ok(appended),
            // A transaction has one outcome per message.
            None => Ok(self.commit_all(slice::from_ref(message), trace_parent).await?.swap_remove(0)),
        }
    }

    /// Commits the messages in one transaction.
    async fn commit_all(
        &self,
        messages: &[AppendRequest],
        trace_parent: Option<TraceParent>,
    ) -> Result<Vec<AppendOutcome>, Error> {
        Ok(self.store.messages.append(messages, trace_parent, assign_seqs::assign_seqs).await?)
    }

    /// Counts the outcomes of a commit, and updates the tails.
    async fn after_commit(&self, outcomes: &[AppendOutcome]) {
        for outcome in outcomes {
            self.metrics.record_append(outcome);
        }
        fail::fail_point!("history::before_tail_update");
        self.update_tails(outcomes).await;
    }

    /// Appends new messages to the tails and wakes the relay. If Redis does not take an append, the
    /// relay repairs the tail.
    async fn update_tails(&self, outcomes: &[AppendOutcome]) {
        let mut new: BTreeMap<(&ConversationId, Shard), Vec<Message>> = BTreeMap::new();
        for outcome in outcomes {
            if let AppendOutcome::Done { message, shard, deduplicated: false } = outcome {
                new.entry((&message.conversation, *shard)).or_default().push(message.clone());
            }
        }
        let updates = new.iter_mut().map(|((id, shard), messages)| {
            self.relay.notify(*shard);
            messages.sort_by_key(|message| message.seq);
            self.tails.append(id, messages, Some(*shard))
        });
        let updates = join_all(updates).await;
        if let Some(error) = updates.into_iter().find_map(Result::err) {
            self.log_redis_failure(&error);
        }
    }

    /// Counts and logs a step that continues without Redis.
    fn log_redis_failure(&self, error: &cache::Error) {
        self.metrics.record_redis_skip();
        error.log_skip("the tails");
    }
}

/// Converts the outcome of one append to the result of the use case.
fn to_result(conversation: ConversationId, outcome: AppendOutcome) -> Result<Created<Message>, Error> {
    match outcome {
        AppendOutcome::Done { message, deduplicated, .. } => Ok(Created { value: message, deduplicated }),
        AppendOutcome::NoConversation => Err(Error::NoConversation { id: conversation }),
        AppendOutcome::KeyReused { seq } => Err(Error::KeyReused { seq }),
        AppendOutcome::NoReplyTarget { last_seq } => Err(Error::NoReplyTarget { last_seq }),
    }
}
