//! Pages: from the tail, from Postgres, or from both where they are adjacent.
//!
//! A tail serves a page if it is contiguous, reaches `min_seq`, and holds the page's start
//! (forward) or its end (backward). Older messages of a backward page come from Postgres. All other
//! pages come from Postgres alone.
//!
//! A newest page that misses the tail is read under a lease, with as many messages as a tail holds,
//! and loads the tail. Each append raises the *floor* of such a load. A load below the floor reads
//! the missing messages and tries again, so a loaded tail lacks no committed message.

use super::{Error, Histories};
use crate::cache::{LoadOutcome, LoadToken, TAIL_MESSAGES};
use crate::model::{Anchor, ConversationId, MessagePage, MessageSlice, ReadSource};

/// Maximum attempts of one load. An attempt fails if messages are committed meanwhile, and each
/// attempt has fewer of them to catch up with. In a conversation that is too hot for that, the next
/// reader tries.
const LOAD_ATTEMPTS: usize = 10;

impl Histories {
    /// Reads a page of at most `limit` messages, from a state of the conversation that includes
    /// `min_seq`.
    pub async fn page(
        &self,
        id: &ConversationId,
        anchor: Anchor,
        limit: usize,
        min_seq: i64,
    ) -> Result<MessagePage, Error> {
        let page = match self.tails.read(id, anchor, limit, min_seq).await {
            Ok(Some(slice)) => {
                let stale = !self.store.is_available();
                let MessageSlice { messages, last_seq } = slice;
                let page = MessagePage { messages, last_seq, source: ReadSource::Redis, stale };
                self.extend_with_older(id, anchor, limit, page).await?
            }
            Ok(None) if anchor == Anchor::Newest => self.newest_from_postgres(id, limit).await?,
            Ok(None) => self.page_from_postgres(id, anchor, limit).await?,
            Err(error) => {
                self.log_redis_failure(&error);
                self.page_from_postgres(id, anchor, limit).await?
            }
        };
        if page.last_seq < min_seq {
            return Err(Error::SeqAhead { last_seq: page.last_seq });
        }
        self.metrics.record_page(&page);
        Ok(page)
    }

    /// Completes a backward page with the messages before the tail, from Postgres.
    async fn extend_with_older(
        &self,
        id: &ConversationId,
        anchor: Anchor,
        limit: usize,
        mut page: MessagePage,
    ) -> Result<MessagePage, Error> {
        let backward = matches!(anchor, Anchor::Newest | Anchor::Before(_));
        let missing = limit.saturating_sub(page.messages.len());
        let Some(first) = page.messages.first().map(|message| message.seq) else {
            return Ok(page);
        };
        if !backward || missing == 0 || first == 1 {
            return Ok(page);
        }
        match self.page_from_postgres(id, Anchor::Before(first), missing).await {
            Ok(mut older) if older.messages.last().is_some_and(|last| last.seq + 1 == first) => {
                older.messages.append(&mut page.messages);
                Ok(MessagePage { messages: older.messages, last_seq: page.last_seq.max(older.last_seq), ..older })
            }
            // The page has only the messages of the tail. Its page token leads to the older ones.
            Ok(_) => Ok(page),
            Err(Error::Store(fault)) if fault.is_away() => Ok(MessagePage { stale: true, ..page }),
            Err(error) => Err(error),
        }
    }

    /// Reads a newest page that the tail does not have, and loads the tail unless another reader
    /// does.
    async fn newest_from_postgres(&self, id: &ConversationId, limit: usize) -> Result<MessagePage, Error> {
        let lease = self.tails.lease(id).await.unwrap_or_else(|error| {
            self.log_redis_failure(&error);
            None
        });
        let Some(token) = lease else {
            return self.page_from_postgres(id, Anchor::Newest, limit).await;
        };
        let mut page = self.page_from_postgres(id, Anchor::Newest, TAIL_MESSAGES).await?;
        fail::fail_point!("history::before_load");
        self.load_tail(id, token, &mut page).await;
        let surplus = page.messages.len().saturating_sub(limit);
        page.messages.drain(..surplus);
        Ok(page)
    }

    /// Loads the tail from a newest page, and adds messages that are committed meanwhile to both.
    /// The page is valid even if the load fails.
    async fn load_tail(&self, id: &ConversationId, token: LoadToken, page: &mut MessagePage) {
        for attempts_left in (0..LOAD_ATTEMPTS).rev() {
            match self.tails.load(id, token, &page.messages, page.last_seq, attempts_left > 0).await {
                Ok(LoadOutcome::Behind { .. }) => {
                    let newer = self.page_from_postgres(id, Anchor::After(page.last_seq), TAIL_MESSAGES).await;
                    let Ok(mut newer) = newer else { return };
                    page.messages.append(&mut newer.messages);
                    page.last_seq = page.messages.last().map_or(page.last_seq, |message| message.seq);
                }
                Ok(LoadOutcome::Done | LoadOutcome::LeaseExpired) => return,
                Err(error) => return self.log_redis_failure(&error),
            }
        }
    }

    /// Reads a page from Postgres.
    async fn page_from_postgres(
        &self,
        id: &ConversationId,
        anchor: Anchor,
        limit: usize,
    ) -> Result<MessagePage, Error> {
        let messages = &self.store.messages;
        let read = match anchor {
            Anchor::Newest => messages.before(id, i64::MAX, limit).await?,
            Anchor::Before(seq) => messages.before(id, seq, limit).await?,
            Anchor::After(seq) => messages.after(id, seq, limit).await?,
            Anchor::Around(seq) => {
                // The newer part is read first: if it has a message, the older part is complete by
                // then.
                let newer = messages.after(id, seq - 1, limit - limit / 2).await?;
                let older = messages.before(id, seq, limit / 2).await?;
                newer.zip(older).map(|(newer, mut older)| {
                    older.messages.extend(newer.messages);
                    older
                })
            }
        };
        let MessageSlice { messages, last_seq } = read.ok_or_else(|| Error::NoConversation { id: id.clone() })?;
        Ok(MessagePage { messages, last_seq, source: ReadSource::Postgres, stale: false })
    }
}
