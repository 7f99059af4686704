//! The use cases and their order of steps.
//!
//! Append: one transaction in Postgres (lock the conversations, find repeats, number, insert, outbox row; for one new message
//! one statement that does the same) -> the tails -> acknowledge; the relay brings it to broadcast. Page: the tail -> what it does not have, from Postgres; a newest page that the tail did not have loads it
//! under a lease. These invariants hold:
//! - **H1** numbers are gapless and in order of commit: they are given under the conversation's row lock, in the
//!   transaction that inserts;
//! - **H2** one key (conversation, sender, client_message_id) is one message, for ever;
//! - **H3** a page has no hole: it comes from a tail that proves itself whole, from one statement in Postgres, or from both
//!   where they meet;
//! - **H4** a tail that is read never lacks a committed message below its newest: it proves that it is whole. What came too
//!   early waits in its place, and if it is much too early the tail is dropped; what was committed while a tail was loaded is
//!   fetched before the tail counts;
//! - **H5** losing any key of Redis at any time costs a read of Postgres, nothing else;
//! - **H6** every committed message is published at least once, those of a conversation in the order of their numbers, and
//!   again only as the same (seq, edit_version).

mod error;
mod number;
mod pages;
mod relay;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tidings_trace::TraceParent;
use tokio_util::task::TaskTracker;

pub use error::Error;
pub use relay::Relay;

use crate::cache::{self, Tails};
use crate::model::{
    Appended, AuthoredCursor, Conversation, ConversationId, Message, NewConversation, NewMessage, Shard, UserId,
};
use crate::numbers::Numbers;
use crate::store::{Created, Store};

/// The histories. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Histories {
    store: Store,
    tails: Arc<Tails>,
    relay: Arc<Relay>,
    numbers: Arc<Numbers>,
    writes: TaskTracker,
}

impl Histories {
    /// The histories of one store, with their tails; what is appended is told to `relay`.
    pub fn new(store: Store, tails: Arc<Tails>, relay: Arc<Relay>) -> Self {
        Self { store, tails, relay, numbers: Numbers::new(), writes: TaskTracker::new() }
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

    /// Appends messages to any conversations in one transaction; what becomes of each is told in their order. They are
    /// published in the trace of `cause`.
    pub async fn append(
        &self,
        messages: Vec<NewMessage>,
        cause: Option<TraceParent>,
    ) -> Result<Vec<Result<(Message, bool), Error>>, Error> {
        self.undisturbed(|histories| async move {
            let outcomes = histories.commit(&messages, cause).await?;
            for outcome in &outcomes {
                histories.numbers.appended(outcome);
            }
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
    pub async fn append_one(&self, message: NewMessage, cause: Option<TraceParent>) -> Result<(Message, bool), Error> {
        self.append(vec![message], cause).await?.pop().unwrap_or(Err(Error::Aborted))
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

    /// One message that is new takes one statement; all else is decided under the locks of a transaction.
    async fn commit(&self, messages: &[NewMessage], cause: Option<TraceParent>) -> Result<Vec<Appended>, Error> {
        if let [message] = messages
            && let Some(appended) = self.store.messages.append_one(message, cause).await?
        {
            return Ok(vec![appended]);
        }
        Ok(self.store.messages.append(messages, cause, number::number).await?)
    }

    /// Waits for appends whose callers have gone, then closes all connections.
    pub async fn close(&self) {
        self.writes.close();
        self.writes.wait().await;
        self.store.close().await;
    }

    /// Tells the tails of a commit, and the relay that it has something to do; what Redis does not take, the outbox will.
    async fn tell(&self, outcomes: &[Appended]) {
        let mut new: BTreeMap<(&ConversationId, Shard), Vec<Message>> = BTreeMap::new();
        for outcome in outcomes {
            if let Appended::Done { message, shard, deduplicated: false } = outcome {
                new.entry((&message.conversation, *shard)).or_default().push(message.clone());
            }
        }
        let told = new.iter_mut().map(|((id, shard), messages)| {
            self.relay.hear(*shard);
            messages.sort_by_key(|message| message.seq);
            self.tails.append(id, messages, Some(*shard))
        });
        let told = join_all(told).await;
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
    fn missed(&self, error: &cache::Error) {
        self.numbers.without_redis();
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
        Appended::Done { message, deduplicated, .. } => Ok((message, deduplicated)),
        Appended::NoConversation => Err(Error::NoConversation { id: conversation }),
        Appended::KeyReused { seq } => Err(Error::KeyReused { seq }),
        Appended::NoReplyTarget { last_seq } => Err(Error::NoReplyTarget { last_seq }),
    }
}
